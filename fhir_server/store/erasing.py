"""Find and remove everything of one person: rows, versions, index entries; whatever only the bytes tell (ADR 0028).

The search index knows newest versions only, so the record is walked row by row: what lies, or once lay, in the person's
compartment, and what holds the person's reference anywhere. That is one pass over the tables, in segments.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fhir_server.search.hashing import resource_key
from fhir_server.store import expunging
from fhir_server.store.changes import Change, Stored, deletion
from fhir_server.store.rows import RowNumbers
from fhir_server.store.sealed_content import opened, opened_with_values, sealed
from fhir_server.store.writing import write_changes

_COLUMNS = "row, type, id, version, updated, method, content, patients"
_TABLES = ("resource", "history")
_KEPT = "AuditEvent"
_START = -(2**63)
_SEGMENT = """
SELECT max(row) AS last, count(*) AS size FROM (SELECT row FROM fhir.{0} WHERE row > $1 ORDER BY row LIMIT $2) s
"""
_MEMBERS = f"""
SELECT {_COLUMNS} FROM fhir.{{0}} WHERE row > $1 AND row <= $2 AND type <> '{_KEPT}' AND ($3 = ANY(patients) OR EXISTS (
    SELECT FROM unnest($4::bytea[]) AS n(needle) WHERE position(n.needle IN content) > 0)) ORDER BY row, version
"""

_COUNT = (
    f"SELECT count(*) FROM fhir.{{0}} WHERE type <> '{_KEPT}' AND $1 = ANY(patients) AND NOT row = ANY($2::bigint[])"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A version that the walk met; `is_current` says whether it is the newest."""

    stored: Stored
    is_current: bool


def _stored(record: Any) -> Stored:
    row, resource_type, logical_id, version, updated, method, content, patients = tuple(record)[:8]
    content, sealed = opened_with_values(content, resource_type, logical_id)
    return Stored(row, resource_type, logical_id, version, updated, method, content, tuple(patients), sealed)


async def walk(
    connection: Any, key: int, needles: list[bytes], *, segment: int = 20_000
) -> AsyncIterator[tuple[list[Found], int]]:
    """Yield, segment by segment, the versions that lie in a patient's compartment or hold one of the needles.

    Yields pairs: what was found (AuditEvents are left out), and how many rows were looked at.

    Parameters
    ----------
    key : of the Patient
    needles : bytes that are looked for in every content
    """
    for table in _TABLES:
        after = _START
        while True:
            bound = await connection.fetchrow(_SEGMENT.format(table), after, segment)
            if bound["last"] is None:
                break
            records = await connection.fetch(_MEMBERS.format(table), after, bound["last"], key, needles)
            yield [Found(_stored(record), table == "resource") for record in records], bound["size"]
            after = bound["last"]


async def size(connection: Any) -> int:
    """Return about how many rows a walk looks at."""
    found = await connection.fetchval(
        "SELECT sum(greatest(reltuples, 0)) FROM pg_class WHERE oid IN ('fhir.resource'::regclass,"
        " 'fhir.history'::regclass)"
    )
    return int(found or 0)


async def lock_rows(connection: Any, rows: list[int]) -> list[Stored]:
    """Lock resources against writers; returns those that are still there."""
    records = await connection.fetch(
        f"SELECT {_COLUMNS} FROM fhir.resource WHERE row = ANY($1) ORDER BY key FOR UPDATE", rows
    )
    return [_stored(record) for record in records]


async def remove(connection: Any, numbers: RowNumbers, stored: list[Stored], own_url: str) -> int:
    """Remove locked resources with all their versions and index entries; returns how many versions. In a transaction.

    A deletion takes the entries out of the index first; then the deletion itself goes.
    """
    present = [item for item in stored if not item.is_deleted]
    now = datetime.now(UTC)
    changes: list[Change] = [deletion(item, updated=now) for item in present]
    await write_changes(connection, numbers, changes, own_url)
    removed = await expunging.remove(connection, [item.row for item in stored])
    return removed - len(present)


async def remove_versions(connection: Any, versions: list[tuple[int, int]]) -> int:
    """Remove earlier versions by (row, version); returns how many."""
    if not versions:
        return 0
    records = await connection.fetch(
        "DELETE FROM fhir.history h USING unnest($1::bigint[], $2::integer[]) AS o(row, version)"
        " WHERE h.row = o.row AND h.version = o.version RETURNING h.row",
        [row for row, _ in versions],
        [version for _, version in versions],
    )
    return len(records)


