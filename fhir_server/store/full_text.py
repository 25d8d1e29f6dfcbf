"""The full-text index: words of resources, written behind the record and caught up before a search that needs it.

While it is switched on, triggers note the rows that change, in the transaction that changes them; a background task,
and each search that looks at the index, reads them and writes their words. So a write costs one short row, and a search
sees every acknowledged write unless more wait than it may catch up itself; then its answer says so.
https://hl7.org/fhir/R4/search.html#content
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asyncpg
import orjson

from fhir_server.search.full_text import content_words, narrative_words
from fhir_server.search.parameters import registry
from fhir_server.store.connections import Connections
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

_LOCK = 0x464F5254  # "FORT": one reader of the queue at a time, so that an older version never replaces a newer one
_BATCH = 200
_MOST_BATCHES = 10
"""Batches that one search catches up at most."""
_PAUSE_S = 1.0
_EVENTS = (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD"))
_TAKE = """
DELETE FROM fhir.full_text_queue q USING (SELECT ctid FROM fhir.full_text_queue LIMIT $1) t WHERE q.ctid = t.ctid
RETURNING q.row
"""
_WRITE = """
INSERT INTO fhir.full_text (row, narrative, content)
SELECT r, array_to_tsvector(string_to_array(n, ' ')), array_to_tsvector(string_to_array(c, ' '))
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS w(r, n, c)
ON CONFLICT (row) DO UPDATE SET narrative = excluded.narrative, content = excluded.content
"""


async def switch(connections: Connections, *, on: bool) -> None:
    """Start or stop noting changes; what the record holds already is queued when it starts."""
    async with connections.lend() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        is_on = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'full_text_insert')")
        if is_on == on:
            return
        if not on:
            for event, _ in _EVENTS:
                await connection.execute(f"DROP TRIGGER full_text_{event} ON fhir.resource")
            await connection.execute("TRUNCATE fhir.full_text, fhir.full_text_queue")
            return
        await connection.execute("SET LOCAL statement_timeout = 0")
        for event, transition in _EVENTS:
            await connection.execute(
                f"CREATE TRIGGER full_text_{event} AFTER {event} ON fhir.resource REFERENCING {transition} TABLE AS"
                " changed FOR EACH STATEMENT EXECUTE FUNCTION fhir.full_text_changed()"
            )
        await connection.execute(
            "INSERT INTO fhir.full_text_queue SELECT row FROM fhir.resource WHERE content IS NOT NULL"
        )


async def catch_up(connections: Connections, batches: int = _MOST_BATCHES) -> bool:
    """Index what waits; returns whether some still does."""
    async with connections.lend() as connection:
        for _ in range(batches):
            if await _step(connection) < _BATCH:
                return False
    return True


async def _step(connection: Any) -> int:
    """Index one batch and return its size."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        taken = [record[0] for record in await connection.fetch(_TAKE, _BATCH)]
        if not taken:
            return 0
        records = await connection.fetch(
            "SELECT row, content FROM fhir.resource WHERE row = ANY($1) AND content IS NOT NULL", taken
        )
        columns: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for record in records:
            data = orjson.loads(record["content"])
            if (blind := registry().blind) is not None:  # Words would tell what is sealed.
                data = blind.hidden(data)
            for column, value in zip(
                columns,
                (record["row"], " ".join(narrative_words(data)), " ".join(content_words(data))),
                strict=True,
            ):
                column.append(value)
        gone = sorted(set(taken).difference(columns[0]))
        if gone:
            await connection.execute("DELETE FROM fhir.full_text WHERE row = ANY($1)", gone)
        if columns[0]:
            await connection.execute(_WRITE, *columns)
        return len(taken)


async def hold(connection: Any) -> None:
    """Let no batch be indexed until the transaction ends: what is removed in it is not written again."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


class FullTextIndexer:
    """Keeps the index up to date in the background."""

    def __init__(self, connections: Connections, *, on: bool) -> None:
        self._connections = connections
        self._on = on
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Switch the index on or off, as the settings say."""
        await switch(self._connections, on=self._on)
        if self._on:
            self._task = asyncio.create_task(self._run(), name="fhir-full-text")

    async def stop(self) -> None:
        """End the background work; what waits stays queued."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                more = await catch_up(self._connections, 1)
            except (UpstreamError, asyncpg.PostgresError):
                get_log().warning("the full-text index waits for the database")
                more = False
            await asyncio.sleep(0.02 if more else _PAUSE_S)
