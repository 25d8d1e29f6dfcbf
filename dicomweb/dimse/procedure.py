"""A performed procedure step as a Procedure. Pure functions. https://hl7.org/fhir/R4/procedure.html"""

from __future__ import annotations

from typing import Any

from terminology import systems

_STATUS = {"IN PROGRESS": "in-progress", "COMPLETED": "completed", "DISCONTINUED": "stopped"}
_IMAGING = {"system": "http://snomed.info/sct", "code": "363679005", "display": "Imaging"}


def procedure_of(uid: str, state: str, attributes: dict[str, Any], patient: str, orders: list[str]) -> dict[str, Any]:
    """Build the Procedure of a step.

    Parameters
    ----------
    uid : SOP Instance UID of the step
    state : Performed Procedure Step Status (0040,0252)
    attributes : DICOM JSON model
    patient : "Patient/id"
    orders : ids of the ServiceRequests it fulfils
    """
    modality, description = _value(attributes, "00080060"), _value(attributes, "00400254")
    procedure: dict[str, Any] = {
        "resourceType": "Procedure",
        "identifier": [{"system": systems.DICOM_UID, "value": f"urn:oid:{uid}"}],
        "status": _STATUS[state],
        "category": {"coding": [_IMAGING]},
        "code": {"coding": [{"system": systems.DCM, "code": modality}], "text": description or modality},
        "subject": {"reference": patient},
    }
    if orders:
        procedure["basedOn"] = [{"reference": f"ServiceRequest/{one}"} for one in orders]
    start = _when(attributes, "00400244")
    end = _when(attributes, "00400250")
    if start:
        procedure["performedPeriod"] = {"start": start} | ({"end": end} if end and state != "IN PROGRESS" else {})
    if state == "DISCONTINUED":
        reasons = attributes.get("00400281", {}).get("Value") or []
        text = _value(reasons[0], "00080104") if reasons else ""
        if text:
            procedure["statusReason"] = {"text": text}
    return procedure


def _when(attributes: dict[str, Any], date_tag: str) -> str:
    """FHIR date of a DICOM date. The time is left out: without a zone FHIR takes none, and DICOM names none here."""
    date = _value(attributes, date_tag)
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 and date.isdigit() else ""


def _value(attributes: dict[str, Any], tag: str) -> str:
    values = attributes.get(tag, {}).get("Value") or [""]
    return str(values[0] or "")
