"""Keep the index in step with the code: what has changed since it was built is built anew, while the server serves.

The index holds nothing of its own: every entry can be found again from the stored bytes. `fhir.setting` has, for each
type, the fingerprint its index was completed with ('index') and the types that are being rebuilt ('rebuilding').
A small record is brought up to date before the first request; a large one by a durable job (ADR 0015).
"""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from fhir_server.jobs.job import Job
from fhir_server.jobs.runner import JobRunner
from fhir_server.search import parameters
from fhir_server.search.hashing import hash64
from fhir_server.settings import FhirSettings
from fhir_server.store import jobs as job_table
from fhir_server.store import rebuilding, registry
from fhir_server.store.connections import Connections
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError
from terminology import ucum

KIND = "reindex"
SELF = AccessContext("foramen", "foramen", ())
"""Owner of jobs that the server gives itself; such a job reads stored bytes only and shows nobody anything."""
_SOURCES = (
    *("search/values.py", "search/index.py", "search/composites.py", "search/dates.py", "search/hashing.py"),
    *("search/custom.py", "search/text.py", "search/remembering.py", "model/references.py", "search/blind.py"),
    *("access/security_context.py", "access/compartments.py", "access/r4_compartments.json"),
)
"""What decides, beside the table of search parameters, which entries a resource has: files of this package."""
_LOCK = 0x464F5249


def sources() -> list[Path]:
    """Return the files that say what an entry of the index means."""
    package = Path(parameters.__file__).parent.parent
    return [*(package / name for name in _SOURCES), Path(ucum.__file__)]


@lru_cache(maxsize=8)
def fingerprints(own_url: str) -> dict[str, str]:
    """Fingerprint, for each type, of everything that decides what its index holds."""
    folder = Path(parameters.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in sources())
    table = orjson.loads((folder / "r4_search_parameters.json").read_bytes())
    hashed = hash64.__wrapped__  # Its cache would keep all of the code once for each type: 23 MB.
    return {
        name: f"{hashed(f'{code} {own_url} {name} {orjson.dumps(table[name]).decode()}'):x}"
        for name in parameters.resource_types()
    }


async def _setting(connection: Any, name: str, default: Any) -> Any:
    text = await connection.fetchval("SELECT value FROM fhir.setting WHERE name = $1", name)
    try:
        return default if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:  # Written by an earlier version.
        return default


async def _set(connection: Any, name: str, value: Any) -> None:
    await connection.execute(
        "INSERT INTO fhir.setting VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
        name,
        orjson.dumps(value).decode(),
    )


async def bring_up_to_date(connections: Connections, own_url: str, jobs: JobRunner, limits: FhirSettings) -> None:
    """Rebuild what another version of the code indexed: at once when there is little, else by a job.

    Raises
    ------
    UpstreamError
        The database is away.
    """
    wanted = fingerprints(own_url)
    async with connections.lend() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        built = await _setting(connection, "index", {})
        stale = [name for name in await rebuilding.present_types(connection) if built.get(name) != wanted.get(name)]
        open_job = await _open_job(connection)
        if not stale:
            if open_job is None and built != wanted:
                await _set(connection, "index", wanted)
                await _announce(connection, [])
            return
        if await _is_small(connection, limits.reindex_at_start):
            await connection.execute("SET LOCAL statement_timeout = 0")
            for name in stale:
                await _rebuild_now(connection, name, own_url, limits.reindex_batch)
            await _set(connection, "index", wanted)
            await _announce(connection, [])
            return
        if open_job is not None:
            if all(open_job["request"]["types"].get(name) == wanted[name] for name in stale):
                return  # Cut off by the end of its process: it goes on.
            await job_table.cancel(connection, open_job["id"], 0.0)
        await _submit(connection, jobs, SELF, stale, wanted, built, announce=True)


async def _is_small(connection: Any, limit: int) -> bool:
    found = await connection.fetchval("SELECT count(*) FROM (SELECT FROM fhir.resource LIMIT $1) n", limit + 1)
    return int(found) <= limit


async def _rebuild_now(connection: Any, resource_type: str, own_url: str, batch: int) -> None:
    after: tuple[str, int] | None = None
    found: list[Any] | None = None
    while found is None or len(found) == batch:
        found = await rebuilding.next_rows(connection, resource_type, after, batch)
        if found:
            await rebuilding.rebuild(connection, [record["row"] for record in found], own_url)
            after = found[-1]["updated"], found[-1]["row"]


