"""The job that carries out an approved erasure: close the record, look what the law says, remove, tell (ADR 0028).

Every step can be begun again: what is gone is not found any more, and what was decided before the first removal is kept
with the request, which outlives a job that fails. The Patient goes last, with the resources that name the person; until
then it tells what to look for.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from fhir_server.access.restriction import MAX_AGE_S
from fhir_server.audit.record import audit_record, encode
from fhir_server.jobs.job import Job
from fhir_server.server import Server
from fhir_server.store import bulk, erasing, erasures, full_text, legal_holds, reading
from fhir_server.store.changes import Stored, save
from fhir_server.store.legal_holds import Hold
from fhir_server.store.writing import write_changes
from fhir_server.subject_rights.copies import remove_copies
from fhir_server.subject_rights.imaging import imaging_task
from fhir_server.subject_rights.marks import needles, own_needles
from fhir_server.subject_rights.record import Record, collect
from fhir_server.subject_rights.retention import Years
from fhir_server.subject_rights.scrub import scrubbed
from foramen.kernel.errors import UpstreamError
from foramen.kernel.identifiers import new_logical_id, new_trace_id

KIND = "erasure"
COPIES = ("export", "import", "subject-export", "async")
_BATCH = 100
_BARRIER_POLL_S = 0.02
_MOST_NAMED = 200


class Erasing:
    """One run of the job, from its last checkpoint to the end."""

    def __init__(self, server: Server, job: Job, folder: Path) -> None:
        self._server = server
        self._job = job
        self._folder = folder
        self._patient: str = job.request["patient"]
        self._id: str = job.request["erasure"]
        self._state: dict[str, Any] = dict(job.state)

    async def run(self) -> None:
        """Carry it out; does nothing when it is done already."""
        async with self._job.connections.lend() as connection:
            request = await erasures.find(connection, self._id, self._patient)
        if request is None or request.status != "approved":
            return
        self._state = self._state or dict(request.outcome)  # Of an earlier job, when it was approved once more.
        await self._settle()
        record = await self._collect()
        await self._close_binaries(record)
        if "decision" not in self._state:
            await self._decide(record)
        decision = self._state["decision"]
        if decision == "erase":
            await self._erase(record)
        else:
            await self._restrict(record)

    async def _settle(self) -> None:
        """Return when every process knows that the record is closed, and what was being written is there or given up.

        Raises
        ------
        UpstreamError
            A write does not end.
        """
        self._server.restrictions.forget()
        await self._job.save(progress="waiting for writes that are under way")
        await asyncio.sleep(MAX_AGE_S * 1.2)
        async with self._job.connections.lend() as connection:
            newest = await bulk.newest_transaction(connection)
            deadline = time.monotonic() + self._server.limits.job_statement_timeout_s
            while not await bulk.are_finished(connection, newest):
                if time.monotonic() > deadline:
                    raise UpstreamError("A write does not end; the erasure waits for it", issue_code="timeout")
                await asyncio.sleep(_BARRIER_POLL_S)

    async def _collect(self) -> Record:
        async with self._job.connections.lend() as connection:
            total = max(1, await erasing.size(connection))

            async def told(count: int) -> None:
                await self._job.save(progress=f"looking, {min(1.0, count / total):.0%}")

            return await collect(connection, self._patient, self._server.own_url, told)

    async def _close_binaries(self, record: Record) -> None:
        """Close what is theirs only because they refer to it; it stays closed should the job end before it is gone."""
        async with self._job.connections.lend() as connection:
            await erasures.close(connection, self._patient, "erasing", self._id, record.binaries)
        self._server.restrictions.forget()

    async def _keep(self, connection: Any, progress: str | None = None) -> None:
        """Write down how far it is, in the transaction of what was done."""
        await erasures.checkpoint(connection, self._id, self._state)
        await self._job.save(self._state, progress, connection=connection)

    async def _decide(self, record: Record) -> None:
        """Say once what is done, before anything is removed: later the record would tell another story."""
        limits = self._server.limits
        years = Years(limits.retention_outpatient_years, limits.retention_inpatient_years)
        kept = record.visit.kept_until(years)
        self._state = {
            "decision": "restrict" if kept is not None else "erase",
            "kept_until": kept.isoformat() if kept is not None else None,
            "counts": dict(record.counts),
            "studies": sorted(record.studies),
            "removed": 0,
            "scrubbed": [],
            "residue": sorted(record.residue)[:_MOST_NAMED],
            "kept_binaries": len(record.kept_binaries),
        }
        async with self._job.connections.lend() as connection, connection.transaction():
            await self._keep(connection, "decided")

    # Within the retention

    async def _restrict(self, record: Record) -> None:
        """Keep the record closed: blocked, not deleted, until the law lets it go."""
        copies = await self._remove_copies(record)
        outcome = {
            "decision": "restrict",
            "keptUntil": self._state["kept_until"],
            "resources": self._state["counts"],
            **_told(copies),
        }
        await self._finish("restricted", outcome)

    async def _stop(self, holds: list[Hold]) -> None:
        """A legal hold came meanwhile: what is left stays, closed."""
        outcome = {
            "decision": "held",
            "holds": [hold.id for hold in holds],
            "resources": self._state["counts"],
            "removedVersions": self._state["removed"],
            "studies": self._state["studies"],
        }
        await self._finish("held", outcome)

    async def _finish(self, status: str, outcome: dict[str, Any]) -> None:
        async with self._job.connections.lend() as connection, connection.transaction():
            await self._close(connection, status, "restricted", outcome)
        self._server.restrictions.forget()

    async def _close(
        self, connection: Any, status: str, closed: str, outcome: dict[str, Any], binaries: list[str] | None = None
    ) -> None:
        years = self._server.limits.erasure_record_years
        await erasures.finish(connection, self._id, status, outcome, years)
        await erasures.close(connection, self._patient, closed, self._id, binaries)
        event = audit_record(
            interaction="operation",
            status=200,
            trace_id=self._job.request.get("trace_id") or new_trace_id(),
            context=self._job.owner,
            entity=f"Patient/{self._patient}",
            operation="erase",
        )
        await write_changes(connection, self._server.rows, [], self._server.own_url, (encode([event]), 1))
        await self._job.save({**self._state, "done": status}, status, connection=connection)

    # Erasing

    async def _erase(self, record: Record) -> None:
        copies = await self._remove_copies(record)
        for batch in _batches(sorted(record.shared)):
            await self._scrub(record, batch)
        await self._scrub_versions(record)
        for batch in _batches(record.in_order()):
            if not await self._remove(record, batch):
                return
        if not await self._remove_moved(record):
            return
        await self._end(record, copies)

    async def _remove_copies(self, record: Record) -> dict[str, int]:
        await self._job.save(progress="removing copies in exports and answers")
        wanted = [*own_needles(self._patient), *needles(record.marks)]
        return await remove_copies(self._job.connections, self._folder, wanted, COPIES)

    async def _remove(self, record: Record, rows: list[int]) -> bool:
        """Remove some resources with their versions; False when a hold came."""
        holds: list[Hold] = []
        async with self._job.connections.lend() as connection, connection.transaction():
            await legal_holds.lock_removal(connection)
            holds = await legal_holds.over(connection, record.key)
            if not holds:
                stored = await erasing.lock_rows(connection, rows)
                await reading.begin_writing(connection)
                self._state["removed"] += await erasing.remove(
                    connection, self._server.rows, stored, self._server.own_url
                )
                total = sum(self._state["counts"].values())
                progress = f"removing, {self._state['removed']} versions of {total} resources"
                await self._keep(connection, progress)
        if holds:
            await self._stop(holds)
        return not holds

    async def _remove_moved(self, record: Record) -> bool:
        async with self._job.connections.lend() as connection, connection.transaction():
            await legal_holds.lock_removal(connection)
            holds = await legal_holds.over(connection, record.key)
            if not holds:
                self._state["removed"] += await erasing.remove_versions(connection, record.versions)
                await self._keep(connection)
        if holds:
            await self._stop(holds)
        return not holds

    async def _scrub(self, record: Record, rows: list[int]) -> None:
        """Write resources that stay anew without the person's name, and their latest version before that as well."""
        own_url = self._server.own_url
        async with self._job.connections.lend() as connection, connection.transaction():
            await reading.begin_writing(connection)
            changed: list[tuple[Stored, bytes]] = []
            for stored in await erasing.lock_rows(connection, rows):
                content = scrubbed(stored.content or b"{}", record.references, record.marks, own_url)
                if content is not None:
                    changed.append((stored, content))
                if any(needle in (content or stored.content or b"") for needle in needles(record.marks)):
                    self._state["residue"] = sorted({*self._state["residue"], stored.reference})[:_MOST_NAMED]
            if not changed:
                return
            now = datetime.now(UTC)
            changes = [
                save(
                    content,
                    _read(content),
                    stored.logical_id,
                    updated=max(now, stored.updated),
                    own_url=own_url,
                    previous=stored,
                    method="PUT",
                )
                for stored, content in changed
            ]
            written = [stored.reference for stored, _ in changed]
            event = audit_record(
                interaction="operation",
                status=200,
                trace_id=self._job.request.get("trace_id") or new_trace_id(),
                context=self._job.owner,
                written=written,
                operation="erase",
            )
            await write_changes(connection, self._server.rows, changes, own_url, (encode([event]), 1))
            for stored, content in changed:
                await erasing.rewrite_version(connection, stored.row, stored.version, content)
            self._state["scrubbed"] = sorted({*self._state["scrubbed"], *written})[:_MOST_NAMED]
            await self._keep(connection)

    async def _scrub_versions(self, record: Record) -> None:
        own_url = self._server.own_url
        for row, version in record.shared_versions:
            async with self._job.connections.lend() as connection, connection.transaction():
                content = await erasing.version_content(connection, row, version)
                changed = scrubbed(content, record.references, record.marks, own_url) if content else None
                if changed is not None:
                    await erasing.rewrite_version(connection, row, version, changed)

    async def _end(self, record: Record, copies: dict[str, int]) -> None:
        """Remove the resources that name the person, and say what was done: in one transaction."""
        while self._server.limits.full_text and await full_text.catch_up(self._job.connections):
            await self._job.save(progress="removing words from the full-text index")
        async with self._job.connections.lend() as connection, connection.transaction():
            await legal_holds.lock_removal(connection)
            await full_text.hold(connection)
            holds = await legal_holds.over(connection, record.key)
            if not holds:
                await self._remove_people(connection, record)
                await erasing.sweep_words(connection)
                outcome = {**await self._outcome(connection, record), **_told(copies)}
                await self._close(connection, "erased", "erased", outcome, binaries=[])
        if holds:
            await self._stop(holds)
        self._server.restrictions.forget()

    async def _remove_people(self, connection: Any, record: Record) -> None:
        """Remove the Patient, relatives and the like.

        Raises
        ------
        UpstreamError
            Something else of the record is still there; the job begins again.
        """
        stored = await erasing.lock_rows(connection, sorted(record.people))
        await reading.begin_writing(connection)
        self._state["removed"] += await erasing.remove(connection, self._server.rows, stored, self._server.own_url)
        shared = [*record.shared, *(row for row, _ in record.shared_versions)]
        if await erasing.present(connection, record.key, shared):
            raise UpstreamError("Something of the record is still being written; the erasure begins again")

    async def _outcome(self, connection: Any, record: Record) -> dict[str, Any]:
        own_url, studies = self._server.own_url, self._state["studies"]
        task = imaging_task(new_logical_id(), studies, own_url) if studies else None
        if task is not None:
            await write_changes(connection, self._server.rows, [task], own_url)
        return {
            "decision": "erase",
            "resources": self._state["counts"],
            "removedVersions": self._state["removed"],
            "scrubbed": self._state["scrubbed"],
            "toLookAt": self._state["residue"],
            "sharedBinaries": self._state["kept_binaries"],
            "auditEventsKept": await erasing.count_events(connection, record.key),
            "studies": studies,
            "imagingTask": f"Task/{task.logical_id}" if task is not None else None,
        }


def _told(copies: dict[str, int]) -> dict[str, int]:
    return {"copiesRemoved": copies["files"], "answersRemoved": copies["answers"]}


def _batches(rows: list[int]) -> list[list[int]]:
    return [rows[place : place + _BATCH] for place in range(0, len(rows), _BATCH)]


def _read(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(content)
    return found
