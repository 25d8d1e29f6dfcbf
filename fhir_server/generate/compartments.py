"""Generate `fhir_server/access/r4_compartments.json`: the five compartments of R4.

The package defines that of the Patient alone. The other four are closed by rule: a type belongs to a compartment by
each of its reference parameters that can point there, less and more what R4 decided otherwise (tested against
hl7.fhir.r4.core).
https://hl7.org/fhir/R4/compartmentdefinition.html
"""

from __future__ import annotations

from typing import Any

_LEFT_OUT: dict[str, dict[str, str]] = {
    "Device": {
        "AdverseEvent": "substance",
        "AuditEvent": "source",
        "CarePlan": "performer",
        "CommunicationRequest": "requester",
        "Consent": "actor",
        "DeviceMetric": "parent source",
        "ImagingStudy": "performer subject",
        "MeasureReport": "subject",
        "Media": "device operator",
        "MedicationAdministration": "performer",
        "MedicationDispense": "performer",
        "MedicationRequest": "intended-performer requester",
        "Procedure": "performer",
        "RequestGroup": "participant",
        "ServiceRequest": "subject",
        "Task": "owner requester",
    },
    "Encounter": {
        "Encounter": "part-of",
        "Flag": "encounter",
        "ImagingStudy": "encounter",
        "List": "encounter",
        "MedicationDispense": "context",
        "MedicationStatement": "context",
        "RiskAssessment": "encounter",
        "Task": "encounter",
    },
    "Practitioner": {
        "AdverseEvent": "subject",
        "Appointment": "practitioner",
        "AppointmentResponse": "practitioner",
        "AuditEvent": "source",
        "Consent": "actor consentor",
        "Contract": "signer",
        "DiagnosticReport": "results-interpreter",
        "Flag": "subject",
        "Group": "managing-entity",
        "ImagingStudy": "interpreter performer referrer",
        "MeasureReport": "reporter subject",
        "MedicationDispense": "responsibleparty",
        "MedicationRequest": "intended-performer",
        "MessageHeader": "sender",
        "Person": "link",
        "Task": "owner requester",
    },
    "RelatedPerson": {
        "AdverseEvent": "subject",
        "AllergyIntolerance": "recorder",
        "AuditEvent": "agent source",
        "Composition": "attester",
        "Consent": "actor consentor",
        "Contract": "signer",
        "DeviceRequest": "performer",
        "Group": "managing-entity",
        "ImagingStudy": "performer",
        "Invoice": "participant",
        "MeasureReport": "subject",
        "Media": "operator",
        "MedicationDispense": "performer",
        "MedicationRequest": "intended-performer requester",
        "Person": "relatedperson",
        "ServiceRequest": "requester",
        "Task": "owner requester",
    },
}
_ADDED: dict[str, dict[str, str]] = {
    "Encounter": {"DocumentManifest": "related-ref", "Encounter": "{def}"},
    "Practitioner": {"Composition": "subject", "Practitioner": "{def}"},
    "RelatedPerson": {"RelatedPerson": "{def}"},
    "Device": {},
}
"""``{def}`` stands for the resource that the compartment is about."""
_OF_PATIENT: dict[str, list[str]] = {"Encounter": ["patient"], "Task": []}
"""The package widens the patient compartment; these are the lines of R4 itself."""


def build(types: dict[str, Any], of_patient: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Return compartment → type → reference parameters.

    Parameters
    ----------
    types : what `search_parameters.build` returned
    of_patient : the package's patient compartment; types without a parameter do not belong to it
    """
    patient = {name: codes for name, codes in {**of_patient, **_OF_PATIENT}.items() if codes}
    return {name: _compartment(types, name) for name in sorted(_LEFT_OUT)} | {"Patient": patient}


def _compartment(types: dict[str, Any], name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for resource_type, entry in types.items():
        codes = {
            code
            for code, parameter in entry["parameters"].items()
            if parameter["type"] == "reference" and name in parameter["targets"]
        }
        codes -= set(_LEFT_OUT[name].get(resource_type, "").split())
        codes |= set(_ADDED[name].get(resource_type, "").split())
        if codes:
            found[resource_type] = sorted(codes)
    return found
