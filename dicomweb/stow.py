"""Stage 1, receive: STOW-RS. Answers only when Orthanc has acknowledged and the index knows every accepted instance.

DICOM PS3.18 §10.5 (Store transaction), Annex I (Store Instances Response Module).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.archive import Acknowledged, Archive, ArchiveError
from dicomweb.database import Database
from dicomweb.instance_check import FailureReason, RejectedInstanceError
from dicomweb.instance_header import InstanceHeader
from dicomweb.institutions import bounds_of
from dicomweb.media_types import accepted
from dicomweb.multipart import Part, Spool
from dicomweb.rejection.doors import Door
from dicomweb.rejection.note import SOP_CLASS as NOTE_CLASS
from dicomweb.rejection.part import Rejections
from dicomweb.store.early import EarlyLook, Outcome, outcome_of
from dicomweb.store.inspect import HEAD_BYTES, Inspected, inspect
from dicomweb.store.known import Known
from dicomweb.store.metadata import assemble, models_of
from dicomweb.store.native_xml import to_xml
from dicomweb.store.receive import DICOM, DICOM_JSON, DICOM_XML, NoSpaceError, receive
from dicomweb.store.report import Remark, Stored, StoreReport, response_module
from dicomweb.store.sameness import is_same
from dicomweb.study_index import StudyIndex, same_patient
from foramen.kernel.access_context import AccessContext, Reach
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotAcceptableError, NotFoundError
from foramen.kernel.settings import Settings

_CHUNK_BYTES = 256 * 1024
_WHOLE_BYTES = 4 * 1024 * 1024
"""Up to here a file goes to the archive in one piece with its length, which is faster than in chunks."""
_BATCH = 16
_PARALLEL = 4
ANSWERS = {DICOM_JSON: (DICOM_JSON, "application/json"), DICOM_XML: (DICOM_XML, "text/xml")}
"""Media type of the answer → the names it can be asked for by."""


@dataclass(slots=True)
class _Delivery:
    """One part that was looked at: what it is, or why it is not stored."""

    part: Part
    header: InstanceHeader | None = None
    remark: Remark | None = None
    fault: RejectedInstanceError | None = None
    orthanc_id: str = ""
    sender: AccessContext | None = None
    is_note: bool = False
    early: Outcome = None
    """What was found at its beginning while the rest of the request came."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What index and archive know of a batch."""

    studies: dict[str, dict[str, Any]]
    instances: dict[str, str]
    may_be_there: bool
    """Whether the archive holds some of the batch that the index does not know, or did not say."""
    fault: ArchiveError | None = None


