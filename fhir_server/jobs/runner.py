"""Runs durable jobs: each web process takes what waits, renews its leases, and takes up what a dead one left behind.

A job's row is committed before `submit` returns. After kill -9 its lease ends by itself; any process then claims the
job and its function continues from the last checkpoint (`Job.state`). ADR 0018.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.jobs.job import Job, JobCancelledError, JobLostError, JobState, owner_bytes, owner_of, state_of
from fhir_server.settings import FhirSettings
from fhir_server.store import jobs
from fhir_server.store.connections import Connections
from foramen.kernel.access_context import ADMINISTRATOR, AccessContext
from foramen.kernel.errors import ForbiddenError, InteropError, Issue, NotFoundError, ThrottledError, UpstreamError
from foramen.kernel.log import get_log

Run = Callable[[Job], Awaitable[None]]
Cleanup = Callable[[str], Awaitable[None]]

_CLEANUP_EVERY_S = 30.0
_EXPIRED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: what runs it, how many at a time in one process, what removes its files."""

    run: Run
    parallel: int
    cleanup: Cleanup | None


class JobRunner:
    """The jobs of one web process; `connections` serves all jobs together."""

    def __init__(self, database_url: str, limits: FhirSettings) -> None:
        self.connections = Connections(database_url, limits.job_connections, limits.job_statement_timeout_s)
        self._own = Connections(database_url, 1, limits.statement_timeout_s)  # Leases never wait for a job's work.
        self._limits = limits
        self._kinds: dict[str, Kind] = {}
        self._holder = secrets.token_hex(8)
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._stopped: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._next_cleanup = 0.0

    def register(self, kind: str, run: Run, *, parallel: int = 1, cleanup: Cleanup | None = None) -> None:
        """Say what runs jobs of a kind.

        Parameters
        ----------
        run : continues from `job.state`; may be started again after any of its checkpoints
        parallel : most jobs of this kind that one process runs at a time
        cleanup : removes what the job left outside the database, after cancelling, failure or expiry; may be repeated
        """
        self._kinds[kind] = Kind(run, parallel, cleanup)

    async def start(self) -> None:
        """Open connections and begin to take jobs."""
        self._stopping = False
        await self._own.start()
        await self.connections.start()
        self._task = asyncio.create_task(self._loop(), name="fhir-jobs")

    async def stop(self) -> None:
        """Give running jobs back to whoever comes next, from their last checkpoint."""
        self._stopping = True
        self._wake.set()
        running = [task for _, task in self._running.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.connections.stop()
        await self._own.stop()

    async def submit(
        self,
        kind: str,
        request: dict[str, Any],
        *,
        owner: AccessContext,
        connection: Any = None,
        job_id: str | None = None,
    ) -> str:
        """Add a job and return its id (144 random bits); it is durable with the return.

        Parameters
        ----------
        request : JSON that the job's function reads
        owner : the job runs with this access; only this client and subject with a token that reaches as much (or an
            administrator) sees it
        connection : adds it inside this connection's open transaction instead
        job_id : made with `new_job_id` before, by one who keeps files for the job

        Raises
        ------
        ThrottledError
            The client has too many unfinished jobs of this kind.
        """
        job_id = job_id or new_job_id()
        values = (orjson.dumps(request), owner_bytes(owner), owner.client_id, owner.subject)
        async with contextlib.AsyncExitStack() as stack:
            own = connection or await stack.enter_async_context(self._own.lend())
            if await jobs.count_open(own, kind, owner.client_id) >= self._limits.jobs_per_client:
                raise ThrottledError("Too many jobs of this client are unfinished", headers={"Retry-After": "30"})
            await jobs.insert(own, job_id, kind, *values)
        self._wake.set()
        return job_id

    async def find(self, job_id: str) -> JobState | None:
        """Return a job of anybody."""
        async with self._own.lend() as connection:
            record = await jobs.find(connection, job_id)
        return None if record is None else state_of(record)

    async def find_own(self, job_id: str, kind: str | tuple[str, ...], context: AccessContext) -> JobState:
        """Return a job of one of these kinds for its owner or an administrator.

        Raises
        ------
        NotFoundError
            There is none of these kinds, it was cancelled or removed, or it is another's.
        ForbiddenError
            The owner's token of today reaches less than the one that started the job.
        """
        state = await self.find(job_id)
        kinds = (kind,) if isinstance(kind, str) else kind
        if state is None or state.kind not in kinds or state.status == "cancelled" or not _may_see(state, context):
            raise NotFoundError("There is no such job, or it has expired")
        if not (context.has_scope(ADMINISTRATOR) or context.covers(state.owner)):
            raise ForbiddenError("The token reaches less than the one that started the job")
        return state

    async def cancel(self, job_id: str) -> None:
        """End a job: one that runs stops within a heartbeat, whichever process runs it; its files are removed.

        Raises
        ------
        NotFoundError
            There is no such job.
        """
        async with self._own.lend() as connection:
            status = await jobs.cancel(connection, job_id, 0.0)
        if status is None:
            raise NotFoundError("There is no such job, or it has expired")
        if job_id in self._running:
            self._end(job_id)
        self._next_cleanup = 0.0
        self._wake.set()

    async def _loop(self) -> None:
        beat = self._limits.job_lease_s / 4
        next_beat = 0.0
        while not self._stopping:
            try:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + beat
                    await self._renew()
                while await self._take():
                    pass
                if time.monotonic() >= self._next_cleanup:
                    self._next_cleanup = time.monotonic() + _CLEANUP_EVERY_S
                    await self._clean()
            except UpstreamError:
                pass  # The database is away: leases run out by themselves, and we look again.
            except Exception as exc:  # noqa: BLE001 - this task must live on, or no job runs in this process any more
                get_log().error("job runner", exception=type(exc).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(self._limits.job_poll_s, beat))
            self._wake.clear()

    async def _renew(self) -> None:
        if not self._running:
            return
        async with self._own.lend() as connection:
            held = await jobs.renew(connection, list(self._running), self._holder, self._limits.job_lease_s)
        for job_id in list(self._running):
            if held.get(job_id, True):  # To be cancelled, or no longer ours.
                self._end(job_id)

    def _end(self, job_id: str) -> None:
        self._stopped.add(job_id)
        self._running[job_id][1].cancel()

    async def _take(self) -> bool:
        busy = [kind for kind, _ in self._running.values()]
        free = [name for name, kind in self._kinds.items() if busy.count(name) < kind.parallel]
        if not free or self._stopping:
            return False
        async with self._own.lend() as connection:
            record = await jobs.claim(connection, free, self._holder, self._limits.job_lease_s)
        if record is None:
            return False
        kind, job_id = record["kind"], record["id"]
        task = asyncio.create_task(self._run(record), name=f"fhir-job-{kind}")
        self._running[job_id] = kind, task
        task.add_done_callback(lambda _: self._forget(job_id))
        return True

    def _forget(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._stopped.discard(job_id)
        self._wake.set()

    async def _run(self, record: Any) -> None:
        job = Job(
            record["id"],
            record["kind"],
            orjson.loads(record["request"]),
            orjson.loads(record["state"]),
            owner_of(record["owner"]),
            record["attempt"],
            self.connections,
            self._holder,
        )
        try:
            if record["cancelled"]:
                raise JobCancelledError
            if record["fruitless"] > self._limits.job_attempts:
                raise InteropError(f"The job made no progress in {self._limits.job_attempts} attempts")
            await self._kinds[job.kind].run(job)
        except JobCancelledError:
            await self._finish(job, "cancelled")
        except asyncio.CancelledError:
            if job.id in self._stopped:
                await self._finish(job, "cancelled")  # Does nothing when another process holds it.
            else:
                await self._release(job, 0.0, counted=False)
                raise
        except JobLostError:
            get_log().warning("a job's lease was lost", reason=job.kind)
        except UpstreamError:
            await self._release(job, self._limits.job_poll_s * 2)
        except InteropError as error:
            await self._finish(job, "failed", error.issues)
        except Exception as exc:  # noqa: BLE001 - whatever it was, the owner must learn that the job has failed
            get_log().error("job failed", reason=job.kind, exc_info=exc)
            text = f"Unexpected error; job {job.id[:6]}"
            await self._finish(job, "failed", (Issue("exception", text),))
        else:
            await self._finish(job, "completed")

    async def _finish(self, job: Job, status: str, issues: tuple[Issue, ...] = ()) -> None:
        text = orjson.dumps([(i.issue_code, i.diagnostics, i.expression) for i in issues]) if issues else None
        lifetime = 0.0 if status == "cancelled" else self._limits.job_lifetime_s
        with contextlib.suppress(UpstreamError):  # Away: the lease runs out, and the last step is done once more.
            async with self._own.lend() as connection:
                await jobs.finish(connection, job.id, self._holder, job.attempt, status, text, lifetime)
        if status == "cancelled":
            self._next_cleanup = 0.0

    async def _release(self, job: Job, pause_s: float, *, counted: bool = True) -> None:
        with contextlib.suppress(UpstreamError):
            async with self._own.lend() as connection:
                await jobs.release(connection, job.id, self._holder, job.attempt, pause_s, counted=counted)

    async def _clean(self) -> None:
        """Remove expired and cancelled jobs: first their files, then their rows."""
        async with self._own.lend() as connection:
            records = await jobs.expired(connection, _EXPIRED_AT_ONCE)
        done = []
        for record in records:
            kind = self._kinds.get(record["kind"])
            if kind is not None and kind.cleanup is not None:
                await kind.cleanup(record["id"])
            done.append(record["id"])
        if done:
            async with self._own.lend() as connection:
                await jobs.remove(connection, done)


def new_job_id() -> str:
    """Return an id that nobody can guess (144 random bits)."""
    return secrets.token_hex(18)


def _may_see(state: JobState, context: AccessContext) -> bool:
    own = (state.owner.client_id, state.owner.subject) == (context.client_id, context.subject)
    return own or context.has_scope(ADMINISTRATOR)
