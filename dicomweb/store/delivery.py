"""One instance of a Store request on its way: what it is, or why it is not stored (DICOM PS3.18 Annex I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from dicomweb.instance_check import FailureReason, RejectedInstanceError
from dicomweb.instance_header import InstanceHeader
from dicomweb.multipart import Part
from dicomweb.rejection.note import SOP_CLASS as NOTE_CLASS
from dicomweb.store.early import Outcome, outcome_of
from dicomweb.store.inspect import HEAD_BYTES, Inspected, inspect
from dicomweb.store.receive import DICOM
from dicomweb.store.report import Remark, Stored, StoreReport
from dicomweb.study_index import same_patient
from foramen.kernel.access_context import AccessContext

WHOLE_BYTES = 4 * 1024 * 1024
"""Up to here a file goes to the archive in one piece with its length, which is faster than in chunks."""


@dataclass(slots=True)
class Delivery:
    """One part of a request: what it is, or why it is not stored, once it was looked at."""

    part: Part
    sender: AccessContext
    header: InstanceHeader | None = None
    remark: Remark | None = None
    fault: RejectedInstanceError | None = None
    orthanc_id: str = ""
    is_note: bool = False
    early: Outcome = None
    """What was found at its beginning while the rest of the request came."""

    @property
    def is_open(self) -> bool:
        """Whether it is neither stored nor refused."""
        return self.fault is None and not self.orthanc_id

    def refused(self, reason: FailureReason, text: str) -> RejectedInstanceError:
        """Return the reason under the names of this instance."""
        names = (self.header.sop_class_uid, self.header.sop_instance_uid) if self.header is not None else ("", "")
        return RejectedInstanceError(reason, text, *names)

    def duplicate(self) -> RejectedInstanceError:
        """Return that its UID is taken."""
        reason = FailureReason.DUPLICATE_SOP_INSTANCE
        return self.refused(reason, "Another instance with this SOP Instance UID is stored")

    def not_now(self) -> RejectedInstanceError:
        """Return that it may be sent again."""
        return self.refused(FailureReason.PROCESSING_FAILURE, "The archive does not take it now")

    def unreadable(self) -> RejectedInstanceError:
        """Return that the archive refuses it."""
        return self.refused(FailureReason.CANNOT_UNDERSTAND, "The archive cannot read the instance")

    def mismatch(self, study_uid: str | None, patients: dict[str, dict[str, Any]]) -> RejectedInstanceError | None:
        """Return why it does not belong where it says; the first of a new study says whose that is."""
        header = self.header
        assert header is not None  # noqa: S101  asked of what was parsed only
        reason = FailureReason.STUDY_OR_PATIENT_MISMATCH
        if study_uid is not None and header.study_instance_uid != study_uid:
            return self.refused(reason, "The instance belongs to another study than the URL names")
        if not same_patient(patients.setdefault(header.study_instance_uid, header.study), header.study):
            return self.refused(reason, "The study belongs to another patient")
        return None


def look_at(deliveries: Sequence[Delivery]) -> None:
    """Parse what was delivered, in a thread: one after the other, as the interpreter's lock would have it anyway."""
    for item in deliveries:
        if item.part.media_type not in ("", DICOM):
            item.fault = RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The part is not application/dicom")
            continue
        try:
            item.header, remark = _inspected(item)
            item.remark = item.remark or remark
        except RejectedInstanceError as error:
            item.fault = error
        except OSError:  # where it was to be inflated
            item.fault = RejectedInstanceError(FailureReason.OUT_OF_RESOURCES, "There is no room to look at it")


def is_simple(chain: Sequence[Delivery]) -> bool:
    """Whether the instances of one UID are one, small, and no rejection note."""
    header, part = chain[0].header, chain[0].part
    is_note = header is not None and header.sop_class_uid == NOTE_CLASS
    return len(chain) == 1 and not is_note and part.size <= WHOLE_BYTES


def report_of(deliveries: Sequence[Delivery]) -> StoreReport:
    """Return what became of them."""
    report = StoreReport()
    for item in deliveries:
        if item.fault is not None:
            report.failed.append(item.fault)
        elif item.header is not None:
            report.stored.append(Stored(item.header, item.remark))
    return report


def _inspected(item: Delivery) -> Inspected:
    found = item.early or outcome_of(item.part.head(HEAD_BYTES), item.part.size)
    if isinstance(found, RejectedInstanceError):
        raise found
    if found is not None:
        return found
    return inspect(BytesIO(item.part.content) if item.part.size <= WHOLE_BYTES else item.part.body)