class Stow:
    """The Store transaction."""

    def __init__(
        self, settings: Settings, archive: Archive, index: StudyIndex, database: Database, rejections: Rejections
    ) -> None:
        self._settings, self._archive, self._index, self._known = settings, archive, index, Known(database)
        self._door = Door(rejections)
        self._parsing = asyncio.Semaphore(2)

    async def store(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """POST /studies and POST /studies/{study}."""
        if context.reach("ImagingStudy", "c") is not Reach.EVERYTHING:
            raise ForbiddenError("A patient scope cannot store images")
        if bounds_of(context, self._settings.institutions) is not None:
            # Whose they are is known after they were stored; a refusal for some would tell of patients elsewhere.
            raise ForbiddenError("Where institutions are separate, images are stored by services")
        answer = _answer_type(request)
        spool, early = Spool(), EarlyLook(self._parsing)
        try:
            try:
                kind, parts = await receive(request, spool, self._settings, early.whole)
            finally:
                found = await early.end()
            if not parts:
                raise InvalidRequestError("The body holds no instance")
            deliveries = (
                [_Delivery(part, early=found.get(part.start)) for part in parts]
                if kind == DICOM
                else await self._assembled(parts, kind, spool)
            )
            for item in deliveries:
                item.sender = context
            report = await self._store_all(deliveries, request.path_params.get("study"), trace_id)
        finally:
            spool.close()
        module = response_module(report, self._settings.dicom_web_base)
        body = to_xml(module) if answer == DICOM_XML else orjson.dumps(module)
        return Response(body, status_code=report.status, media_type=answer)

    async def _assembled(self, parts: list[Part], kind: str, spool: Spool) -> list[_Delivery]:
        """Files made of metadata and bulk data, appended to the spool."""
        models, bulk = models_of(parts, kind)
        deliveries = []
        for model in models:
            try:
                async with self._parsing:
                    content, remark = await asyncio.to_thread(assemble, model, bulk, self._settings.dicom_web_base)
            except RejectedInstanceError as error:
                deliveries.append(_Delivery(parts[0], fault=error))
                continue
            deliveries.append(_Delivery(Part(spool, spool.size, len(content)), remark=remark))
            try:
                spool.write(content)
            except OSError as exc:
                raise NoSpaceError("There is no room for the instances") from exc
        return deliveries

    async def _store_all(self, deliveries: Sequence[_Delivery], study_uid: str | None, trace_id: str) -> StoreReport:
        """Batch by batch; while one is stored the next is looked at and the one before indexed.

        Raises
        ------
        ArchiveError
            The archive took nothing at all: the client may send everything again.
        """
        report = StoreReport()
        patients: dict[str, dict[str, Any]] = {}
        batches = [deliveries[start : start + _BATCH] for start in range(0, len(deliveries), _BATCH)]
        down: ArchiveError | None = None
        looking = asyncio.create_task(self._look(batches[0], down))
        indexing: list[asyncio.Task[None]] = []
        before: set[str] = set()
        try:
            for number, batch in enumerate(batches):
                looked = await looking
                if number + 1 < len(batches):
                    looking = asyncio.create_task(self._look(batches[number + 1], down or looked.fault))
                if indexing and indexing[-1].done():
                    indexing[-1].result()
                for uid, level in looked.studies.items():
                    patients.setdefault(uid, level)  # what this request brought before says it as well
                down = await self._store_batch(batch, looked, study_uid, patients, trace_id, down, indexing, before)
        finally:
            looking.cancel()
            if indexing:
                await asyncio.shield(indexing[-1])
        for item in deliveries:
            if item.fault is not None:
                report.failed.append(item.fault)
            elif item.header is not None:
                report.stored.append(Stored(item.header, item.remark))
        if down is not None and not report.stored:
            raise down
        return report

    async def _look(self, batch: Sequence[_Delivery], down: ArchiveError | None) -> _Looked:
        """Parse a batch, and ask index and archive for what it names; an archive that is down is not asked again."""
        async with self._parsing:
            await asyncio.to_thread(_inspect_all, [item for item in batch if item.fault is None])
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

    async def _store_batch(
        self,
        batch: Sequence[_Delivery],
        looked: _Looked,
        study_uid: str | None,
        patients: dict[str, dict[str, Any]],
        trace_id: str,
        down: ArchiveError | None,
        indexing: list[asyncio.Task[None]],
        before: set[str],
    ) -> ArchiveError | None:
        """Store one batch and have it indexed; returns why the archive takes nothing more, if so.

        `before`: UIDs of earlier batches, which may have been stored since this one was looked at.
        """
        good = [item for item in batch if item.header is not None and item.fault is None]
        headers = [item.header for item in good if item.header is not None]
        known, down = dict(looked.instances), down or looked.fault
        refused = await self._door.refused(good[0].sender, headers) if good else {}
        for item, header in zip(good, headers, strict=True):
            item.fault = _mismatch(item, study_uid, patients) or refused.get(header.sop_instance_uid)
        chains: dict[str, list[_Delivery]] = {}  # of one UID one after the other, of several at once
        for item in good:
            if item.fault is None and item.header is not None:
                chains.setdefault(item.header.sop_instance_uid, []).append(item)
        # Nearly all are new and come once: they go on together, the others have something to be asked each.
        simple = [
            chain[0]
            for uid, chain in chains.items()
            if not (looked.may_be_there or uid in known or uid in before) and _is_simple(chain)
        ]
        limit, faults = asyncio.Semaphore(_PARALLEL), [down] if down else []

        async def work(uid: str, chain: list[_Delivery]) -> None:
            for item in chain:
                async with limit:
                    try:
                        if faults:
                            raise faults[0]
                        may_be_there = looked.may_be_there or uid in before
                        item.orthanc_id = await self._store_one(item, known.get(uid), trace_id, may_be_there)
                        known[uid] = item.orthanc_id
                    except RejectedInstanceError as error:
                        item.fault = error
                    except ArchiveError as error:
                        faults.append(error)
                        item.fault = _refused(
                            item, FailureReason.PROCESSING_FAILURE, "The archive does not take it now"
                        )

        try:
            if not faults:
                faults += await self._store_simple(simple, known)
            left = {uid: chain for uid, chain in chains.items() if any(_is_open(item) for item in chain)}
            await asyncio.gather(*(work(uid, chain) for uid, chain in left.items()))
        finally:
            before.update(chains)
            # Also when we are cancelled half-way: what the archive holds already is indexed and will be registered.
            stored = [item for item in good if item.orthanc_id and item.fault is None and not item.is_note]
            indexing.append(asyncio.create_task(self._into_index(stored, trace_id, *indexing[-1:])))
        return faults[0] if faults else None

    async def _store_simple(self, items: Sequence[_Delivery], known: dict[str, str]) -> list[ArchiveError]:
        """Store instances that the archive does not hold; returns why it takes nothing more, if so.

        Of one that it holds all the same `known` gets the Orthanc id: it is still to be compared.
        """
        faults: list[ArchiveError] = []
        answers: dict[int, Acknowledged | ArchiveError | None] = {}
        try:
            await self._archive.store_each([partial(_pieces, item) for item in items], _PARALLEL, answers)
        finally:  # also when we are cancelled: what the archive has taken is indexed
            for number, answer in list(answers.items()):
                item = items[number]
                if isinstance(answer, ArchiveError):
                    faults.append(answer)
                    item.fault = _refused(item, FailureReason.PROCESSING_FAILURE, "The archive does not take it now")
                elif answer is None:
                    item.fault = _refused(item, FailureReason.CANNOT_UNDERSTAND, "The archive cannot read the instance")
                elif answer[1] == "AlreadyStored" and item.header is not None:  # another delivery won in between
                    known[item.header.sop_instance_uid] = answer[0]
                else:
                    item.orthanc_id = answer[0]
        return faults

    async def _into_index(self, stored: Sequence[_Delivery], trace_id: str, *before: asyncio.Task[None]) -> None:
        await asyncio.gather(*before)
        rows = [(item.header, item.orthanc_id) for item in stored if item.header is not None]
        if not rows:
            return
        await self._index.add(rows, trace_id=trace_id, due_in_s=float(self._settings.stable_study_s))
        await self._door.stored(header for header, _ in rows)
        known = await self._known.instances([header.sop_instance_uid for header, _ in rows])
        unseen = [item for item in stored if item.header and known.get(item.header.sop_instance_uid) != item.orthanc_id]
        hidden = await self._door.hidden([item.header.sop_instance_uid for item in unseen if item.header])
        for item in unseen:
            # Under its UID the index may have got another instance meanwhile: then this one would never be seen.
            if item.header is not None and item.header.sop_instance_uid not in hidden:
                item.fault = _duplicate(item)

    async def _store_one(self, item: _Delivery, orthanc_id: str | None, trace_id: str, may_be_there: bool) -> str:
        """Return the archive's id of the instance, new or delivered before.

        `may_be_there`: the archive may hold it though the index does not know it.
        """
        header = item.header
        assert header is not None  # noqa: S101  only what was parsed comes here
        assert item.sender is not None  # noqa: S101
        if header.sop_class_uid == NOTE_CLASS and await self._door.is_note(
            item.sender, header, item.part.content, trace_id
        ):
            item.is_note = True
            return header.sop_instance_uid
        if orthanc_id is not None:
            return await self._same_or_refuse(orthanc_id, item, header)
        for found in await self._archive.find_instance(header.sop_instance_uid) if may_be_there else ():
            return await self._same_or_refuse(found, item, header)
        content = item.part.pieces if item.part.size <= _WHOLE_BYTES else _chunks(item.part)
        acknowledged = await self._archive.store(content)
        if acknowledged is None:
            raise _refused(item, FailureReason.CANNOT_UNDERSTAND, "The archive cannot read the instance")
        stored, status = acknowledged
        if status == "AlreadyStored":  # another delivery won in between
            return await self._same_or_refuse(stored, item, header)
        return stored

    async def _same_or_refuse(self, orthanc_id: str, item: _Delivery, header: InstanceHeader) -> str:
        """Accept a second delivery of the same instance; refuse another one under its UID, and keep the original."""
        try:
            original = await self._archive.read(orthanc_id, keep=False)
        except NotFoundError:
            raise _duplicate(item) from None
        async with self._parsing:
            same = await asyncio.to_thread(is_same, original, header, item.part.content)
        if not same:
            raise _duplicate(item)
        return orthanc_id


def _inspect_all(deliveries: Sequence[_Delivery]) -> None:
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


def _is_simple(chain: Sequence[_Delivery]) -> bool:
    """Whether the instances of one UID are one, small, and no rejection note."""
    header, part = chain[0].header, chain[0].part
    is_note = header is not None and header.sop_class_uid == NOTE_CLASS
    return len(chain) == 1 and not is_note and part.size <= _WHOLE_BYTES


def _is_open(item: _Delivery) -> bool:
    """Whether it is neither stored nor refused."""
    return item.fault is None and not item.orthanc_id


def _pieces(item: _Delivery) -> list[memoryview]:
    return item.part.pieces


def _inspected(item: _Delivery) -> Inspected:
    found = item.early or outcome_of(item.part.head(HEAD_BYTES), item.part.size)
    if isinstance(found, RejectedInstanceError):
        raise found
    if found is not None:
        return found
    return inspect(BytesIO(item.part.content) if item.part.size <= _WHOLE_BYTES else item.part.body)


def _answer_type(request: Request) -> str:
    """Media type of the answer; decided before anything is stored.

    Raises
    ------
    NotAcceptableError
        The client takes neither JSON nor XML.
    """
    for item in accepted(request):
        for media_type, names in ANSWERS.items():
            if any(item.admits(name) for name in names):
                return media_type
    raise NotAcceptableError(f"Available: {', '.join(ANSWERS)}")


def _mismatch(
    item: _Delivery, study_uid: str | None, patients: dict[str, dict[str, Any]]
) -> RejectedInstanceError | None:
    """Why an instance does not belong where it says; the first of a new study says whose that is."""
    header = item.header
    assert header is not None  # noqa: S101
    reason = FailureReason.STUDY_OR_PATIENT_MISMATCH
    if study_uid is not None and header.study_instance_uid != study_uid:
        return _refused(item, reason, "The instance belongs to another study than the URL names")
    if not same_patient(patients.setdefault(header.study_instance_uid, header.study), header.study):
        return _refused(item, reason, "The study belongs to another patient")
    return None


def _refused(item: _Delivery, reason: FailureReason, text: str) -> RejectedInstanceError:
    names = (item.header.sop_class_uid, item.header.sop_instance_uid) if item.header is not None else ("", "")
    return RejectedInstanceError(reason, text, *names)


def _duplicate(item: _Delivery) -> RejectedInstanceError:
    reason = FailureReason.DUPLICATE_SOP_INSTANCE
    return _refused(item, reason, "Another instance with this SOP Instance UID is stored")


async def _chunks(part: Part) -> AsyncIterator[bytes]:
    body = part.body
    while chunk := body.read(_CHUNK_BYTES):
        yield chunk
