"""Build and remove the index entries of a custom search parameter in the background (ADR 0015).

Before a walk begins, every write that was made without knowing of the change has been committed: a statement that would
write entries found by an older registry fails (`store/writing.py`), and transactions that are older are waited for. So
each resource was either written by one who knew, or lies before the walk.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fhir_server.jobs.job import Job
from fhir_server.jobs.runner import JobRunner
from fhir_server.search.custom import CustomExtractor, Definition
from fhir_server.settings import FhirSettings
from fhir_server.store import rebuilding, registry
from fhir_server.store.connections import Connections
from fhir_server.store.indexing import SELF

KIND = "search-parameter"
_GRACE_S = 2 * registry.MAX_AGE_S
"""Until then a process may still search by a parameter that is being removed."""
_FENCE_POLL_S = 0.1
_GATHER_S = 0.3


async def submit(connection: Any, jobs: JobRunner) -> None:
    """See to it that a job takes up what the registry has waiting; inside the transaction that changes it.

    A burst of changes is left to one job: it begins a moment later and then takes all that is waiting.
    """
    gathering = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM fhir.job WHERE kind = $1 AND status IN ('queued', 'running') AND NOT cancelled"
        " AND state = '{}'::bytea)",
        KIND,
    )
    if not gathering:
        await jobs.submit(KIND, {}, owner=SELF, connection=connection)


async def resume(connections: Connections, jobs: JobRunner) -> None:
    """Take up what a failed or cancelled job left undone."""
    async with connections.lend() as connection, connection.transaction():
        await connection.execute("SELECT FROM fhir.registry FOR UPDATE")
        if await registry.has_waiting(connection):
            await submit(connection, jobs)


class ParameterBuilder:
    """Runs these jobs."""

    def __init__(self, own_url: str, limits: FhirSettings) -> None:
        self._own_url = own_url
        self._limits = limits

    async def run(self, job: Job) -> None:
        """Walk all resources of the parameters' types; continues from the last batch."""
        state = job.state or await self._adopt(job)
        state = await self._wait_for_writers(job, state)
        for identity in state["identities"]:
            async with job.connections.lend() as connection:
                found = await registry.find(connection, identity)
            if found is None or found[0] == "active":
                continue
            for name in found[1].types:
                state = await self._walk(job, state, (identity, *found), name)
            await self._finish(job, identity, found[0])

    async def _adopt(self, job: Job) -> dict[str, Any]:
        await asyncio.sleep(_GATHER_S)
        async with job.connections.lend() as connection, connection.transaction():
            state = {
                "identities": await registry.adopt(connection, job.id),
                "fence": None,
                "done": [],
                "after": None,
                "seen": 0,
                "found": 0,
            }
            await job.save(state, connection=connection)
        return state

    async def _wait_for_writers(self, job: Job, state: dict[str, Any]) -> dict[str, Any]:
        if state["fence"] is None:
            await asyncio.sleep(_GRACE_S)
            async with job.connections.lend() as connection:
                state["fence"] = await rebuilding.current_transaction(connection)
            await job.save(state, "waiting for open transactions")
        while True:
            async with job.connections.lend() as connection:
                if await rebuilding.writers_have_ended(connection, state["fence"]):
                    return state
            await asyncio.sleep(_FENCE_POLL_S)

    async def _walk(
        self, job: Job, state: dict[str, Any], parameter: tuple[str, str, Definition], name: str
    ) -> dict[str, Any]:
        identity, wanted, definition = parameter
        step = f"{identity} {name}"
        if step in state["done"]:
            return state
        (own,) = (p for p in definition.parameters(identity, incomplete=True) if p.resource_type == name)
        custom = CustomExtractor(own, self._own_url)
        work = rebuilding.add_parameter if wanted == "building" else rebuilding.remove_parameter
        while True:
            began = time.monotonic()
            async with job.connections.lend() as connection, connection.transaction():
                now = await registry.find(connection, identity)
                after = tuple(state["after"]) if state["after"] else None
                rows = await rebuilding.next_rows(connection, name, after, self._limits.reindex_batch)
                if now is None or now[0] != wanted:
                    rows = []
                if rows:
                    found = await work(connection, [record["row"] for record in rows], custom)
                    state = {**state, "after": [rows[-1]["updated"], rows[-1]["row"]]}
                    state |= {"seen": state["seen"] + len(rows), "found": state["found"] + found}
                if len(rows) < self._limits.reindex_batch:
                    state = {**state, "done": [*state["done"], step], "after": None}
                await job.save(state, _progress(state, definition), connection=connection)
            job.state = state
            if step in state["done"]:
                return state
            if not rows[-1]["recent"]:
                await asyncio.sleep((time.monotonic() - began) * self._limits.reindex_pause)

    async def _finish(self, job: Job, identity: str, wanted: str) -> None:
        async with job.connections.lend() as connection, connection.transaction():
            await registry.lock_version(connection)
            found = await registry.find(connection, identity)
            if found is None or found[0] != wanted:
                return
            if wanted == "building":
                await registry.set_state(connection, identity, "active")
            else:
                await registry.remove(connection, identity)


def _progress(state: dict[str, Any], definition: Definition) -> str:
    return f"{definition.code}: {state['seen']} resources read, {state['found']} with a value"
