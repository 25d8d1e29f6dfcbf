"""Stage 3: Patient ID + issuer → Patient, through the FHIR API. Never by name, birth date or resemblance.

A Patient that was merged into another (`link` of type replaced-by) stands for the survivor.
DICOM PS3.3 C.2.2 (Issuer of Patient ID (0010,0021)); https://hl7.org/fhir/R4/patient.html,
https://hl7.org/fhir/R4/patient-definitions.html#Patient.link
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from dicomweb.instance_header import tag_of, text_values
from dicomweb.institutions import organization_of
from foramen.kernel.errors import DeletedError, NotFoundError
from foramen.kernel.fhir_client import FhirClient
from terminology import codes, systems

_MOST_MERGES = 8
"""A longer chain of merges, or a ring, is nobody's."""
_PATIENT = re.compile(r"Patient/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


@dataclass(frozen=True, slots=True)
class PatientMatch:
    """`Patient/id` with its institution, or the reason why nobody was found; never both.

    Parameters
    ----------
    patient : the Patient itself; kept out of every printed form
    """

    reference: str | None = None
    institution: str | None = None
    reason: codes.Code | None = None
    patient: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_inactive(self) -> bool:
        """Whether the record is not in use any more, and names no survivor."""
        return self.patient.get("active") is False


def identifier_system(issuer: str) -> str:
    """Identifier system of Patient IDs that one issuer gave."""
    return f"{systems.IDENTIFIER_PATIENT}/{quote(issuer, safe='')}"


async def match_patient(
    fhir: FhirClient, attributes: dict[str, Any], default_issuer: str | None, fhir_base: str = ""
) -> PatientMatch:
    """Find the one Patient a study belongs to.

    Parameters
    ----------
    attributes : study level as the files have it, DICOM JSON model
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
    survivors: dict[str, dict[str, Any]] = {}
    for resource in found:
        if resource["resourceType"] == "Patient":
            survivor = await survivor_of(fhir, resource, fhir_base)
            if survivor is None:
                return PatientMatch(reason=codes.REGISTRATION_REASONS["no-patient-match"])
            survivors[survivor["id"]] = survivor
    if not survivors:
        return PatientMatch(reason=codes.REGISTRATION_REASONS["no-patient-match"])
    if len(survivors) > 1:
        return PatientMatch(reason=codes.REGISTRATION_REASONS["ambiguous-patient-match"])
    (identity, patient), *_ = survivors.items()
    return PatientMatch(f"Patient/{identity}", organization_of(patient, fhir_base), patient=patient)


async def survivor_of(fhir: FhirClient, patient: dict[str, Any], fhir_base: str) -> dict[str, Any] | None:
    """Follow merges to the Patient that stands for this one; None: it leads nowhere, or in a ring.

    Raises
    ------
    InteropError
        The record could not be asked.
    """
    for _ in range(_MOST_MERGES):
        following = replaced_by(patient, fhir_base)
        if following is None:
            return patient
        try:
            patient = await fhir.read(following)
        except (NotFoundError, DeletedError):
            return None
    return None


def replaced_by(patient: dict[str, Any], fhir_base: str) -> str | None:
    """Return `Patient/id` of the record that took this one's place; None: it stands for itself.

    A link that cannot be followed (several survivors, another server) is named by a reference that leads nowhere.
    """
    links = [
        str((link.get("other") or {}).get("reference") or "")
        for link in patient.get("link", ())
        if link.get("type") == "replaced-by"
    ]
    if not links:
        return None
    match = _PATIENT.fullmatch(links[0].removeprefix(f"{fhir_base}/")) if len(links) == 1 else None
    return f"Patient/{match.group(1)}" if match else "Patient/-"


def _value(attributes: dict[str, Any], keyword: str) -> str:
    values = text_values(attributes.get(tag_of(keyword), {}))
    return values[0].strip() if values else ""
