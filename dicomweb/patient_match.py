"""Stage 3: Patient ID + issuer → Patient, through the FHIR API. Never by name, birth date or resemblance.

DICOM PS3.3 C.2.2 (Issuer of Patient ID (0010,0021)); https://hl7.org/fhir/R4/patient.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dicomweb.instance_header import tag_of, text_values
from dicomweb.institutions import organization_of
from foramen.kernel.fhir_client import FhirClient
from terminology import codes, systems


@dataclass(frozen=True, slots=True)
class PatientMatch:
    """`Patient/id` with its institution, or the reason why nobody was found; never both."""

    reference: str | None = None
    institution: str | None = None
    reason: codes.Code | None = None


def identifier_system(issuer: str) -> str:
    """Identifier system of Patient IDs that one issuer gave."""
    return f"{systems.IDENTIFIER_PATIENT}/{quote(issuer, safe='')}"


async def match_patient(
    fhir: FhirClient, attributes: dict[str, Any], default_issuer: str | None, fhir_base: str = ""
) -> PatientMatch:
    """Find the one Patient a study belongs to.

    Parameters
    ----------
    attributes : study level of the index, DICOM JSON model
    default_issuer : issuer assumed when (0010,0021) is absent
    fhir_base : of the record's own absolute references

    Raises
    ------
    InteropError
        The record could not be asked: that is not "no match".
    """
    dicom_patient_id = _value(attributes, "PatientID")
    issuer = _value(attributes, "IssuerOfPatientID") or (default_issuer or "")
    if not dicom_patient_id:
        return PatientMatch(reason=codes.REGISTRATION_REASONS["no-patient-id"])
    if not issuer:
        return PatientMatch(reason=codes.REGISTRATION_REASONS["no-issuer"])
    escaped = dicom_patient_id.translate({ord(character): f"\\{character}" for character in "\\|,$"})
    found = await fhir.search("Patient", [("identifier", f"{identifier_system(issuer)}|{escaped}"), ("_count", "3")])
    patients = [resource for resource in found if resource["resourceType"] == "Patient"]
    if not patients:
        return PatientMatch(reason=codes.REGISTRATION_REASONS["no-patient-match"])
    if len(patients) > 1:
        return PatientMatch(reason=codes.REGISTRATION_REASONS["ambiguous-patient-match"])
    institution = organization_of(patients[0], fhir_base)
    return PatientMatch(reference=f"Patient/{patients[0]['id']}", institution=institution)


def _value(attributes: dict[str, Any], keyword: str) -> str:
    values = text_values(attributes.get(tag_of(keyword), {}))
    return values[0].strip() if values else ""
