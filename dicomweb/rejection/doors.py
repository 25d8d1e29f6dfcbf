"""What a store does about rejections: an instance that was rejected before, a rejection note, a result that came late.

One set of rules for STOW-RS and C-STORE. IHE RAD TF-2 §4.66 leaves the status open; ours are dcm4chee's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from io import BytesIO

from pydicom import dcmread

from dicomweb.instance_check import FailureReason, RejectedInstanceError
from dicomweb.instance_header import InstanceHeader
from dicomweb.rejection.codes import RejectionCode
from dicomweb.rejection.note import SOP_CLASS, RejectionNote, read_note
from dicomweb.rejection.part import Rejections
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError, ForbiddenError


class Door:
    """The rules, for one way in."""

    def __init__(self, rejections: Rejections) -> None:
        self._rejections = rejections

    async def refused(
        self, context: AccessContext | None, headers: Sequence[InstanceHeader]
    ) -> dict[str, RejectedInstanceError]:
        """Return by SOP Instance UID what is not stored, because it was rejected before for a reason that stands."""
        if not headers:
            return {}
        by_uid = {header.sop_instance_uid: header for header in headers}
        fates = await self._rejections.come_again(context, list(by_uid))
        refused = {}
        for uid, fate in fates.items():
            if RejectionCode(fate.code).refuses_again:
                reason, text = FailureReason.REJECTED_BEFORE, "The instance was rejected before"
            elif fate.is_going:  # Taken now, it would go with the rest: what is acknowledged stays.
                reason, text = FailureReason.PROCESSING_FAILURE, "The instance is being deleted"
            else:
                continue
            refused[uid] = RejectedInstanceError(reason, text, by_uid[uid].sop_class_uid, uid)
        return refused

    async def is_note(self, context: AccessContext, header: InstanceHeader, content: bytes, trace_id: str) -> bool:
        """Whether an instance was a rejection note, which is done and kept then.

        Raises
        ------
        RejectedInstanceError
            The sender may not reject images, what the note names is under a legal hold or has to be kept, or the note
            is malformed.
        """
        names = (header.sop_class_uid, header.sop_instance_uid)
        if header.sop_class_uid != SOP_CLASS:
            return False
        try:
            note = await asyncio.to_thread(_read, content)
        except (ValueError, AttributeError, KeyError, TypeError) as exc:
            reason = FailureReason.CANNOT_UNDERSTAND
            raise RejectedInstanceError(reason, "The rejection note is malformed", *names) from exc
        if note is None:
            return False
        if note.foreign:
            reason = FailureReason.STUDY_OR_PATIENT_MISMATCH
            raise RejectedInstanceError(reason, "The rejection note names instances of other studies", *names)
        try:
            await self._rejections.accept_note(context, header, note, content, trace_id)
        except (ForbiddenError, ConflictError) as exc:
            raise RejectedInstanceError(FailureReason.NOT_AUTHORIZED, exc.message, *names) from exc
        return True

    async def stored(self, headers: Iterable[InstanceHeader]) -> None:
        """Hide results of ours whose sources were rejected before they came."""
        for study in sorted({header.study_instance_uid for header in headers if header.own_output}):
            await self._rejections.results_follow(study)

    async def hidden(self, uids: Sequence[str]) -> set[str]:
        """Return which instances were stored without being shown."""
        return await self._rejections.hidden(uids)


def _read(content: bytes) -> RejectionNote | None:
    return read_note(dcmread(BytesIO(content)))
