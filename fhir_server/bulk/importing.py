"""The import job: NDJSON into the record, batch after batch; each commits together with its checkpoint (ADR 0018).

So a batch is written once whatever happens: after kill -9 the job goes on behind the last batch that was committed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import orjson
from starlette.requests import Request

from fhir_server.access.policy import Access
from fhir_server.audit.record import audit_record, encode, told
from fhir_server.bulk.files import NdjsonFiles
from fhir_server.bulk.import_batch import Decided, Good, Line, decide, reread, waves
from fhir_server.bulk.preparation_process import Preparation, prepare
from fhir_server.bulk.preparing import Prepared, Preparer, Source
from fhir_server.bulk.source import BEGINNING, LineLimits, Place, size_of
from fhir_server.interactions.carrying_out import AGAIN, ATTEMPTS, keeps_changing
from fhir_server.jobs.job import Job
from fhir_server.model.validation import raise_for
from fhir_server.rules import custom_parameters
from fhir_server.search.parameters import registry
from fhir_server.server import Call, Server
from fhir_server.store import audit_log, bulk_writing, reading
from fhir_server.store import registry as stored_registry
from fhir_server.store.bulk import micros
from fhir_server.store.changes import Change
from fhir_server.store.writing import write_changes
from fhir_server.validation.check import check_profiles
from foramen.kernel.errors import InteropError, InvalidResourceError, Issue
from foramen.kernel.outcome import operation_outcome

_MOST_ISSUES = 20
_WAVE = 500
"""Most lines that are read again and decided at once: what they take of memory does not grow with a batch."""
_SIGNATURE = "Provenance"


@dataclass(slots=True)
class Progress:
    """The checkpoint: place in the inputs, counts by type, and the error files."""

    input: int = 0
    place: Place = BEGINNING
    created: Counter[str] = field(default_factory=Counter)
    updated: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    files: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def read(state: dict[str, Any]) -> Progress:
        """Read a checkpoint."""
        if not state:
            return Progress()
        return Progress(
            state["input"],
            Place(*state["place"]),
            Counter(state["created"]),
            Counter(state["updated"]),
            state["refused"],
            state["files"],
        )

    def write(self, more: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the checkpoint with the error file that is being written."""
        return {
            "input": self.input,
            "place": [self.place.offset, self.place.line],
            "created": dict(self.created),
            "updated": dict(self.updated),
            "refused": self.refused,
            "files": [dict(item) for item in (*self.files, *more) if item["bytes"]],
        }

    @property
    def told(self) -> str:
        """Progress in words."""
        done = self.created.total() + self.updated.total()
        return f"{done} resources written, {self.refused} refused, input {self.input + 1}"


