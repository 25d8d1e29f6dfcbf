"""Seal again what the record holds sealed, with the key and cipher of now; for `foramen keys`, while servers work.

NIST SP 800-57 part 1 §5.3.6. Each segment is a transaction; content is replaced only if it is still what was read. What
is done shows in the content itself: an interrupted run goes on where it stopped. ADR 0032.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from fhir_server.search import parameters
from fhir_server.store import content_sealing, jobs, sealed_systems
from fhir_server.store.sealed_content import ContentSealing
from fhir_server.store.sealed_systems import KEY_PURPOSE, SealedSystems
from foramen.identity.sealing import DataKeys

Told = Callable[[int], None]
_SEGMENT = 5000
_PASSES = 5


@dataclass(slots=True)
class Resealed:
    """What a run did, by table: what is sealed again, and what no key opens (it stays as it is)."""

    done: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    left: int = 0


@asynccontextmanager
async def open_record(url: str, keys: DataKeys) -> AsyncIterator[tuple[Any, ContentSealing | None]]:
    """Open the record for a command: a connection, and what seals in it (None: nothing is sealed there yet)."""
    connection = await asyncpg.connect(url)
    try:
        yield connection, await put_in_force(connection, keys)
    finally:
        await connection.close()


async def put_in_force(connection: Any, keys: DataKeys) -> ContentSealing | None:
    """Let this process open what is sealed in the record; returns None when nothing is.

    Raises
    ------
    InteropError
        The data keys do not fit the record.
    """
    if await connection.fetchval("SELECT to_regclass('fhir.identifier_key')") is None:
        return None
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM fhir.identifier_key)"):
        return None
    sealing = await SealedSystems(keys, "SHA-256", ()).load(connection)
    registry = parameters.Registry()
    registry.sealing, registry.blind = sealing, sealing.blind
    parameters.activate(registry)
    return sealing


async def reseal_record(url: str, keys: DataKeys, told: Told = lambda seen: None) -> Resealed:
    """Seal everything again; `told` hears how many versions were looked at. What comes meanwhile, the next pass takes.

    Raises
    ------
    InteropError
        The data keys do not fit the record.
    UpstreamError
        They cannot be read now.
    """
    result, seen = Resealed(), 0
    async with open_record(url, keys) as (connection, sealing):
        for number in range(_PASSES if sealing is not None else 0):
            assert sealing is not None  # noqa: S101
            result.unreadable.clear()
            result.left = await _rest(connection, keys, result)
            for table in content_sealing.TABLES:
                after = content_sealing.START
                while True:
                    async with connection.transaction():
                        walked = await content_sealing.reseal_segment(connection, sealing, table, after, _SEGMENT)
                    if walked.last is None:
                        break
                    after, seen = walked.last, seen + walked.size
                    result.done[table] += walked.changed
                    result.unreadable[table] += walked.unreadable
                    result.left += walked.changed
                    told(seen)
            if not result.left and number:
                break
    return result


async def _rest(connection: Any, keys: DataKeys, result: Resealed) -> int:
    """Seal jobs and the key of the index again; returns how many."""
    async with connection.transaction():
        done, unreadable = await jobs.reseal(connection)
        result.done["job"] += done
        result.unreadable["job"] += unreadable
        was = await connection.fetchval("SELECT sealed FROM fhir.identifier_key FOR UPDATE")
        if keys.is_current(was):
            return done
        now = keys.seal(keys.unseal(was, KEY_PURPOSE), KEY_PURPOSE)
        await connection.execute("UPDATE fhir.identifier_key SET sealed = $1", now)
        result.done["identifier_key"] += 1
        return done + 1


async def sealed_by(url: str, key_id: str) -> int:
    """Count what a data key has sealed in the record."""
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('fhir.identifier_key')") is None:
            return 0
        return await content_sealing.sealed_by(connection, key_id)
    finally:
        await connection.close()


async def status(url: str) -> dict[str, Any]:
    """Return which systems are sealed, and how far the jobs are that seal what was there before."""
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('fhir.sealed_system')") is None:
            return {"systems": [], "jobs": []}
        found = await connection.fetch(
            "SELECT id, status, progress FROM fhir.job WHERE kind = 'seal-identifiers' ORDER BY submitted"
        )
        systems = await sealed_systems.states(connection)
        return {
            "systems": [{"system": name, "complete": complete} for name, complete in systems],
            "jobs": [dict(record) for record in found],
        }
    finally:
        await connection.close()
