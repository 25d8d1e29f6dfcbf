"""The import job: NDJSON into the record, batch after batch; each commits together with its checkpoint (ADR 0018).

So a batch is written once whatever happens: after kill -9 the job goes on behind the last batch that was committed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from starlette.requests import Request

from fhir_server.access.policy import Access
from fhir_server.audit.record import audit_record, encode, told
from fhir_server.bulk.files import NdjsonFiles
from fhir_server.bulk.import_batch import Decided, Line, decide, prepare, waves
from fhir_server.bulk.source import BEGINNING, Batch, LineLimits, Place, batches
from fhir_server.interactions.carrying_out import AGAIN, ATTEMPTS, keeps_changing
from fhir_server.jobs.job import Job
from fhir_server.model.validation import raise_for
from fhir_server.rules import custom_parameters
from fhir_server.server import Call, Server
from fhir_server.store import reading
from fhir_server.store.changes import Change
from fhir_server.store.writing import write_changes
from fhir_server.validation.check import check_profiles
from foramen.kernel.errors import InteropError, InvalidResourceError, Issue
from foramen.kernel.outcome import operation_outcome

_MOST_ISSUES = 20


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
        source = batches(Path(given["path"]), self._progress.place, self._lines)
        following = asyncio.create_task(self._next(source, given))
        try:
            while (found := await following) is not None:
                # The next batch is parsed and validated while PostgreSQL writes this one.
                following = asyncio.create_task(self._next(source, given))
                await self._write(*found, given["name"])
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            source.close()

    async def _next(self, source: Generator[Batch], given: dict[str, str]) -> tuple[Batch, list[Line]] | None:
        def read() -> tuple[Batch, list[Line]] | None:
            batch = next(source, None)
            if batch is None:
                return None
            return batch, prepare(batch.lines, self._server.limits, full=self._full, expected=given["type"])

        found = await asyncio.to_thread(read)
        if found is not None and self._full:
            await self._check_profiles(found[1])
        return found

    async def _check_profiles(self, lines: list[Line]) -> None:
        """Hold each resource against the profiles it claims, and ours for what an AI made."""
        good = [(line, line.resource) for line in lines if line.resource is not None and line.fault is None]
        issues = await check_profiles(self._server, [resource for _, resource in good])
        for (line, _), found in zip(good, issues, strict=True):
            try:
                raise_for(found)
            except InteropError as exc:
                line.fault = exc

    async def _write(self, batch: Batch, lines: list[Line], name: str) -> None:
        one_by_one = False
        for attempt in range(ATTEMPTS):
            before = Progress.read(self._progress.write([]))
            before.files = self._progress.files
            try:
                await self._commit(batch, lines, name, one_by_one=one_by_one)
                return
            except AGAIN as exc:
                self._progress = before
                if attempt == ATTEMPTS - 1:
                    raise keeps_changing() from exc
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                # Something in one line that the database cannot hold: find out in which.
                self._progress, one_by_one = before, True

    async def _commit(self, batch: Batch, lines: list[Line], name: str, *, one_by_one: bool) -> None:
        progress = self._progress
        refused = [line for line in lines if line.fault is not None]
        good = [line for line in lines if line.fault is None]
        async with self._job.connections.lend() as connection, connection.transaction():
            for wave in [[line] for line in good] if one_by_one else waves(good):
                decided = await self._write_wave(connection, wave, savepoint=one_by_one)
                refused += decided.refused
                for change in decided.changes:
                    count = progress.created if change.previous is None else progress.updated
                    count[change.resource_type] += 1
            progress.refused += len(refused)
            progress.place = batch.end
            if refused:
                await asyncio.to_thread(self._tell, refused, name)
            await self._job.save(progress.write(self._errors.records), progress.told, connection=connection)

    async def _write_wave(self, connection: Any, wave: list[Line], *, savepoint: bool) -> Decided:
        current = await reading.lock(connection, [line.name for line in wave])
        gone = [s.row for s in current.values() if s.is_deleted]
        buried = await reading.before_deletion(connection, gone) if gone else {}
        now = datetime.now(UTC)
        own_url = self._server.own_url
        decided = await asyncio.to_thread(decide, wave, current, buried, self._access, now, own_url)
        if not decided.changes:
            return decided
        if not savepoint:
            await self._store(connection, decided.changes)
            return decided
        try:
            async with connection.transaction():
                await self._store(connection, decided.changes)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            wave[0].fault = InvalidResourceError("The resource holds something that cannot be stored")
            return Decided([], wave)
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
            issues = line.fault.issues[:_MOST_ISSUES] if line.fault is not None else ()
            placed = tuple(
                Issue(i.issue_code, f"{name} line {line.number}: {i.diagnostics}", i.expression, i.severity)
                for i in issues
            )
            self._errors.write(orjson.dumps(operation_outcome(placed)) + b"\n")
        self._errors.sync()
