"""Seal stored content in place, segment by segment, while others read and write (ADR 0032).

Two walks: what lies there as it came and is to be sealed (with its index entries), and what another key has sealed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.search.values import IndexValues
from fhir_server.store import audit_chain
from fhir_server.store.changes import stored_values
from fhir_server.store.rebuilding import insert_postings, write_values
from fhir_server.store.sealed_content import MARKER, ContentSealing, opened, opened_with_values
from foramen.kernel.errors import InteropError, UpstreamError

TABLES = ("resource", "history")
START = -(2**63)
_BOUND = (
    "SELECT max(row) AS last, count(*) AS size FROM (SELECT row FROM fhir.{0} WHERE row > $1 ORDER BY row LIMIT $2) s"
)
_HOLDING = """SELECT row, version, type, id, low, high, content FROM (
    SELECT row, version, type, id, content, {1} FROM fhir.{0} WHERE row > $1 AND row <= $2 AND content IS NOT NULL) c
WHERE EXISTS (SELECT FROM unnest($3::bytea[]) AS n(needle) WHERE position(n.needle IN c.content) > 0)"""
_BOUNDS = {"resource": "low, high", "history": "0::bigint AS low, 0::bigint AS high"}
_REPLACE = "UPDATE fhir.{0} SET content = $3 WHERE row = $1 AND version = $2 AND content = $4"
_LOCK = (
    "SELECT row, version, type, id, low, high, content FROM fhir.resource WHERE row = ANY($1) ORDER BY key FOR UPDATE"
)


@dataclass(slots=True)
class Walked:
    """One segment: where it ends (None: there was nothing left), how many rows it has, what was done."""

    last: int | None
    size: int = 0
    changed: int = 0
    unreadable: int = 0


async def seal_segment(connection: Any, own: ContentSealing, table: str, after: int, size: int, own_url: str) -> Walked:
    """Seal what waits in one segment of a table. Inside a transaction of its own."""
    walked, found = await _holding(connection, table, after, size, list(own.blind.needles))
    waiting = [record for record in found if own.waits(record["content"])]
    if not waiting:
        return walked
    await audit_chain.allow_removal(connection)  # An event keeps its text; only the store holds it otherwise.
    if table == "resource":
        waiting = await connection.fetch(_LOCK, [record["row"] for record in waiting])
        waiting = [r for r in waiting if r["content"] is not None and own.waits(r["content"])]
    for record in waiting:
        content = opened(record["content"], record["type"], record["id"]) or b""
        text = own.seal(content, record["type"], record["id"])
        await connection.execute(_REPLACE.format(table), record["row"], record["version"], text, record["content"])
    if table == "resource":
        await _index(connection, waiting, own_url)
    walked.changed = len(waiting)
    return walked


async def _index(connection: Any, records: list[Any], own_url: str) -> None:
    """Write the difference between the index entries of what lay there as it came and those of what is sealed."""
    gone: list[tuple[int, int, int]] = []
    new: list[tuple[int, int, int, int]] = []
    values: dict[int, IndexValues] = {}
    for record in records:
        kind, name, row = record["type"], record["id"], record["row"]
        content, sealed = opened_with_values(record["content"], kind, name)
        data = orjson.loads(content or b"{}")
        before = stored_values(kind, data, name, own_url, sealed)
        values[row] = after = stored_values(kind, data, name, own_url, None)
        gone += [(value, record["low"], row) for value in before.postings - after.postings]
        new += [(value, record["low"], record["high"], row) for value in after.postings - before.postings]
    if gone:
        await connection.execute(
            "DELETE FROM fhir.posting p USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o(h, l, r)"
            " WHERE p.hash = o.h AND p.low = o.l AND p.row = o.r",
            *map(list, zip(*gone, strict=True)),
        )
    await insert_postings(connection, new)
    await write_values(connection, values)


async def reseal_segment(connection: Any, own: ContentSealing, table: str, after: int, size: int) -> Walked:
    """Seal again, with the key and cipher of now, what another has sealed. Inside a transaction of its own."""
    walked, found = await _holding(connection, table, after, size, [MARKER])
    old = [record for record in found if not own.is_sealed_now(record["content"])]
    if old:
        await audit_chain.allow_removal(connection)
    for record in old:
        try:
            plain = own.open(record["content"], record["type"], record["id"]).content
        except UpstreamError:  # The keys cannot be read now: that says nothing about the value.
            raise
        except InteropError:
            walked.unreadable += 1
            continue
        text = own.seal(plain, record["type"], record["id"])
        await connection.execute(_REPLACE.format(table), record["row"], record["version"], text, record["content"])
        walked.changed += 1
    return walked


async def _holding(
    connection: Any, table: str, after: int, size: int, needles: list[bytes]
) -> tuple[Walked, list[Any]]:
    bound = await connection.fetchrow(_BOUND.format(table), after, size)
    if bound["last"] is None:
        return Walked(None), []
    text = _HOLDING.format(table, _BOUNDS[table])
    return Walked(bound["last"], bound["size"]), await connection.fetch(text, after, bound["last"], needles)


async def sealed_by(connection: Any, key_id: str) -> int:
    """Count what a data key has sealed in the record: versions, jobs, the key of the index."""
    found = await connection.fetchval(
        "SELECT (SELECT count(*) FROM fhir.resource WHERE position($1::bytea IN content) > 0)"
        " + (SELECT count(*) FROM fhir.history WHERE position($1::bytea IN content) > 0)"
        " + (SELECT count(*) FROM fhir.job WHERE position($1::bytea IN request || state) > 0)"
        " + (SELECT count(*) FROM fhir.identifier_key WHERE position($2 IN sealed) > 0)",
        f":{key_id}:".encode(),
        f":{key_id}:",
    )
    return int(found)
