"""C-STORE: the checks of STOW-RS, then the archive; answered when the archive holds the instance durably.

The index follows in the background, in batches: should the process end before, the archive's own notice of the stable
study, or the comparison at the gateway's start, brings the instance in. DICOM PS3.4 §B.2.3, PS3.7 Annex C.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from dicomweb.archive import ArchiveError
from dicomweb.archive_writer import ArchiveAnswerError
from dicomweb.dimse import status
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.index_questions import Fate, IndexQuestions
from dicomweb.dimse.newcomers import Newcomers
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.passing_on import Admitted, PassingOn
from dicomweb.dimse.received_file import ReceivedFile
from dicomweb.instance_check import FailureReason, RejectedInstanceError
from dicomweb.instance_header import InstanceHeader
from dicomweb.rejection.doors import Door
from dicomweb.rejection.note import SOP_CLASS as NOTE_CLASS
from dicomweb.store.inspect import inspect, inspect_head
from dicomweb.store.known import Known
from dicomweb.store.sameness import is_same
from dicomweb.study_index import same_patient
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, NotFoundError, UpstreamError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.log import get_log

_WAITING = 256
_LOCKS = 64
_BATCH = 128
_GATHER_S = 0.2
_RETRY_S = 2.0
_STUDIES = 1000
_WHOLE_BYTES = 16 * 1024 * 1024
_LONGEST_S = 600.0
_CODES = {
    FailureReason.DUPLICATE_SOP_INSTANCE: status.DUPLICATE_SOP_INSTANCE,
    FailureReason.OUT_OF_RESOURCES: status.OUT_OF_RESOURCES,
    FailureReason.DOES_NOT_MATCH_SOP_CLASS: 0xA900,
    FailureReason.STUDY_OR_PATIENT_MISMATCH: 0xA900,
    FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED: 0xC122,
    FailureReason.NOT_AUTHORIZED: status.NOT_AUTHORIZED,
    FailureReason.REJECTED_BEFORE: 0xA770,
}


class Storing:
    """Stores what peers send, whichever service brings it."""

    def __init__(self, parts: Parts, bridge: Bridge, questions: IndexQuestions) -> None:
        self._parts, self._bridge, self._questions = parts, bridge, questions
        self._newcomers = Newcomers(parts.archive.writer, questions.count)
        self._known, self._door = Known(parts.database), Door(parts.rejections)
        self._patients: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._busy = [threading.Lock() for _ in range(_LOCKS)]
        self._stored: deque[tuple[InstanceHeader, str]] = deque()
        self._some = asyncio.Event()
        self._room = threading.Semaphore(_WAITING)

    def store(
        self, received: ReceivedFile, sop_class_uid: str, sop_instance_uid: str, sender: AccessContext | None = None
    ) -> tuple[int, str | None]:
        """Store one file; returns the status of its C-STORE and its study. Never raises, and removes the file.

        Called in pynetdicom's thread, which parses and speaks with the archive; the database is asked on the loop.

        Parameters
        ----------
        sender : who sends it; None: we fetched it ourselves, and a rejection note among it rejects nothing here
        """
        study: str | None = None
        try:
            if received.failed:
                raise OSError("It could not be received")
            passed = received.passing_on.arrived(self._newcomers.stored) if received.passing_on is not None else None
            if passed is not None:
                header, remark = passed[0].header, passed[0].remark
                study = header.study_instance_uid
                self._to_index(header, passed[1])
                return (0xB007 if remark is not None else status.SUCCESS), study
            content = received.content() if received.size <= _WHOLE_BYTES else None
            with received.open() if content is None else BytesIO(content) as file:
                header, remark = inspect(file)
            study = header.study_instance_uid
            if (header.sop_class_uid, header.sop_instance_uid) != (sop_class_uid, sop_instance_uid):
                return 0xA900, None
            self._store(received, content, header, sender)
        except RejectedInstanceError as error:
            return _CODES.get(error.reason, 0xC000), None
        except InteropError as error:
            get_log().warning("an instance was not stored", reason=error.message)
            return status.OUT_OF_RESOURCES, None
        except OSError:
            get_log().warning("an instance was not stored", reason="disk")
            return status.OUT_OF_RESOURCES, None
        except Exception:  # noqa: BLE001  the edge: pynetdicom would leave the file behind
            get_log().exception("an instance was not stored")
            return 0xC000, None
        finally:
            received.discard()
        return (0xB007 if remark is not None else status.SUCCESS), study

    def begin(self, sop_class_uid: str, sop_instance_uid: str, sender: AccessContext | None) -> PassingOn:
        """Return what takes an instance on to the archive while it is received; `store` ends it."""

        def admit(head: bytes, size: int) -> Admitted | None:
            lock = self._busy[hash(sop_instance_uid) % _LOCKS]
            # Nobody waits while it receives: whoever comes second is stored once it is whole.
            if sop_class_uid == NOTE_CLASS or not lock.acquire(blocking=False):
                return None
            admitted = None
            try:
                admitted = self._admitted_early(head, size, (sop_class_uid, sop_instance_uid), sender, lock)
            finally:
                if admitted is None:
                    lock.release()
            return admitted

        return PassingOn(self._parts.archive.writer, admit)

    def _admitted_early(
        self, head: bytes, size: int, names: tuple[str, str], sender: AccessContext | None, lock: threading.Lock
    ) -> Admitted | None:
        """Decide by the beginning of a file; None: not before it is whole."""
        fate = self._questions.ask_fate(names[1])  # answered while we look at it
        try:
            inspected = inspect_head(head, size)
            if inspected is None:
                return None
            header, remark = inspected
            if (header.sop_class_uid, header.sop_instance_uid) != names or self._admit(header, sender, fate):
                return None
            return Admitted(header, remark, lock)
        finally:
            fate.drop()

    def _store(
        self, received: ReceivedFile, content: bytes | None, header: InstanceHeader, sender: AccessContext | None
    ) -> None:
        uid = header.sop_instance_uid
        with self._busy[hash(uid) % _LOCKS]:  # of one UID one after the other
            may_be_there = self._admit(header, sender, self._questions.ask_fate(uid))
            if self._is_note(content, header, sender):
                return
            there = self._parts.archive.find_now([uid]) if may_be_there else ()
            orthanc_id = self._into_archive(received, content, header, there)
            self._newcomers.stored(orthanc_id, uid)
        self._to_index(header, orthanc_id)

    def _to_index(self, header: InstanceHeader, orthanc_id: str) -> None:
        """Have it indexed soon.

        Raises
        ------
        UpstreamError
            The index does not follow, or the process is being stopped.
        """
        # Bounded: where the index cannot follow, senders wait.
        if not self._room.acquire(timeout=_LONGEST_S):
            raise UpstreamError("The index does not follow")
        self._stored.append((header, orthanc_id))
        if not self._some.is_set():
            self._bridge.tell(self._some.set)

    def _is_note(self, content: bytes | None, header: InstanceHeader, sender: AccessContext | None) -> bool:
        if sender is None or content is None or header.sop_class_uid != NOTE_CLASS:
            return False
        return self._bridge.run(self._door.is_note(sender, header, content, new_trace_id()))

    def _admit(self, header: InstanceHeader, sender: AccessContext | None, fate: Fate) -> bool:
        """Refuse what was rejected before, and what is of another patient than its study.

        Returns
        -------
        Whether the archive may hold an instance of this name.
        """
        uid, patient = header.sop_instance_uid, self._patients.get(header.study_instance_uid)
        is_rejected, is_indexed = fate.answer()
        if is_rejected:
            for refused in self._bridge.run(self._door.refused(sender, [header])).values():
                raise refused
        if patient is None:
            patient = self._bridge.run(self._patient_of(header))
        if not same_patient(patient, header.study):
            reason, text = FailureReason.STUDY_OR_PATIENT_MISMATCH, "The study belongs to another patient"
            raise RejectedInstanceError(reason, text, header.sop_class_uid, uid)
        try:
            return is_rejected or is_indexed or self._newcomers.may_hold(uid)
        except ArchiveAnswerError as error:
            raise ArchiveError(error.message) from error

    def _into_archive(
        self, received: ReceivedFile, content: bytes | None, header: InstanceHeader, there: Iterable[str]
    ) -> str:
        archive, names = self._parts.archive, (header.sop_class_uid, header.sop_instance_uid)
        for orthanc_id in there:
            return self._bridge.run(self._same_or_refuse(orthanc_id, received, header), _LONGEST_S)
        if content is None:
            acknowledged = self._bridge.run(archive.store(received.chunks()), _LONGEST_S)
        else:
            acknowledged = archive.store_now(content)
        if acknowledged is None:
            raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The archive cannot read the instance", *names)
        orthanc_id, outcome = acknowledged
        if outcome == "AlreadyStored":  # another delivery won in between
            return self._bridge.run(self._same_or_refuse(orthanc_id, received, header), _LONGEST_S)
        return orthanc_id

    async def _patient_of(self, header: InstanceHeader) -> dict[str, Any]:
        """Study level of the first instance of a study that we saw; its patient binds all others."""
        uid = header.study_instance_uid
        if uid not in self._patients:
            known = await self._known.studies([uid])
            self._patients.setdefault(uid, known.get(uid, header.study))
            while len(self._patients) > _STUDIES:
                self._patients.popitem(last=False)
        return self._patients[uid]

    async def _same_or_refuse(self, orthanc_id: str, received: ReceivedFile, header: InstanceHeader) -> str:
        try:
            original = await self._parts.archive.read(orthanc_id, keep=False)
        except NotFoundError:
            original = b""
        if not original or not await asyncio.to_thread(lambda: is_same(original, header, received.content())):
            reason, text = FailureReason.DUPLICATE_SOP_INSTANCE, "Another instance with this SOP Instance UID is stored"
            raise RejectedInstanceError(reason, text, header.sop_class_uid, header.sop_instance_uid)
        return orthanc_id

    async def run(self) -> None:
        """Bring what was stored into the index, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER_S)
            self._some.clear()  # before it is looked: what comes from now on is told again
            while batch := self._next():
                await self._index(batch)

    def _next(self) -> list[tuple[InstanceHeader, str]]:
        batch = [self._stored.popleft() for _ in range(min(len(self._stored), _BATCH))]
        if batch:
            self._room.release(len(batch))
        return batch

    async def _index(self, batch: list[tuple[InstanceHeader, str]]) -> None:
        while True:
            try:
                wait_s = float(self._parts.settings.stable_study_s)
                await self._parts.index.add(batch, trace_id=new_trace_id(), due_in_s=wait_s)
                await self._door.stored(header for header, _ in batch)
            except InteropError as error:
                get_log().warning("the index waits", reason=error.message)
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:  # noqa: BLE001  the archive's notice will bring them in
                get_log().exception("instances were not indexed", count=len(batch))
            return

    async def flush(self) -> None:
        """Index what waits; for the end of the process."""
        while batch := self._next():
            await self._index(batch)
