"""The export job: type after type, segment after segment, each followed by a checkpoint (ADR 0019).

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fhir_server.bulk.files import Changed, NdjsonFiles, Unquoted
from fhir_server.bulk.plan import elements_of
from fhir_server.bulk.request import ExportRequest
from fhir_server.interactions.subset import subset
from fhir_server.jobs.job import Job
from fhir_server.settings import FhirSettings
from fhir_server.store import bulk
from fhir_server.store.bulk import Key, Wanted
from foramen.kernel.errors import UpstreamError

_BARRIER_POLL_S = 0.02
Change = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One pass over one type: `main` up to where every write is surely visible, `tail` the rest, or `deleted`."""

    phase: str
    wanted: Wanted


@dataclass(slots=True)
class Progress:
    """The checkpoint: what is written, and where to go on.

    Parameters
    ----------
    at : transactionTime; the export shows what was current then (microseconds)
    settled : every version written up to here was visible when the export began
    step, cursor : place in the list of steps, and the key behind which to go on
    files : records of `NdjsonFiles`
    """

    at: int
    settled: int
    step: int = 0
    cursor: Key | None = None
    files: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def read(state: dict[str, Any]) -> Progress:
        """Read a checkpoint."""
        cursor = state["cursor"]
        return Progress(
            state["at"], state["settled"], state["step"], (cursor[0], cursor[1]) if cursor else None, state["files"]
        )

    def write(self, more: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the checkpoint with the files that are being written."""
        return {
            "at": self.at,
            "settled": self.settled,
            "step": self.step,
            "cursor": self.cursor,
            "files": [dict(item) for item in (*self.files, *more) if item["bytes"]],
        }


class Export:
    """One run of an export job, from its last checkpoint to the end.

    Parameters
    ----------
    wanted : what is read of each type
    settle_audit : indexes AuditEvents that wait
    seen : returns, for a type, what leaves out the versions that the caller may not see; None: nothing has to
    pseudonymise : writes a resource under pseudonyms
    noted : writes down whose records the lines of `seen` belong to, before they count as written
    deletions : whether to tell what was deleted since `request.since`
    """

    def __init__(
        self,
        job: Job,
        request: ExportRequest,
        wanted: list[Wanted],
        folder: Path,
        limits: FhirSettings,
        *,
        settle_audit: Callable[[], Awaitable[None]],
        seen: Callable[[str], Change | None],
        pseudonymise: Change | None = None,
        noted: Callable[[], None] | None = None,
        deletions: bool,
    ) -> None:
        self._job = job
        self._request = request
        self._folder = folder
        self._limits = limits
        self._settle_audit = settle_audit
        self._seen = seen
        self._pseudonymise = pseudonymise
        self._noted = noted
        self._steps = [Step("main", item) for item in wanted]
        if deletions:
            self._steps += [Step("deleted", item) for item in wanted if not item.about]
        self._steps += [Step("tail", item) for item in wanted]

    async def run(self) -> None:
        """Write all files; after the return the manifest can be made from the job's state."""
        if self._job.state:
            progress = Progress.read(self._job.state)
        else:
            progress = await self._begin()
        settled = False
        for place in range(progress.step, len(self._steps)):
            step = self._steps[place]
            if step.phase != "main" and not settled:
                await self._settle(progress)
                settled = True
            await self._run_step(step, progress)
            progress.step, progress.cursor = place + 1, None
        await self._job.save(progress.write([]), self._told(progress, []))

    async def _begin(self) -> Progress:
        await self._settle_audit()
        async with self._job.connections.lend() as connection:
            now, oldest = await bulk.clock(connection)
        margin = int(self._limits.export_settle_s * 1e6)
        progress = Progress(now // 1000 * 1000, (oldest - margin) // 1000 * 1000)
        await self._job.save(progress.write([]), "starting")
        return progress

    async def _settle(self, progress: Progress) -> None:
        """Return when every write whose time is up to transactionTime is visible or given up.

        A write takes its time from a web process's clock before its transaction begins: the margin covers the gap
        between the two and the difference of clocks; the transaction ids cover what began and is not yet committed.
        """
        async with self._job.connections.lend() as connection:
            now, _ = await bulk.clock(connection)
            await asyncio.sleep(max(0.0, progress.at / 1e6 + self._limits.export_settle_s - now / 1e6))
            await self._settle_audit()
            newest = await bulk.newest_transaction(connection)
            for _ in range(math.ceil(self._limits.job_statement_timeout_s / _BARRIER_POLL_S)):
                if await bulk.are_finished(connection, newest):
                    return
                await asyncio.sleep(_BARRIER_POLL_S)
        raise UpstreamError("A write does not end; the export waits for it", issue_code="timeout")

    async def _run_step(self, step: Step, progress: Progress) -> None:
        begin, end = self._range(step, progress)
        if step.wanted.patients == () or begin >= end:
            return
        name = step.wanted.resource_type
        kind = "deleted" if step.phase == "deleted" else "output"
        files = NdjsonFiles(self._folder, kind, name, self._limits.export_file_bytes)
        change = None if kind == "deleted" else self._change(name)
        try:
            if kind == "deleted":
                async with self._job.connections.lend() as connection:
                    output = _Output(files, None)
                    await bulk.copy_deletions(connection, step.wanted, progress.at, begin[0], output)
                await self._checkpoint(progress, files)
            else:
                await self._segments(step, progress, files, change, begin, end)
        finally:
            files.close()
        progress.files += [item for item in files.records if item["bytes"]]

    async def _segments(
        self, step: Step, progress: Progress, files: NdjsonFiles, change: Change | None, begin: Key, end: Key
    ) -> None:
        after = progress.cursor or begin
        simple = not (step.wanted.filters or step.wanted.members or step.wanted.about)
        size = self._limits.export_segment * (1 if simple else 10)  # Every segment asks the filter anew.
        async with self._job.connections.lend() as connection:
            while after < end:
                upto = await bulk.boundary(connection, step.wanted, after, end, size) or end
                await bulk.copy_segment(connection, step.wanted, progress.at, after, upto, _Output(files, change))
                progress.cursor = after = upto
                if files.records or upto < end:
                    await self._checkpoint(progress, files)

    def _range(self, step: Step, progress: Progress) -> tuple[Key, Key]:
        """Return the keys between which a step reads: (begin, end]."""
        begin = bulk.before(self._request.since if self._request.since is not None else 0)
        last = progress.at if self._request.until is None else min(progress.at, self._request.until - 1)
        settled = min(last, progress.settled)
        if step.phase == "main":
            return begin, bulk.before(settled)
        if step.phase == "tail":
            return max(begin, bulk.before(settled)), bulk.before(last)
        return begin, bulk.before(last)

    async def _checkpoint(self, progress: Progress, files: NdjsonFiles) -> None:
        if self._noted is not None:
            await asyncio.to_thread(self._noted)
        await asyncio.to_thread(files.sync)
        await self._job.save(progress.write(files.records), self._told(progress, files.records))

    def _told(self, progress: Progress, more: list[dict[str, Any]]) -> str:
        count = sum(item["count"] for item in (*progress.files, *more) if item["kind"] == "output")
        step = min(progress.step, len(self._steps) - 1)
        return f"{count} resources, step {step + 1} of {len(self._steps)} ({self._steps[step].wanted.resource_type})"

    def _change(self, name: str) -> Change | None:
        elements = elements_of(self._request, name)
        whole: Change = lambda line: subset(line, name, "false", elements)  # noqa: E731
        steps = [step for step in (self._seen(name), whole if elements else None, self._pseudonymise) if step]
        if len(steps) < 2:
            return steps[0] if steps else None

        def change(line: bytes) -> bytes | None:
            found: bytes | None = line
            for step in steps:
                found = step(found) if found is not None else None
            return found

        return change


class _Output:
    """Takes what COPY sends: to the file, through the function that changes each line when there is one."""

    _SLICE_S = 0.01

    def __init__(self, files: NdjsonFiles, change: Change | None) -> None:
        self._files = files
        self._plain = Unquoted()
        self._changed = Changed(change) if change is not None else None
        self._yielded = time.monotonic()

    async def __call__(self, piece: bytes) -> None:
        """Write one piece; now and then the requests of this process get their turn."""
        text = self._plain(piece)
        if self._changed is not None:
            text = await asyncio.to_thread(self._changed, text)
        self._files.write(text)
        if time.monotonic() - self._yielded > self._SLICE_S:
            await asyncio.sleep(0)
            self._yielded = time.monotonic()
