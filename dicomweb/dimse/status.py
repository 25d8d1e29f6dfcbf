"""DIMSE status values, and which of them our errors become (PS3.7 Annex C, PS3.4 §B.2.3, §C.4, §F.7, §K.4)."""

from __future__ import annotations

from pydicom import Dataset

from dicomweb.dimse.identifier import IdentifierError
from foramen.kernel.errors import ForbiddenError, InteropError, InvalidRequestError, UpstreamError

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITH_IGNORED_KEYS = 0xFF01
CANCEL = 0xFE00
INVALID_ATTRIBUTE_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
MISSING_ATTRIBUTE = 0x0120
NOT_AUTHORIZED = 0x0124
OUT_OF_RESOURCES = 0xA700
CANNOT_CALCULATE_MATCHES = 0xA701
CANNOT_PERFORM_SUB_OPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
IDENTIFIER_MISMATCH = 0xA900
UNABLE_TO_PROCESS = 0xC001
NO_LONGER_UPDATED = 0xA710
"""Error ID of an N-SET on a performed procedure step that has ended (PS3.4 §F.7.2.2.2)."""


def status_of(error: Exception) -> int:
    """Status of an error."""
    if isinstance(error, IdentifierError):
        return IDENTIFIER_MISMATCH
    if isinstance(error, ForbiddenError):
        return NOT_AUTHORIZED
    if isinstance(error, InvalidRequestError):
        return IDENTIFIER_MISMATCH
    if isinstance(error, UpstreamError):
        return OUT_OF_RESOURCES
    return UNABLE_TO_PROCESS


def failed(error: Exception) -> Dataset:
    """Status of an error with its reason (Error Comment, VR LO); messages of ours hold no values of a person."""
    answer = Dataset()
    answer.Status = status_of(error)
    if isinstance(error, InteropError):
        answer.ErrorComment = error.message.encode("ascii", "replace").decode()[:64].replace("\\", "/")
    return answer
