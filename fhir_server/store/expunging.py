"""Remove deleted resources and previous versions for good: rows, history and what the index still holds."""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_server.store import legal_holds
from fhir_server.store.legal_holds import UNHELD

_DELETED = f"""
SELECT row, type, id FROM fhir.resource r
WHERE type = $1 AND ($2::bigint IS NULL OR key = $2) AND content IS NULL AND {UNHELD}
ORDER BY updated, row LIMIT $3 FOR UPDATE
"""
_PREVIOUS = f"""
DELETE FROM fhir.history h USING (
    SELECT h.row, h.version, h.type, h.id FROM fhir.history h JOIN fhir.resource r ON r.row = h.row
    WHERE h.type = $1 AND ($2::bigint IS NULL OR r.key = $2) AND {UNHELD}
    ORDER BY h.updated, h.row, h.version LIMIT $3 FOR UPDATE OF r
) o WHERE h.row = o.row AND h.version = o.version RETURNING o.type || '/' || o.id
"""


@dataclass(frozen=True, slots=True)
class Removed:
    """What is gone: how many versions, and of which resources (`Type/id`, sorted)."""

    versions: int
    references: list[str]


async def exists(connection: Any, key: int) -> bool:
    """Whether there is a resource, deleted or not, with this key."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM fhir.resource WHERE key = $1)", key))


async def expunge(
    connection: Any, resource_type: str, key: int | None, *, deleted: bool, previous: bool, limit: int
) -> Removed:
    """Remove up to `limit` versions; call it inside a transaction.

    Parameters
    ----------
    key : one resource, or None for all of the type
    deleted : resources whose current version is a deletion, with all their versions (each counts as it is removed)
    previous : versions that were replaced

    Raises
    ------
    ConflictError
        409: a legal hold keeps the one resource that is named. Of a type, what is held stays.
    """
    await legal_holds.lock_removal(connection)
    if key is not None:
        patients = await connection.fetchval("SELECT patients FROM fhir.resource WHERE key = $1", key)
        await legal_holds.check(connection, key, patients or ())
    versions, references = 0, set()
    if deleted:
        found = await connection.fetch(_DELETED, resource_type, key, limit)
        rows = [record["row"] for record in found]
        references |= {f"{record['type']}/{record['id']}" for record in found}
        versions += await remove(connection, rows)
    if previous and versions < limit:
        records = await connection.fetch(_PREVIOUS, resource_type, key, limit - versions)
        versions += len(records)
        references |= {record[0] for record in records}
    return Removed(versions, sorted(references))


async def remove(connection: Any, rows: list[int]) -> int:
    """Remove resources; a deletion took their postings away already, the tables keyed by row are swept again."""
    if not rows:
        return 0
    history = await connection.fetch("DELETE FROM fhir.history WHERE row = ANY($1) RETURNING version", rows)
    for table in await _index_tables(connection):
        await connection.execute(f"DELETE FROM fhir.{table} WHERE row = ANY($1)", rows)
    await connection.execute("DELETE FROM fhir.resource WHERE row = ANY($1)", rows)
    return len(rows) + len(history)


async def _index_tables(connection: Any) -> list[str]:
    """Tables of the schema whose primary key begins with `row`, other than the record itself."""
    records = await connection.fetch(
        """SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
           WHERE n.nspname = 'fhir' AND i.indisprimary AND a.attname = 'row' AND c.relkind IN ('r', 'p')
             AND c.relname NOT IN ('resource', 'history') ORDER BY 1"""
    )
    return [record[0] for record in records]