async def _announce(connection: Any, types: list[str]) -> None:
    """Tell every process which types are being rebuilt."""
    await _set(connection, "rebuilding", types)
    await registry.lock_version(connection)


async def _open_job(connection: Any) -> dict[str, Any] | None:
    record = await connection.fetchrow(
        "SELECT id FROM fhir.job WHERE kind = $1 AND status IN ('queued', 'running') AND NOT cancelled", KIND
    )
    if record is None:
        return None
    found = await job_table.find(connection, record["id"])
    return None if found is None else {"id": found["id"], "request": orjson.loads(found["request"])}


async def _submit(
    connection: Any,
    jobs: JobRunner,
    owner: AccessContext,
    types: list[str],
    wanted: dict[str, str],
    built: dict[str, str],
    *,
    announce: bool,
) -> str:
    # Until the job has done a type it counts as not built, whatever happens to the job.
    await _set(connection, "index", {name: value for name, value in built.items() if name not in types})
    if announce:
        await _announce(connection, types)
    request = {"types": {name: wanted[name] for name in types}}
    return await jobs.submit(KIND, request, owner=owner, connection=connection)


async def request_reindex(
    connections: Connections, own_url: str, jobs: JobRunner, owner: AccessContext, types: list[str] | None
) -> str:
    """Start a rebuild that somebody asked for; returns the job's id.

    Raises
    ------
    ConflictError
        One is under way.
    """
    async with connections.lend() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if await _open_job(connection) is not None:
            raise ConflictError("The index is being rebuilt already")
        names = types if types is not None else await rebuilding.present_types(connection)
        built = await _setting(connection, "index", {})
        return await _submit(connection, jobs, owner, names, fingerprints(own_url), built, announce=False)


async def state(connections: Connections) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Return the types that are being rebuilt, and (code, types, state) of the custom parameters."""
    async with connections.lend() as connection:
        types: list[str] = await _setting(connection, "rebuilding", [])
        custom = await registry.in_force(connection)
    return types, [(found.code, ",".join(found.types), state) for _, state, found in custom]


class Reindexer:
    """Runs reindex jobs."""

    def __init__(self, own_url: str, limits: FhirSettings) -> None:
        self._own_url = own_url
        self._limits = limits

    async def run(self, job: Job) -> None:
        """Rebuild the job's types, one after the other, in batches; continues from the last batch."""
        state = job.state or {"done": [], "after": None, "seen": 0, "changed": 0, "total": None}
        async with job.connections.lend() as connection:
            if state["total"] is None:
                state["total"] = await rebuilding.count(connection, list(job.request["types"]))
            await rebuilding.open_row_index(connection)
        for name in sorted(job.request["types"]):
            if name not in state["done"]:
                state = await self._type(job, state, name)
        async with job.connections.lend() as connection:
            await rebuilding.close_row_index(connection)

    async def _type(self, job: Job, state: dict[str, Any], name: str) -> dict[str, Any]:
        while True:
            began = time.monotonic()
            async with job.connections.lend() as connection, connection.transaction():
                after = tuple(state["after"]) if state["after"] else None
                found = await rebuilding.next_rows(connection, name, after, self._limits.reindex_batch)
                if found:
                    rows = [record["row"] for record in found]
                    state = _advance(state, found, await rebuilding.rebuild(connection, rows, self._own_url))
                if len(found) < self._limits.reindex_batch:
                    return await self._complete(connection, job, state, name)
                await job.save(state, _progress(state), connection=connection)
            job.state = state
            if not found[-1]["recent"]:
                await asyncio.sleep((time.monotonic() - began) * self._limits.reindex_pause)

    async def _complete(self, connection: Any, job: Job, state: dict[str, Any], name: str) -> dict[str, Any]:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        built = await _setting(connection, "index", {})
        await _set(connection, "index", {**built, name: job.request["types"][name]})
        types = await _setting(connection, "rebuilding", [])
        if name in types:
            await _announce(connection, [item for item in types if item != name])
        state = {**state, "done": [*state["done"], name], "after": None}
        await job.save(state, _progress(state), connection=connection)
        return state


def _advance(state: dict[str, Any], found: list[Any], changed: int) -> dict[str, Any]:
    return {
        **state,
        "after": [found[-1]["updated"], found[-1]["row"]],
        "seen": state["seen"] + len(found),
        "changed": state["changed"] + changed,
    }


def _progress(state: dict[str, Any]) -> str:
    return f"{state['seen']} of {state['total']} resources, {state['changed']} changed"
