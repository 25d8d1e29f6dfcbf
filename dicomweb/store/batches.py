"""The instances of one Store request go into archive and index in batches.

While one batch is stored, the next is looked at and the ones before are indexed. To have two on their way to the
archive at once, so that it never waits for the last of one, was tried: it gained nothing on two cores.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dicomweb.archive import Acknowledged, Archive, ArchiveError
from dicomweb.instance_check import RejectedInstanceError
from dicomweb.instance_header import InstanceHeader
from dicomweb.rejection.doors import Door
from dicomweb.rejection.note import SOP_CLASS as NOTE_CLASS
from dicomweb.store.delivery import WHOLE_BYTES, Delivery, is_simple, look_at, report_of
from dicomweb.store.known import Known
from dicomweb.store.report import StoreReport
from dicomweb.store.sameness import is_same
from dicomweb.study_index import StudyIndex
from foramen.kernel.errors import NotFoundError

_CHUNK_BYTES = 256 * 1024
_BATCH = 16
_PARALLEL = 4
"""Instances of a batch that are sent to the archive at the same time."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What index and archive know of a batch."""

    studies: dict[str, dict[str, Any]]
    instances: dict[str, str]
    may_be_there: bool
    """Whether the archive holds some of the batch that the index does not know, or did not say."""
    fault: ArchiveError | None = None


@dataclass(slots=True)
class _Request:
    """What the batches of one request share.

    Parameters
    ----------
    study_uid : the study that the URL names
    patients : whose each study is, by what the index holds and by what came before
    begun : UIDs of batches that were begun: their instances may have been stored since a later batch was looked at
    faults : the first is why the archive takes nothing more
    indexing : the newest work of the index, which waits for what is before it
    """

    study_uid: str | None
    trace_id: str
    patients: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    faults: list[ArchiveError] = field(default_factory=list)
    indexing: asyncio.Task[None] | None = None

    @property
    def fault(self) -> ArchiveError | None:
        """Why the archive takes nothing more, if so."""
        return self.faults[0] if self.faults else None


