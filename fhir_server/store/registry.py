"""The custom search parameters of a record, and how each web process hears of a change within a second.

A change commits with the SearchParameter resource it comes from. Every process asks for the version at most once a
second: before it serves a request and, for its background work, by a task of its own. ADR 0015 tells why that will do.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from fhir_server.search import parameters
from fhir_server.search.custom import Definition
from fhir_server.store.connections import Connections
from foramen.kernel.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fhir_server.store.changes import Change
    from fhir_server.store.sealed_systems import SealedSystems

MAX_AGE_S = 1.0
"""Longest time for which a process goes on with what it knew."""
_SUSPECT_S = 30.0
_WAITING = (
    "p.state <> 'active' AND NOT EXISTS (SELECT FROM fhir.job j WHERE j.id = p.job"
    " AND j.status IN ('queued', 'running') AND NOT j.cancelled)"
)


async def lock_version(connection: Any) -> int:
    """Take the next version, keeping other changes of the registry out until the transaction ends."""
    return int(await connection.fetchval("UPDATE fhir.registry SET version = version + 1 RETURNING version"))


async def take_up(connection: Any, changes: Sequence[Change], version: int) -> None:
    """Let changes commit in the transaction that made this version, if they know the one before.

    Raises
    ------
    asyncpg.SerializationError
        They do not: what came in between would be missing in their index entries.
    """
    own = await connection.fetchval("SELECT current_setting('foramen.registry', true)")
    if own != str(version - 1) and any(change.registry not in (None, version - 1) for change in changes):
        raise asyncpg.SerializationError("the search parameters changed")
    await connection.execute("SELECT set_config('foramen.registry', $1, true)", str(version))


async def require(connection: Any, version: int) -> None:
    """Check, after the first write of a transaction, that its index entries were found by the registry in force.

    Raises
    ------
    asyncpg.SerializationError
        Another version is; load it and begin again.
    """
    found = await connection.fetchval(
        "SELECT version = $1 OR version::text = current_setting('foramen.registry', true) AS known FROM fhir.registry",
        version,
    )
    if not found:
        raise asyncpg.SerializationError("the search parameters changed")


async def in_force(connection: Any, logical_id: str | None = None) -> list[tuple[str, str, Definition]]:
    """Return (identity, state, definition) of the parameters in force: all, or that of one SearchParameter."""
    records = await connection.fetch(
        "SELECT identity, state, definition FROM fhir.search_parameter WHERE state <> 'removing'"
        " AND ($1::text IS NULL OR logical_id = $1) ORDER BY identity",
        logical_id,
    )
    return [(record["identity"], record["state"], _definition(record["definition"])) for record in records]


async def find(connection: Any, identity: str) -> tuple[str, Definition] | None:
    """Return (state, definition) of one parameter, in force or on its way out."""
    record = await connection.fetchrow(
        "SELECT state, definition FROM fhir.search_parameter WHERE identity = $1", identity
    )
    return None if record is None else (record["state"], _definition(record["definition"]))


async def insert(connection: Any, identity: str, definition: Definition) -> None:
    """Put a parameter in force; its index is still to be built."""
    await connection.execute(
        "INSERT INTO fhir.search_parameter (identity, logical_id, state, definition)"
        " VALUES ($1, $2, 'building', $3::text::jsonb)",
        identity,
        definition.logical_id,
        orjson.dumps(asdict(definition)).decode(),
    )


async def set_state(connection: Any, identity: str, state: str) -> None:
    """Move a parameter on: ``active`` once it is built, ``removing`` when it is no longer in force."""
    await connection.execute(
        "UPDATE fhir.search_parameter SET state = $2, job = NULL WHERE identity = $1", identity, state
    )


async def adopt(connection: Any, job_id: str) -> list[str]:
    """Give all parameters that wait for a job to this one; returns their identities. Inside a transaction.

    The lock makes it wait for whoever is changing the registry: what they leave to this job is found.
    """
    await connection.execute("SELECT FROM fhir.registry FOR UPDATE")
    records = await connection.fetch(
        f"UPDATE fhir.search_parameter p SET job = $1 WHERE {_WAITING} RETURNING identity", job_id
    )
    return sorted(record["identity"] for record in records)


async def has_waiting(connection: Any) -> bool:
    """Whether a parameter is to be built or removed and no job has it."""
    return bool(await connection.fetchval(f"SELECT EXISTS (SELECT FROM fhir.search_parameter p WHERE {_WAITING})"))


async def remove(connection: Any, identity: str) -> None:
    """Forget a parameter whose index entries are gone."""
    await connection.execute("DELETE FROM fhir.search_parameter WHERE identity = $1", identity)


def _definition(text: str) -> Definition:
    data = orjson.loads(text)
    return Definition(**{**data, "types": tuple(data["types"]), "targets": tuple(data["targets"])})


def _types_of(text: str | None) -> frozenset[str]:
    try:
        return frozenset(orjson.loads(text or "[]"))
    except orjson.JSONDecodeError:  # Written by an earlier version.
        return frozenset()


class RegistryWatch:
    """Keeps the registry of one process up to date."""

    def __init__(self, connections: Connections, systems: SealedSystems | None = None) -> None:
        self._systems = systems
        self.registry = parameters.Registry()
        self._connections = connections
        self._checked = 0.0
        self._suspect_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Load the registry, put it in force for this context and those made from it, and go on watching."""
        parameters.activate(self.registry)
        if self._systems is not None:
            async with self._connections.lend() as connection:
                await self._systems.begin(connection)
        await self.refresh(max_age_s=0.0)
        self._task = asyncio.create_task(self._watch(), name="fhir-registry")

    async def stop(self) -> None:
        """End watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ready(self, *, needed: bool = True) -> None:
        """Put the registry in force for this request, not older than a second.

        Parameters
        ----------
        needed : False when an older one will do while the database is away

        Raises
        ------
        UpstreamError
            The database is away.
        """
        parameters.activate(self.registry)
        if time.monotonic() - self._checked > MAX_AGE_S or time.monotonic() < self._suspect_until:
            with contextlib.nullcontext() if needed else contextlib.suppress(UpstreamError):
                await self.refresh(max_age_s=0.0)

    def suspect(self) -> None:
        """Look at every request for a while: this process is about to commit a change, whose author goes on at once."""
        self._suspect_until = time.monotonic() + _SUSPECT_S

    async def refresh(self, *, max_age_s: float = MAX_AGE_S) -> None:
        """Ask for the version and load what has changed."""
        async with self._lock:
            if time.monotonic() - self._checked <= max_age_s:
                return
            began = time.monotonic()
            async with self._connections.lend() as connection:
                await self.load(connection)
            self._checked = began

    async def load(self, connection: Any) -> None:
        """Load the registry when its version is another; what changes in between is loaded by the next look."""
        record = await connection.fetchrow(
            "SELECT version, (SELECT value FROM fhir.setting WHERE name = 'rebuilding') AS rebuilding"
            " FROM fhir.registry"
        )
        if record["version"] == self.registry.version:
            return
        rebuilding = _types_of(record["rebuilding"])
        custom = [
            parameter
            for identity, state, definition in await in_force(connection)
            for parameter in definition.parameters(identity, incomplete=state == "building")
        ]
        if self._systems is not None:  # Before the version: who writes under it has to seal what it says.
            sealing = await self._systems.load(connection)
            self.registry.sealing, self.registry.blind = sealing, sealing.blind
        self.registry.replace(custom, record["version"], rebuilding)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(MAX_AGE_S)
            with contextlib.suppress(UpstreamError):  # Away: nothing is written either.
                await self.refresh()
