"""Who a data set is about, and what stands for them under a project's key.

The subject of a patient known to the record is their logical id: then pseudonym and shift are those of the record's
pseudonymised export (docs/api/pseudonymised-export.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydicom import Dataset

from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms


@dataclass(frozen=True, slots=True)
class Subject:
    """A patient as the key sees them: a logical id of the record, or issuer and Patient ID of the file."""

    kind: str
    value: str = field(repr=False)

    @classmethod
    def of_record(cls, logical_id: str) -> Subject:
        """Return the subject of a patient of the record."""
        return cls("Patient", logical_id)

    @classmethod
    def of_file(cls, dataset: Dataset) -> Subject:
        """Return the subject of a file whose patient the record does not know; without an id every study is one."""
        patient, issuer = (str(dataset.get(name) or "").strip() for name in ("PatientID", "IssuerOfPatientID"))
        if not patient:
            return cls("dicom-study", str(dataset.get("StudyInstanceUID") or dataset.get("SOPInstanceUID") or ""))
        return cls("dicom-patient", f"{issuer}\x00{patient}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What replaces one subject's identity."""

    pseudonyms: ProjectPseudonyms
    subject: Subject

    @property
    def pseudonym(self) -> str:
        """Patient ID and name of the result."""
        return self.pseudonyms.pseudonym(self.subject.kind, self.subject.value)

    @property
    def shift_days(self) -> int:
        """Days by which the subject's dates move."""
        known = self.subject.kind == "Patient"
        return self.pseudonyms.shift_days(
            self.subject.value if known else f"{self.subject.kind}\x00{self.subject.value}"
        )

    def uid(self, uid: str) -> str:
        """Return the UID that stands for an instance's; those of the standard itself stay (PS3.6 Annex A)."""
        return uid if uid.startswith("1.2.840.10008.") or not uid else self.pseudonyms.uid(uid)
