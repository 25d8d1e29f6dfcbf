"""Prediction → DiagnosticReport, partial until a person has looked (stage 5).

https://hl7.org/fhir/R4/diagnosticreport.html: R4 `preliminary` means verified early results, so ours is `partial`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai_services.prediction import Prediction
from ai_services.results.conclusion import conclusion_en, conclusion_zh
from ai_services.results.context import Resource, RunContext
from ai_services.results.key_slice import key_slices
from terminology import systems

LOINC_MR_LUMBAR = {"system": systems.LOINC, "code": "24968-0", "display": "MR Lumbar spine"}
_CODES: dict[str, dict[str, Any]] = {
    "MR": {"coding": [LOINC_MR_LUMBAR], "text": "腰椎磁共振 AI 分析"},
    "CT": {
        "coding": [{"system": systems.SNOMED, "code": "77477000", "display": "Computed tomography"}],
        "text": "腰椎 CT AI 分析",
    },
}
REPORT_CODINGS: tuple[dict[str, str], ...] = tuple(coding for code in _CODES.values() for coding in code["coding"])
"""Codes of the reports that runs write, whatever the modality."""
_CATEGORY = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}


def build_diagnostic_report(prediction: Prediction, context: RunContext, observations: Sequence[str]) -> Resource:
    """Build the report.

    Parameters
    ----------
    prediction : what was found
    context : of the run
    observations : references to the Observations, in order
    """
    return {
        "resourceType": "DiagnosticReport",
        "meta": context.meta,
        "identifier": [context.identifier("report")],
        "status": "partial",
        "category": [{"coding": [_CATEGORY]}],
        "code": _CODES[prediction.modality],
        "subject": {"reference": context.patient},
        "effectiveDateTime": context.effective,
        "issued": context.instant,
        "result": [{"reference": reference} for reference in observations],
        "imagingStudy": [{"reference": context.imaging_study}],
        "conclusion": f"{conclusion_zh(prediction)}\n\n{conclusion_en(prediction)}",
        "extension": [
            _series(systems.EXTENSION_SEGMENTATION, context.uid("seg-series")),
            _series(systems.EXTENSION_STRUCTURED_REPORT, context.uid("sr-series")),
            *_key_images(prediction, context),
            _series(systems.EXTENSION_SOURCE_SERIES, prediction.series_instance_uid),
        ],
    }


def _key_images(prediction: Prediction, context: RunContext) -> list[dict[str, str]]:
    """The series of key images and of the note that selects them, where a disc was graded."""
    if not key_slices(prediction):
        return []
    return [
        _series(systems.EXTENSION_KEY_IMAGES, context.uid("key-image-series")),
        _series(systems.EXTENSION_KEY_OBJECTS, context.uid("key-object-series")),
    ]


def _series(url: str, series_instance_uid: str) -> dict[str, str]:
    return {"url": url, "valueUri": f"urn:oid:{series_instance_uid}"}