async def rewrite_version(connection: Any, row: int, version: int, content: bytes) -> None:
    """Put other bytes in the place of an earlier version."""
    names = await connection.fetchrow("SELECT type, id FROM fhir.resource WHERE row = $1", row)
    await connection.execute(
        "UPDATE fhir.history SET content = $3 WHERE row = $1 AND version = $2",
        row,
        version,
        sealed(content, names["type"], names["id"]),
    )


async def sweep_words(connection: Any) -> None:
    """Remove words of the full-text index whose resource is gone."""
    await connection.execute(
        "DELETE FROM fhir.full_text f WHERE NOT EXISTS (SELECT FROM fhir.resource r WHERE r.row = f.row)"
    )


async def count_events(connection: Any, key: int) -> int:
    """Return how many AuditEvents are in the person's record; they stay."""
    found = await connection.fetchval(
        f"SELECT count(*) FROM fhir.resource WHERE type = '{_KEPT}' AND $1 = ANY(patients)", key
    )
    return int(found)


async def count_versions(connection: Any, rows: list[int]) -> int:
    """Return how many versions these resources have, the newest and the earlier ones."""
    found = await connection.fetchval(
        "SELECT (SELECT count(*) FROM fhir.resource WHERE row = ANY($1))"
        " + (SELECT count(*) FROM fhir.history WHERE row = ANY($1))",
        rows,
    )
    return int(found)


async def binaries_in(connection: Any, keys: list[int]) -> list[str]:
    """Return ids of the Binaries whose securityContext names one of these resources."""
    records = await connection.fetch(
        "SELECT id FROM fhir.resource WHERE type = 'Binary' AND patients && $1::bigint[] ORDER BY id", keys
    )
    return [record["id"] for record in records]


async def binaries_of_others(connection: Any, ids: list[str], rows: list[int]) -> set[str]:
    """Return those of the Binaries that a resource outside these rows refers to; a Provenance or audit does not count.

    A Binary that names its own context belongs to that.
    """
    records = await connection.fetch(
        "SELECT DISTINCT m[1] FROM fhir.resource r,"
        " regexp_matches(convert_from(r.content, 'UTF8'), 'Binary/([A-Za-z0-9.-]{1,64})', 'g') m"
        " WHERE r.type NOT IN ('AuditEvent', 'Provenance', 'Binary') AND NOT r.row = ANY($2::bigint[])"
        " AND position('Binary/'::bytea IN r.content) > 0 AND m[1] = ANY($1::text[])",
        ids,
        rows,
    )
    contexts = await connection.fetch(
        "SELECT id FROM fhir.resource WHERE key = ANY($1::bigint[]) AND cardinality(patients) > 0",
        [resource_key("Binary", logical_id) for logical_id in ids],
    )
    return {record[0] for record in (*records, *contexts)}


async def rows_of(connection: Any, keys: list[int]) -> dict[int, str]:
    """Return resources by key: row number → `Type/id`."""
    records = await connection.fetch(
        "SELECT row, type || '/' || id AS reference FROM fhir.resource WHERE key = ANY($1)", keys
    )
    return {record["row"]: record["reference"] for record in records}


async def versions_of(
    connection: Any, resource_type: str, posting: int, after: tuple[int, int], limit: int
) -> list[Stored]:
    """Return earlier versions of what has this index entry, in the order of (row, version)."""
    records = await connection.fetch(
        "SELECT h.row, h.type, h.id, h.version, h.updated, h.method, h.content, h.patients FROM fhir.history h"
        " WHERE h.row IN (SELECT p.row FROM fhir.posting p WHERE p.hash = $1) AND h.type = $2"
        " AND (h.row, h.version) > ($3, $4) AND h.content IS NOT NULL ORDER BY h.row, h.version LIMIT $5",
        posting,
        resource_type,
        *after,
        limit,
    )
    return [_stored(record) for record in records]


async def present(connection: Any, key: int, but: list[int]) -> int:
    """Return how many versions of a person's compartment there are; AuditEvents do not count.

    Parameters
    ----------
    but : rows that do not count either
    """
    found = await connection.fetchval(
        f"SELECT ({_COUNT.format('resource')}) + ({_COUNT.format('history')})",
        key,
        but,
    )
    return int(found)


async def version_content(connection: Any, row: int, version: int) -> bytes | None:
    """Return the bytes of an earlier version, locked; None when it is gone or a deletion."""
    found = await connection.fetchrow(
        "SELECT type, id, content FROM fhir.history WHERE row = $1 AND version = $2 FOR UPDATE", row, version
    )
    return None if found is None else opened(found["content"], found["type"], found["id"])
