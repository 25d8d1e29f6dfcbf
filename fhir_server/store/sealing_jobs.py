"""The job that seals what lay in the record before its system was to be sealed; restartable, with progress (ADR 0032).

It waits until everybody who writes does so under the new list (the registry's version sees to that), then walks both
tables once. What it has done shows in the content itself; its place is a checkpoint in the same transaction.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fhir_server.jobs.job import Job
from fhir_server.jobs.runner import JobRunner
from fhir_server.settings import FhirSettings
from fhir_server.store import content_sealing, rebuilding, registry, sealed_systems
from fhir_server.store.connections import Connections
from fhir_server.store.indexing import SELF
from fhir_server.store.sealed_content import sealing
from foramen.kernel.errors import InteropError

KIND = "seal-identifiers"
_GRACE_S = 2 * registry.MAX_AGE_S
_POLL_S = 0.1
_OPEN = (
    "SELECT EXISTS (SELECT FROM fhir.job WHERE kind = $1 AND status IN ('queued', 'running') AND NOT cancelled"
    " AND state = '{}'::bytea)"
)


async def resume(connections: Connections, jobs: JobRunner) -> None:
    """Start the job when something waits to be sealed and no job is about to begin with it."""
    async with connections.lend() as connection, connection.transaction():
        await connection.execute("SELECT FROM fhir.registry FOR UPDATE")
        waiting = [name for name, complete in await sealed_systems.states(connection) if not complete]
        if waiting and not await _is_under_way(connection, waiting):
            await jobs.submit(KIND, {"systems": waiting}, owner=SELF, connection=connection)


async def _is_under_way(connection: Any, waiting: list[str]) -> bool:
    """Whether a job that has not ended has the same systems; one that serves fewer leaves the rest to another."""
    if await connection.fetchval(_OPEN, KIND):
        return True
    found = await connection.fetch(
        "SELECT progress FROM fhir.job WHERE kind = $1 AND status IN ('queued', 'running') AND NOT cancelled", KIND
    )
    return any(record["progress"].startswith(f"{len(waiting)} systems") for record in found)


class IdentifierSealer:
    """Runs these jobs."""

    def __init__(self, own_url: str, limits: FhirSettings) -> None:
        self._own_url, self._limits = own_url, limits

    async def run(self, job: Job) -> None:
        """Walk the current and the earlier versions; continues from the last segment."""
        state = job.state or {
            "fence": None,
            "table": "resource",
            "after": content_sealing.START,
            "seen": 0,
            "sealed": 0,
        }
        state = await self._wait_for_writers(job, state)
        for table in content_sealing.TABLES[content_sealing.TABLES.index(state["table"]) :]:
            if state["table"] != table:
                state = {**state, "table": table, "after": content_sealing.START}
            state = await self._walk(job, state)
        async with job.connections.lend() as connection, connection.transaction():
            await sealed_systems.complete(connection, job.request["systems"])
            await job.save(state, self._told(job, state), connection=connection)

    async def _wait_for_writers(self, job: Job, state: dict[str, Any]) -> dict[str, Any]:
        if state["fence"] is None:
            await asyncio.sleep(_GRACE_S)
            async with job.connections.lend() as connection:
                state = {**state, "fence": await rebuilding.current_transaction(connection)}
            await job.save(state, self._told(job, state))
        while True:
            async with job.connections.lend() as connection:
                if await rebuilding.writers_have_ended(connection, state["fence"]):
                    return state
            await asyncio.sleep(_POLL_S)

    async def _walk(self, job: Job, state: dict[str, Any]) -> dict[str, Any]:
        own = sealing()
        if own is None or not {*job.request["systems"]} <= {*own.blind.names}:
            raise InteropError("This process does not know what to seal")
        while True:
            began = time.monotonic()
            async with job.connections.lend() as connection, connection.transaction():
                walked = await content_sealing.seal_segment(
                    connection, own, state["table"], state["after"], self._limits.sealing_batch, self._own_url
                )
                if walked.last is None:
                    return state
                state = {**state, "after": walked.last, "seen": state["seen"] + walked.size}
                state["sealed"] += walked.changed
                await job.save(state, self._told(job, state), connection=connection)
            job.state = state
            await asyncio.sleep((time.monotonic() - began) * self._limits.reindex_pause)

    def _told(self, job: Job, state: dict[str, Any]) -> str:
        return f"{len(job.request['systems'])} systems, {state['seen']} versions looked at, {state['sealed']} sealed"
