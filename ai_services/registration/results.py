"""A registration → one FHIR transaction: an Observation with its quality, who made it, and from what (stage 5). Pure.

Preliminary and tagged as AI output like every result; the DICOM object is named by the Provenance. The models that
outlined the vertebrae are its agents too, so that the recall of one of them finds every registration that rests on it.
https://hl7.org/fhir/R4/observation.html, https://hl7.org/fhir/R4/provenance.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ai_services.prediction import ModelIdentity
from ai_services.registration.method import constants, identity
from ai_services.registration.quality import Quality
from ai_services.registration.register import Registration
from ai_services.results.bundle import TransactionBuilder
from ai_services.results.context import Resource, RunContext
from ai_services.results.device import build_device
from ai_services.results.dicom_objects import ResultObject
from ai_services.results.provenance import build_provenance
from ai_services.results.run_record import InputHash, hash_extension, software
from foramen.kernel.identifiers import derived_uuid
from terminology import systems
from terminology.codes import FINDINGS
from terminology.own.resources import COMPONENTS

CODE, KIND = "mr-ct-registration", "observation-mr-ct-registration"
NOTE = (
    "刚性配准, 未经核实; 使用前须由医生查看融合图像。CT 轮廓方法仅在合成模型上检验。Rigid, unverified; look at both "
    "images together before use. The method that outlines CT was checked on SYNTHETIC phantoms only."
)
_COMPONENTS = {code: (display, zh) for code, display, zh in COMPONENTS}


@dataclass(frozen=True, slots=True)
class Sources:
    """What was registered.

    Parameters
    ----------
    studies : references of the ImagingStudies, the CT's first
    series : Series Instance UIDs, the CT's first
    inputs : hash of each image of both series
    models : that outlined the vertebrae
    """

    studies: tuple[str, str]
    series: tuple[str, str]
    inputs: Mapping[str, InputHash]
    models: Sequence[ModelIdentity]


def build_registration(
    registration: Registration, context: RunContext, sources: Sources, registration_uid: str
) -> Resource:
    """Build the transaction.

    Parameters
    ----------
    registration : what was found
    context : of the run; its study is the CT's
    sources : what was registered
    registration_uid : SOP Instance UID of the DICOM Spatial Registration
    """
    builder = TransactionBuilder()
    devices = [
        builder.create(build_device(model), f"urn:uuid:{derived_uuid('device', model.sha256)}")
        for model in (identity(), *sources.models)
    ]
    observation = builder.create(_observation(registration.quality, context, sources, devices[0]), context.urn(KIND))
    provenance = build_provenance(
        targets=[observation],
        devices=devices,
        sources=list(dict.fromkeys(sources.studies)),
        sop_instance_uids=tuple(sources.inputs),
        recorded=context.instant,
        activity="ai-register",
        synthetic=context.synthetic,
        objects=[ResultObject("REG", registration_uid)],
    )
    for entity in provenance["entity"]:
        uid = str(entity["what"].get("identifier", {}).get("value", "")).removeprefix("urn:oid:")
        if uid in sources.inputs:
            entity["extension"] = [hash_extension(sources.inputs[uid])]
    provenance["extension"] = [_method()]
    builder.create_tagged(provenance, context.urn("provenance"))
    return builder.bundle()


def _observation(quality: Quality, context: RunContext, sources: Sources, device: str) -> Resource:
    return {
        "resourceType": "Observation",
        "meta": context.meta,
        "identifier": [context.identifier(KIND)],
        "status": "preliminary",
        "category": [{"coding": [{"system": systems.OBSERVATION_CATEGORY, "code": "imaging", "display": "Imaging"}]}],
        "code": FINDINGS[CODE].concept(),
        "subject": {"reference": context.patient},
        "effectiveDateTime": context.effective,
        "issued": context.instant,
        "device": {"reference": device},
        "derivedFrom": [{"reference": reference} for reference in dict.fromkeys(sources.studies)],
        "method": {"text": "刚性, 互信息 rigid, mutual information"},
        "note": [{"text": NOTE}],
        "extension": [{"url": systems.EXTENSION_SOURCE_SERIES, "valueUri": f"urn:oid:{sources.series[0]}"}],
        "component": [*_measures(quality)],
    }


def _measures(quality: Quality) -> list[dict[str, Any]]:
    """Each measure with its unit; what was not measured says so."""
    values = (
        ("surface-distance", quality.surface_mm, "mm"),
        ("overlap", quality.overlap, "1"),
        ("centroid-distance", quality.landmark_mm, "mm"),
        ("start-spread", quality.spread_mm, "mm"),
    )
    found = []
    for code, value, unit in values:
        if value is None:
            absent = {"coding": [{"system": systems.DATA_ABSENT_REASON, "code": "unknown"}]}
            found.append({**_named(code), "dataAbsentReason": absent})
        else:
            quantity = {"value": round(value, 3), "unit": unit, "system": systems.UCUM, "code": unit}
            found.append({**_named(code), "valueQuantity": quantity})
    return [*found, {**_named("vertebrae"), "valueInteger": quality.vertebrae}]


def _named(code: str) -> dict[str, Any]:
    display, zh = _COMPONENTS[code]
    return {"code": {"coding": [{"system": systems.COMPONENT, "code": code, "display": display}], "text": zh}}


def _method() -> Resource:
    """Version, constants and software, in the words of an analysis run; there is no mask that could be done again."""
    used = identity()
    plain = {
        "pipeline": used.name,
        "version": used.version,
        "manifest-sha256": used.sha256,
        "settings": orjson.dumps(constants(), option=orjson.OPT_SORT_KEYS).decode(),
    }
    parts = [{"url": name, "valueString": value} for name, value in plain.items()]
    parts += [{"url": "software", "valueString": f"{name} {value}"} for name, value in sorted(software().items())]
    return {"url": systems.EXTENSION_ANALYSIS_RUN, "extension": parts}