class Import:
    """One run of an import job, from its last checkpoint to the end."""

    def __init__(self, job: Job, access: Access, folder: Path, server: Server) -> None:
        self._job = job
        self._access = access
        self._server = server
        self._inputs: list[dict[str, str]] = job.request["inputs"]
        limits = server.limits
        self._full = limits.import_validation == "full"
        self._lines = LineLimits(
            limits.import_batch, limits.import_batch_bytes, server.max_body_bytes, limits.import_max_bytes
        )
        self._progress = Progress.read(job.state)
        self._numbers: list[int] = []
        self._errors = NdjsonFiles(folder, "error", "OperationOutcome", limits.export_file_bytes)

    async def run(self) -> None:
        """Write everything; what is refused is told in the error files."""
        try:
            for number in range(self._progress.input, len(self._inputs)):
                await self._run_input(self._inputs[number])
                self._progress.input, self._progress.place = number + 1, BEGINNING
            await self._job.save(self._progress.write(self._errors.records), self._progress.told)
        finally:
            self._errors.close()

    async def _run_input(self, given: dict[str, str]) -> None:
        while not await self._run_on(given):
            pass  # Other search parameters are in force than those the batches were prepared with.

    async def _run_on(self, given: dict[str, str]) -> bool:
        """Go on with an input; False when what was prepared of it has become stale."""
        path = Path(given["path"])
        preparer = Preparer(
            Source(path, self._progress.place, given["type"]),
            self._lines,
            context=self._access.context,
            trace_id=self._job.request["trace_id"],
            own_url=self._server.own_url,
            limits=self._server.limits,
            full=self._full,
        )
        preparation = prepare(preparer, await asyncio.to_thread(size_of, path))
        following = asyncio.create_task(self._next(preparation))
        try:
            while (prepared := await following) is not None:
                # The next batch is parsed and validated while PostgreSQL writes this one.
                following = asyncio.create_task(self._next(preparation))
                await self._write(prepared, given["name"])
                if prepared.version != registry().version:
                    return False
            return True
        finally:
            following.cancel()
            await preparation.close()
            await asyncio.gather(following, return_exceptions=True)

    async def _next(self, preparation: Preparation) -> Prepared | None:
        missing = self._lines.batch_lines - len(self._numbers)
        if missing > 0:
            async with self._job.connections.lend() as connection:
                self._numbers += await self._server.rows.take(connection, missing)
        prepared = await preparation.next(self._numbers)
        if prepared is not None:
            self._numbers = prepared.numbers_left
        return prepared

    async def _write(self, prepared: Prepared, name: str) -> None:
        one_by_one = False
        for attempt in range(ATTEMPTS):
            before = Progress.read(self._progress.write([]))
            before.files = self._progress.files
            try:
                await self._commit(prepared, name, one_by_one=one_by_one)
                return
            except AGAIN as exc:
                self._progress = before
                if attempt == ATTEMPTS - 1:
                    raise keeps_changing() from exc
                if isinstance(exc, asyncpg.SerializationError):
                    await self._server.registry.refresh(max_age_s=0.0)  # Other search parameters may be in force.
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                # Something in one line that the database cannot hold: find out in which.
                self._progress = before
                if one_by_one or attempt == ATTEMPTS - 1:
                    raise
                one_by_one = True

    async def _commit(self, prepared: Prepared, name: str, *, one_by_one: bool) -> None:
        progress = self._progress
        refused = list(prepared.refused)
        self._access.restriction = await self._server.restrictions.policy(self._job.owner)
        async with self._job.connections.lend() as connection, connection.transaction():
            if not one_by_one and await self._write_packed(connection, prepared):
                progress.created += prepared.counts
                others = prepared.apart
            else:
                others = sorted(prepared.plain + prepared.apart)
            refused += await self._write_others(connection, others, one_by_one=one_by_one)
            progress.refused += len(refused)
            progress.place = prepared.end
            if refused:
                await asyncio.to_thread(self._tell, refused, name)
            await self._job.save(progress.write(self._errors.records), progress.told, connection=connection)

    async def _write_packed(self, connection: Any, prepared: Prepared) -> bool:
        """Write what is packed, unless a resource of it is there already or is indexed otherwise by now."""
        if prepared.rows is None or prepared.record is None:
            return True
        if self._access.restriction is not None:
            return False  # Whether a line lies in a closed record is looked at one by one.
        if prepared.version != registry().version or await bulk_writing.exists(connection, prepared.keys):
            return False
        now = datetime.now(UTC)
        record = msgspec.structs.replace(prepared.record, recorded=micros(now))
        await audit_log.append(connection, encode([record]), 1)
        await bulk_writing.write_rows(connection, prepared.rows, now)
        await stored_registry.require(connection, prepared.version)
        return True

    async def _write_others(self, connection: Any, lines: list[Good], *, one_by_one: bool) -> list[Line]:
        """Write lines that need a look at what is there, or at each other; returns those that are refused."""
        refused: list[Line] = []
        signatures = [line for line in lines if line.name[0] == _SIGNATURE]
        rest = [line for line in lines if line.name[0] != _SIGNATURE]
        provenances: list[dict[str, Any]] = []
        for group in (signatures, rest):  # Only a signature that is itself written counts.
            for wave in waves(group, 1 if one_by_one else _WAVE):
                decided = await self._write_wave(connection, wave, provenances, savepoint=one_by_one)
                refused += decided.refused
                for change in decided.changes:
                    count = self._progress.created if change.previous is None else self._progress.updated
                    count[change.resource_type] += 1
                    if change.resource_type == _SIGNATURE and change.content is not None:
                        provenances.append(orjson.loads(change.content))
        return refused

    async def _read_again(self, wave: list[Good]) -> list[Line]:
        """Parse lines, and hold each against the profiles it claims, and ours for what an AI made."""
        limits = self._server.limits
        lines = await asyncio.to_thread(lambda: [reread(good, limits) for good in wave])
        if self._full:
            resources = [line.resource for line in lines if line.resource is not None]
            for line, found in zip(lines, await check_profiles(self._server, resources), strict=True):
                try:
                    raise_for(found)
                except InteropError as exc:
                    line.issues = exc.issues
        return lines

    async def _write_wave(
        self, connection: Any, wave: list[Good], provenances: list[dict[str, Any]], *, savepoint: bool
    ) -> Decided:
        lines = await self._read_again(wave)
        refused = [line for line in lines if line.issues]
        lines = [line for line in lines if not line.issues]
        current = await reading.lock(connection, [line.name for line in lines])
        gone = [s.row for s in current.values() if s.is_deleted]
        buried = await reading.before_deletion(connection, gone) if gone else {}
        own_url = self._server.own_url
        await reading.begin_writing(connection)
        now = datetime.now(UTC)
        decided = await asyncio.to_thread(decide, lines, current, buried, self._access, now, own_url, provenances)
        decided.refused += refused
        if not decided.changes:
            return decided
        if not savepoint:
            await self._store(connection, decided.changes)
            return decided
        try:
            async with connection.transaction():
                await self._store(connection, decided.changes)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            error = InvalidResourceError("The resource holds something that cannot be stored")
            return Decided([], [Line(wave[0].number, issues=error.issues)])
        return decided

    async def _store(self, connection: Any, changes: list[Change]) -> None:
        if any(change.resource_type == custom_parameters.RESOURCE_TYPE for change in changes):
            await custom_parameters.apply(self._call(), connection, changes)
        patient, written = told(changes, self._server.own_url, each=True)
        record = audit_record(
            interaction="batch",
            status=200,
            trace_id=self._job.request["trace_id"],
            context=self._access.context,
            patient=patient,
            written=written,
        )
        await write_changes(connection, self._server.rows, changes, self._server.own_url, (encode([record]), 1))

    def _call(self) -> Call:
        """Return the import as a call, for rules that ask who calls."""
        request = Request({"type": "http", "method": "POST", "headers": [], "query_string": b"", "path": ""})
        return Call(self._server, request, self._access, self._job.request["trace_id"], "", "batch")

    def _tell(self, refused: list[Line], name: str) -> None:
        """Add one OperationOutcome for each refused line."""
        for line in sorted(refused, key=lambda item: item.number):
            placed = tuple(
                Issue(i.issue_code, f"{name} line {line.number}: {i.diagnostics}", i.expression, i.severity)
                for i in line.issues[:_MOST_ISSUES]
            )
            self._errors.write(orjson.dumps(operation_outcome(placed)) + b"\n")
        self._errors.sync()