class Batches:
    """Stores what requests deliver.

    Parameters
    ----------
    parsing : how many batches may be parsed at once, of all requests
    due_in_s : seconds of quiet after which a study is registered
    """

    def __init__(
        self,
        archive: Archive,
        index: StudyIndex,
        known: Known,
        door: Door,
        parsing: asyncio.Semaphore,
        due_in_s: float,
    ) -> None:
        self._archive, self._index, self._known, self._door = archive, index, known, door
        self._parsing, self._due_in_s = parsing, due_in_s

    async def store(self, deliveries: Sequence[Delivery], study_uid: str | None, trace_id: str) -> StoreReport:
        """Store them; returns when archive and index hold what was accepted.

        Raises
        ------
        ArchiveError
            The archive took nothing at all: the client may send everything again.
        """
        request = _Request(study_uid, trace_id)
        batches = [deliveries[start : start + _BATCH] for start in range(0, len(deliveries), _BATCH)]
        looking = asyncio.create_task(self._look(batches[0], None))
        try:
            for number, batch in enumerate(batches):
                looked = await looking
                if looked.fault is not None:
                    request.faults.append(looked.fault)
                if number + 1 < len(batches):
                    looking = asyncio.create_task(self._look(batches[number + 1], request.fault))
                if request.indexing is not None and request.indexing.done():
                    request.indexing.result()
                await self._store(request, batch, looked)
        finally:
            looking.cancel()
            if request.indexing is not None:
                await asyncio.shield(request.indexing)
        report = report_of(deliveries)
        if request.fault is not None and not report.stored:
            raise request.fault
        return report

    async def _look(self, batch: Sequence[Delivery], down: ArchiveError | None) -> _Looked:
        """Parse a batch, and ask index and archive for what it names; an archive that is down is not asked again."""
        async with self._parsing:
            await asyncio.to_thread(look_at, [item for item in batch if item.fault is None])
        headers = [item.header for item in batch if item.header is not None and item.fault is None]
        studies = await self._known.studies(list({header.study_instance_uid for header in headers}))
        known = await self._known.instances([header.sop_instance_uid for header in headers])
        strange = [header.sop_instance_uid for header in headers if header.sop_instance_uid not in known]
        if down is not None:
            return _Looked(studies, known, True, down)
        try:
            return _Looked(studies, known, bool(await self._archive.find_instances(strange)))
        except ArchiveError as error:
            return _Looked(studies, known, True, error)

    async def _store(self, request: _Request, batch: Sequence[Delivery], looked: _Looked) -> None:
        """Store one batch, and have it indexed."""
        good = [item for item in batch if item.header is not None and item.fault is None]
        headers = [item.header for item in good if item.header is not None]
        chains: dict[str, list[Delivery]] = {}  # of one UID one after the other, of several at once
        for uid, level in looked.studies.items():
            request.patients.setdefault(uid, level)  # what this request brought before says it as well
        for item in good:
            item.fault = item.mismatch(request.study_uid, request.patients)
        begun = set(request.begun)
        request.begun.update(header.sop_instance_uid for header in headers)
        refused = await self._door.refused(good[0].sender, headers) if good else {}
        for item, header in zip(good, headers, strict=True):
            item.fault = item.fault or refused.get(header.sop_instance_uid)
            if item.fault is None:
                chains.setdefault(header.sop_instance_uid, []).append(item)
        known = dict(looked.instances)
        # Nearly all are new and come once: they go on together, the others have something to be asked each.
        simple = [
            chain[0]
            for uid, chain in chains.items()
            if not (looked.may_be_there or uid in known or uid in begun) and is_simple(chain)
        ]
        try:
            if not request.faults:
                await self._store_simple(request, simple, known)
            left = {uid: chain for uid, chain in chains.items() if any(item.is_open for item in chain)}
            limit = asyncio.Semaphore(_PARALLEL)
            await asyncio.gather(
                *(
                    self._store_chain(request, chain, known.get(uid), looked.may_be_there or uid in begun, limit)
                    for uid, chain in left.items()
                )
            )
        finally:
            # Also when we are cancelled half-way: what the archive holds already is indexed and will be registered.
            stored = [item for item in good if item.orthanc_id and item.fault is None and not item.is_note]
            earlier = [request.indexing] if request.indexing is not None else []
            request.indexing = asyncio.create_task(self._into_index(stored, request.trace_id, *earlier))

    async def _store_simple(self, request: _Request, items: Sequence[Delivery], known: dict[str, str]) -> None:
        """Store instances that the archive does not hold.

        Of one that it holds all the same `known` gets the Orthanc id: it is still to be compared.
        """
        answers: dict[int, Acknowledged | ArchiveError | None] = {}
        try:
            await self._archive.store_each([partial(_pieces, item) for item in items], _PARALLEL, answers)
        finally:  # also when we are cancelled: what the archive has taken is indexed
            for number, answer in list(answers.items()):
                item = items[number]
                if isinstance(answer, ArchiveError):
                    request.faults.append(answer)
                    item.fault = item.not_now()
                elif answer is None:
                    item.fault = item.unreadable()
                elif answer[1] == "AlreadyStored" and item.header is not None:  # another delivery won in between
                    known[item.header.sop_instance_uid] = answer[0]
                else:
                    item.orthanc_id = answer[0]

    async def _store_chain(
        self,
        request: _Request,
        chain: Sequence[Delivery],
        orthanc_id: str | None,
        may_be_there: bool,
        limit: asyncio.Semaphore,
    ) -> None:
        """Store what came under one UID, one after the other."""
        for item in chain:
            async with limit:
                try:
                    if request.faults:
                        raise request.faults[0]
                    orthanc_id = item.orthanc_id = await self._store_one(
                        item, orthanc_id, request.trace_id, may_be_there
                    )
                except RejectedInstanceError as error:
                    item.fault = error
                except ArchiveError as error:
                    request.faults.append(error)
                    item.fault = item.not_now()

    async def _into_index(self, stored: Sequence[Delivery], trace_id: str, *before: asyncio.Task[None]) -> None:
        await asyncio.gather(*before)
        rows = [(item.header, item.orthanc_id) for item in stored if item.header is not None]
        if not rows:
            return
        await self._index.add(rows, trace_id=trace_id, due_in_s=self._due_in_s)
        await self._door.stored(header for header, _ in rows)
        known = await self._known.instances([header.sop_instance_uid for header, _ in rows])
        unseen = [item for item in stored if item.header and known.get(item.header.sop_instance_uid) != item.orthanc_id]
        hidden = await self._door.hidden([item.header.sop_instance_uid for item in unseen if item.header])
        for item in unseen:
            # Under its UID the index may have got another instance meanwhile: then this one would never be seen.
            if item.header is not None and item.header.sop_instance_uid not in hidden:
                item.fault = item.duplicate()

    async def _store_one(self, item: Delivery, orthanc_id: str | None, trace_id: str, may_be_there: bool) -> str:
        """Return the archive's id of the instance, new or delivered before.

        `may_be_there`: the archive may hold it though the index does not know it.
        """
        header = item.header
        assert header is not None  # noqa: S101  only what was parsed comes here
        if header.sop_class_uid == NOTE_CLASS and await self._door.is_note(
            item.sender, header, item.part.content, trace_id
        ):
            item.is_note = True
            return header.sop_instance_uid
        if orthanc_id is not None:
            return await self._same_or_refuse(orthanc_id, item, header)
        for found in await self._archive.find_instance(header.sop_instance_uid) if may_be_there else ():
            return await self._same_or_refuse(found, item, header)
        content = item.part.pieces if item.part.size <= WHOLE_BYTES else _chunks(item)
        acknowledged = await self._archive.store(content)
        if acknowledged is None:
            raise item.unreadable()
        stored, status = acknowledged
        if status == "AlreadyStored":  # another delivery won in between
            return await self._same_or_refuse(stored, item, header)
        return stored

    async def _same_or_refuse(self, orthanc_id: str, item: Delivery, header: InstanceHeader) -> str:
        """Accept a second delivery of the same instance; refuse another one under its UID, and keep the original."""
        try:
            original = await self._archive.read(orthanc_id, keep=False)
        except NotFoundError:
            raise item.duplicate() from None
        async with self._parsing:
            same = await asyncio.to_thread(is_same, original, header, item.part.content)
        if not same:
            raise item.duplicate()
        return orthanc_id


def _pieces(item: Delivery) -> list[memoryview]:
    return item.part.pieces


async def _chunks(item: Delivery) -> AsyncIterator[bytes]:
    body = item.part.body
    while chunk := body.read(_CHUNK_BYTES):
        yield chunk
