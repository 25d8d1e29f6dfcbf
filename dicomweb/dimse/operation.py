"""One C-GET or C-MOVE operation as the peer sees it: pending answers, counts of sub-operations, cancel, last status.

DICOM PS3.7 §9.1.3, §9.1.4; PS3.4 §C.4.2.1.5, §C.4.3.1.4 (status codes). Ours and not pynetdicom's: the last answer must
be able to refuse before a destination is called, and an instance must be fitted to what the destination accepted.
"""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any

from pydicom import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from dicomweb.dimse import status
from foramen.kernel.errors import InvalidRequestError

_PENDING_EVERY_S = 1.0
_FAILED_LIST = 5000
"""UIDs in the Failed SOP Instance UID List; beyond it only the count tells."""


class Operation:
    """Counts what was sent and answers the peer.

    Parameters
    ----------
    assoc : pynetdicom's association on which it was asked
    request : C_GET or C_MOVE primitive
    context : accepted presentation context of the request
    """

    def __init__(self, assoc: Any, request: Any, context: Any) -> None:
        self.assoc, self.request, self._context = assoc, request, context
        self.service = "C-GET" if isinstance(request, C_GET) else "C-MOVE"
        self.abstract_syntax = str(context.abstract_syntax)
        self.remaining = self.failed = self.warned = self.completed = 0
        self._failed_uids: list[str] = []
        self._cancelled = False
        self._last_pending = 0.0
        self._message_id = int(request.MessageID)

    def identifier(self) -> Dataset:
        """Decode the identifier of the request.

        Raises
        ------
        InvalidRequestError
            It cannot be read.
        """
        try:
            found: Dataset = decode(self.request.Identifier, *self._encoding())
            found.decode()
        except Exception as exc:
            # Whatever pydicom raises here is a fault of the peer's bytes, never of ours.
            raise InvalidRequestError("The identifier cannot be read") from exc
        return found

    @property
    def is_cancelled(self) -> bool:
        """Whether the peer sent C-CANCEL for this operation."""
        if self.request.MessageID in self.assoc.dimse.cancel_req:
            self._cancelled = True
        return self._cancelled

    @property
    def is_broken_off(self) -> bool:
        """Whether the association of the request ended."""
        return bool(not self.assoc.is_established or self.assoc.acse.is_aborted())

    def begin(self, count: int) -> None:
        """Note how many sub-operations there are."""
        self.remaining = count

    def store(self, association: Any, dataset: Dataset, own_title: str) -> int | None:
        """Send one instance; returns its status, None when no answer came."""
        self._message_id = self._message_id % 65535 + 1
        originator = {}
        if self.service == "C-MOVE":
            originator = {"originator_aet": own_title, "originator_id": self.request.MessageID}
        answer = association.send_c_store(dataset, msg_id=self._message_id, **originator)
        return int(answer.Status) if "Status" in answer else None

    def sent(self, sop_instance_uid: str, code: int | None) -> None:
        """Count one sub-operation, and tell the peer now and then."""
        kind = STORAGE_SERVICE_CLASS_STATUS.get(code, ("Failure", ""))[0] if code is not None else "Failure"
        self.remaining -= 1
        if kind == "Success":
            self.completed += 1
        elif kind == "Warning":
            self.warned += 1
        else:
            self.failed += 1
            self._failed_uids.append(sop_instance_uid)
        if self.remaining and time.monotonic() - self._last_pending >= _PENDING_EVERY_S:
            self._last_pending = time.monotonic()
            self._answer(status.PENDING)

    def end(self) -> None:
        """Send the last answer: what the counts say."""
        if self.is_broken_off:
            return
        if self._cancelled:
            self._answer(status.CANCEL, with_failed=True)
            return
        # What was never tried, because the destination went away, failed too.
        self.failed, self.remaining = self.failed + self.remaining, 0
        if not self.failed and not self.warned:
            self._answer(status.SUCCESS)
        elif not self.completed and not self.warned:
            self._answer(status.CANNOT_PERFORM_SUB_OPERATIONS, with_failed=True)
        else:
            self._answer(0xB000, with_failed=True)

    def finish(self, code: int) -> None:
        """Refuse, before anything was sent."""
        self._answer(code)

    def fail(self, error: Exception) -> None:
        """Refuse with an error."""
        self._answer(status.status_of(error), comment=status.failed(error).get("ErrorComment"))

    def _answer(self, code: int, *, with_failed: bool = False, comment: str | None = None) -> None:
        answer = C_GET() if self.service == "C-GET" else C_MOVE()
        answer.MessageIDBeingRespondedTo = self.request.MessageID
        answer.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        answer.Status = code
        if comment:
            answer.ErrorComment = comment
        if code in (status.PENDING, status.CANCEL):
            answer.NumberOfRemainingSuboperations = self.remaining
        answer.NumberOfCompletedSuboperations = self.completed
        answer.NumberOfFailedSuboperations = self.failed
        answer.NumberOfWarningSuboperations = self.warned
        if with_failed and self._failed_uids:
            listed = Dataset()
            listed.FailedSOPInstanceUIDList = self._failed_uids[:_FAILED_LIST]
            answer.Identifier = BytesIO(encode(listed, *self._encoding()) or b"")
        self.assoc.dimse.send_msg(answer, self._context.context_id)

    def _encoding(self) -> tuple[bool, bool, bool]:
        syntax = self._context.transfer_syntax[0]
        return syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
