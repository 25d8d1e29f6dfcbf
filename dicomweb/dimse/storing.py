"""C-STORE: the checks of STOW-RS, then the archive; answered when the archive holds the instance durably.

The index follows in the background, in batches: should the process end before, the archive's own notice of the stable
study, or the comparison at the gateway's start, brings the instance in. DICOM PS3.4 §B.2.3, PS3.7 Annex C.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dicomweb.dimse import status
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.parts import Parts
from dicomweb.instance_check import FailureReason, RejectedInstanceError
from dicomweb.instance_header import InstanceHeader
from dicomweb.store.inspect import inspect
from dicomweb.store.known import Known
from dicomweb.store.sameness import is_same
from dicomweb.study_index import same_patient
from foramen.kernel.errors import InteropError, NotFoundError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.log import get_log

_WAITING = 256
_BATCH = 64
_GATHER_S = 0.1
_RETRY_S = 2.0
_STUDIES = 1000
_WHOLE_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_LONGEST_S = 600.0
_CODES = {
    FailureReason.DUPLICATE_SOP_INSTANCE: status.DUPLICATE_SOP_INSTANCE,
    FailureReason.OUT_OF_RESOURCES: status.OUT_OF_RESOURCES,
    FailureReason.DOES_NOT_MATCH_SOP_CLASS: 0xA900,
    FailureReason.STUDY_OR_PATIENT_MISMATCH: 0xA900,
    FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED: 0xC122,
}


class Storing:
    """Stores what peers send, whichever service brings it."""

    def __init__(self, parts: Parts, bridge: Bridge) -> None:
        self._parts, self._bridge = parts, bridge
        self._known = Known(parts.database)
        self._patients: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._busy: dict[str, asyncio.Lock] = {}
        self._stored: asyncio.Queue[tuple[InstanceHeader, str]] = asyncio.Queue(_WAITING)

    def store(self, path: Path, sop_class_uid: str, sop_instance_uid: str) -> tuple[int, str | None]:
        """Store one file; returns the status of its C-STORE and its study. Never raises, and removes the file.

        Called in pynetdicom's thread, which parses; the rest happens on the loop.
        """
        study: str | None = None
        try:
            with path.open("rb") as file:
                header, remark = inspect(file)
            study = header.study_instance_uid
            if (header.sop_class_uid, header.sop_instance_uid) != (sop_class_uid, sop_instance_uid):
                return 0xA900, None
            content = path.read_bytes() if path.stat().st_size <= _WHOLE_BYTES else None
            self._bridge.run(self._store(path, content, header), _LONGEST_S)
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
            path.unlink(missing_ok=True)
        return (0xB007 if remark is not None else status.SUCCESS), study

    async def _store(self, path: Path, content: bytes | None, header: InstanceHeader) -> None:
        uid = header.sop_instance_uid
        lock = self._busy.setdefault(uid, asyncio.Lock())
        try:
            async with lock:
                orthanc_id = await self._into_archive(path, content, header)
        finally:
            if not lock.locked():
                self._busy.pop(uid, None)
        # Bounded: where the index cannot follow, senders wait.
        await self._stored.put((header, orthanc_id))

    async def _into_archive(self, path: Path, content: bytes | None, header: InstanceHeader) -> str:
        names = (header.sop_class_uid, header.sop_instance_uid)
        patient, there = await asyncio.gather(
            self._patient_of(header), self._parts.archive.find_instance(header.sop_instance_uid)
        )
        if not same_patient(patient, header.study):
            reason = FailureReason.STUDY_OR_PATIENT_MISMATCH
            raise RejectedInstanceError(reason, "The study belongs to another patient", *names)
        for orthanc_id in there:
            return await self._same_or_refuse(orthanc_id, path, header)
        acknowledged = await self._parts.archive.store(_chunks(path) if content is None else content)
        if acknowledged is None:
            raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The archive cannot read the instance", *names)
        orthanc_id, outcome = acknowledged
        if outcome == "AlreadyStored":  # another delivery won in between
            return await self._same_or_refuse(orthanc_id, path, header)
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

    async def _same_or_refuse(self, orthanc_id: str, path: Path, header: InstanceHeader) -> str:
        try:
            original = await self._parts.archive.read(orthanc_id, keep=False)
        except NotFoundError:
            original = b""
        if not original or not await asyncio.to_thread(lambda: is_same(original, header, path.read_bytes())):
            reason, text = FailureReason.DUPLICATE_SOP_INSTANCE, "Another instance with this SOP Instance UID is stored"
            raise RejectedInstanceError(reason, text, header.sop_class_uid, header.sop_instance_uid)
        return orthanc_id

    async def run(self) -> None:
        """Bring what was stored into the index, until cancelled."""
        while True:
            batch = [await self._stored.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GATHER_S):
                    while len(batch) < _BATCH:
                        batch.append(await self._stored.get())
            await self._index(batch)

    async def _index(self, batch: list[tuple[InstanceHeader, str]]) -> None:
        while True:
            try:
                wait_s = float(self._parts.settings.stable_study_s)
                await self._parts.index.add(batch, trace_id=new_trace_id(), due_in_s=wait_s)
            except InteropError as error:
                get_log().warning("the index waits", reason=error.message)
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:  # noqa: BLE001  the archive's notice will bring them in
                get_log().exception("instances were not indexed", count=len(batch))
            return

    async def flush(self) -> None:
        """Index what waits; for the end of the process."""
        batch: list[tuple[InstanceHeader, str]] = []
        while not self._stored.empty():
            batch.append(self._stored.get_nowait())
        if batch:
            await self._index(batch)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
