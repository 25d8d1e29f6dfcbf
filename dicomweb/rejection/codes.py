"""Why images are rejected: the four document titles of a rejection note, and what follows from each. Pure.

DICOM PS3.16 CID 7011, CID 7010 (document titles of Key Object Selections); IHE RAD TF-2 4.66 (Rejection Note Stored).
https://dicom.nema.org/medical/dicom/current/output/chtml/part16/sect_CID_7010.html
"""

from __future__ import annotations

from enum import StrEnum

from foramen.kernel.errors import InvalidRequestError

SCHEME = "DCM"
REVOKE = "REVOKE_REJECTION^99DCM4CHEE"
"""What dcm4chee's users send to take a rejection back; DICOM has no code for it."""


class RejectionCode(StrEnum):
    """Codes of scheme DCM."""

    QUALITY = "113001"
    PATIENT_SAFETY = "113037"
    WRONG_WORKLIST_ENTRY = "113038"
    RETENTION_EXPIRED = "113039"

    @property
    def meaning(self) -> str:
        """Code Meaning."""
        return _MEANINGS[self]

    @property
    def refuses_again(self) -> bool:
        """Whether an instance that was rejected so is refused when it is sent again."""
        return self in (RejectionCode.PATIENT_SAFETY, RejectionCode.WRONG_WORKLIST_ENTRY)

    @property
    def comes_back(self) -> bool:
        """Whether an instance that was rejected so is shown again when it is sent again: only its time was over."""
        return self is RejectionCode.RETENTION_EXPIRED


_MEANINGS = {
    RejectionCode.QUALITY: "Rejected for Quality Reasons",
    RejectionCode.PATIENT_SAFETY: "Rejected for Patient Safety Reasons",
    RejectionCode.WRONG_WORKLIST_ENTRY: "Incorrect Modality Worklist Entry",
    RejectionCode.RETENTION_EXPIRED: "Data Retention Policy Expired",
}


def rejection_code(text: str) -> RejectionCode:
    """Return the code of a URL, ``113001^DCM``.

    Raises
    ------
    InvalidRequestError
        It is not one of the four.
    """
    value, _, scheme = text.partition("^")
    try:
        if scheme == SCHEME:
            return RejectionCode(value)
    except ValueError:
        pass
    offered = ", ".join(f"{code}^{SCHEME}" for code in RejectionCode)
    raise InvalidRequestError(f"A reason for rejection is one of {offered}", issue_code="code-invalid")
