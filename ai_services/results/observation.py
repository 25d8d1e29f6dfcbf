"""Finding → Observation: preliminary, with unit, uncertainty, model and source; absent is never normal (stage 5).

https://hl7.org/fhir/R4/observation.html (preliminary: "data may be incomplete or unverified"); clinical model §6.3.
"""

from __future__ import annotations

from typing import Any

from ai_services.prediction import Finding, Numbering, Prediction
from ai_services.results.context import Resource, RunContext
from ai_services.results.dicom_codes import vertebra_code
from terminology import systems
from terminology.codes import FINDINGS, MORPHOLOGY, PFIRRMANN

COMPONENTS = {
    "confidence": ("Confidence", "置信度"),
    "uncertainty": ("Uncertainty (half width)", "不确定度（半宽）"),
    "expected": ("Expected value", "期望值"),
    "segment-number": ("Segment number", "分割编号"),
    "quality": ("Input quality", "输入质量"),
    "numbering-confident": ("Numbering is reliable", "计数是否可靠"),
}
_METHODS = {"model": "模型 model", "derived": "由分割测量 measured on the segmentation"}
_DIGITS = 3


def finding_kind(finding: Finding) -> str:
    """Kind of the Observation of a finding: its key within the run."""
    return f"observation-{finding.code}-{finding.level or 'study'}"


def build_observation(finding: Finding, prediction: Prediction, context: RunContext, device: str) -> Resource:
    """Build the Observation of one finding.

    Parameters
    ----------
    finding : value, or the reason why there is none
    prediction : where it comes from
    context : of the run
    device : reference to the Device of the model
    """
    observation = _base(finding.code, finding_kind(finding), prediction, context, device)
    if finding.level is not None:
        observation["bodySite"] = _site(finding.level)
    observation["method"] = {"text": _METHODS[finding.method]}
    observation.update(_value(finding))
    components = _components(finding)
    if components:
        observation["component"] = components
    return observation


def build_numbering(numbering: Numbering, prediction: Prediction, context: RunContext, device: str) -> Resource:
    """Build the Observation that says how vertebrae were counted; an unsure count blocks plan export (rule R18)."""
    observation = _base("numbering", "observation-numbering-study", prediction, context, device)
    observation["valueCodeableConcept"] = {
        "coding": [{"system": systems.NUMBERING, "code": numbering.method}],
        "text": "可靠 reliable" if numbering.confident else "不可靠，请医生确认节段 not reliable, confirm the level",
    }
    observation["component"] = [{**_component("numbering-confident"), "valueBoolean": numbering.confident}]
    if numbering.probability is not None:
        share = _quantity(numbering.probability, "1")
        observation["component"].append({**_component("confidence"), "valueQuantity": share})
    if numbering.reason:
        observation["note"] = [*observation.get("note", []), {"text": numbering.reason}]
    return observation


def _base(code: str, kind: str, prediction: Prediction, context: RunContext, device: str) -> Resource:
    known = FINDINGS.get(code)
    notice = {"note": [{"text": f"{prediction.notice_zh}。{prediction.notice_en}."}]} if prediction.notice_en else {}
    return {
        "resourceType": "Observation",
        "meta": context.meta,
        "identifier": [context.identifier(kind)],
        "status": "preliminary",
        "category": [{"coding": [{"system": systems.OBSERVATION_CATEGORY, "code": "imaging", "display": "Imaging"}]}],
        "code": known.concept() if known else {"coding": [{"system": systems.FINDING, "code": code}], "text": code},
        "subject": {"reference": context.patient},
        "effectiveDateTime": context.effective,
        "issued": context.instant,
        "device": {"reference": device},
        "derivedFrom": [{"reference": context.imaging_study}],
        "extension": [
            {"url": systems.EXTENSION_SOURCE_SERIES, "valueUri": f"urn:oid:{prediction.series_instance_uid}"}
        ],
        **notice,
    }


def _site(level: str) -> dict[str, Any]:
    """A disc by its level, a vertebra by its SNOMED CT code."""
    vertebra = vertebra_code(level)
    if vertebra is None:
        return {"coding": [{"system": systems.LEVEL, "code": level}], "text": f"{level} 椎间盘"}
    coding = {"system": systems.SNOMED, "code": vertebra.value, "display": vertebra.meaning}
    return {"coding": [coding], "text": f"{level} 椎骨"}


def _value(finding: Finding) -> dict[str, Any]:
    if finding.value is None:
        reason = finding.absent_reason or "unknown"
        return {
            "dataAbsentReason": {
                "coding": [{"system": systems.DATA_ABSENT_REASON, "code": reason}],
                "text": f"{finding.absent_text_zh} {finding.absent_text_en}",
            }
        }
    if isinstance(finding.value, str):
        return {"valueCodeableConcept": _concept(finding.code, finding.value)}
    return {"valueQuantity": _quantity(float(finding.value), finding.unit)}


def _concept(code: str, value: str) -> dict[str, Any]:
    known = {"F01": MORPHOLOGY, "F06": PFIRRMANN}.get(code, {}).get(value)
    if known is not None:
        return known.concept()
    return {"coding": [{"system": f"{systems.FINDING}-value", "code": value}], "text": value}


def _quantity(value: float, unit: str | None) -> dict[str, Any]:
    code = unit or "1"
    return {"value": round(value, _DIGITS), "unit": code, "system": systems.UCUM, "code": code}


def _component(code: str) -> dict[str, Any]:
    display, zh = COMPONENTS[code]
    return {"code": {"coding": [{"system": systems.COMPONENT, "code": code, "display": display}], "text": zh}}


def _components(finding: Finding) -> list[dict[str, Any]]:
    components = []
    if finding.confidence is not None:
        components.append({**_component("confidence"), "valueQuantity": _quantity(finding.confidence, "1")})
    if finding.uncertainty is not None:
        components.append({**_component("uncertainty"), "valueQuantity": _quantity(finding.uncertainty, finding.unit)})
    if finding.expected is not None:
        components.append({**_component("expected"), "valueQuantity": _quantity(finding.expected, finding.unit)})
    if finding.segment_number is not None:
        components.append({**_component("segment-number"), "valueInteger": finding.segment_number})
    if finding.quality != "ok":
        components.append({**_component("quality"), "valueString": finding.quality})
    return components
