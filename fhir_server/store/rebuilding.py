"""Bring the index of stored resources up to date, a batch at a time, while others read and write.

A batch is one transaction that locks its resources (in the order writers use), reads what the index holds of them, and
writes the difference to what their content says: what stays the same is never gone, not for a moment.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.search.custom import CustomExtractor
from fhir_server.search.hashing import hash64
from fhir_server.search.values import IndexValues
from fhir_server.store.changes import stored_values
from fhir_server.store.sealed_content import opened, opened_with_values

_TABLES = {
    "date_value": ("dates", ("path bigint", "low bigint", "high bigint")),
    "string_value": ("strings", ("path bigint", "value text")),
    "number_value": ("numbers", ("path bigint", "low double precision", "high double precision")),
}
_POSTING_BY_ROW = "posting_row"
_RECENT = "10 seconds"

Key = tuple[int, int, int]
"""One posting of a row: hash, low, high."""


async def open_row_index(connection: Any) -> None:
    """Make the index that finds a resource's postings, without keeping writers out; outside a transaction.

    It exists during a rebuild only: it would cost every write a tenth.
    """
    found = await connection.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", f"fhir.{_POSTING_BY_ROW}"
    )
    if found:
        return
    await connection.execute("SET statement_timeout = 0")
    if found is False:  # A killed build leaves one that is not valid.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS fhir.{_POSTING_BY_ROW}")
    await connection.execute(f"CREATE INDEX CONCURRENTLY {_POSTING_BY_ROW} ON fhir.posting (row)")


async def close_row_index(connection: Any) -> None:
    """Drop that index again; outside a transaction."""
    await connection.execute("SET statement_timeout = 0")
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS fhir.{_POSTING_BY_ROW}")


async def next_rows(connection: Any, resource_type: str, after: tuple[str, int] | None, limit: int) -> list[Any]:
    """Return (updated as text, row, recent) of the next resources of a type, oldest change first.

    A write moves a resource to the end of this order, and writes only what differs from the version before: one that
    the walk has not reached must still be reached, however often it is written. So a walk ends when it has caught up
    with the writers (fewer rows than `limit`), and does not rest among what was written just now (`recent`).
    """
    moment, row = after or ("-infinity", -(2**63))
    found: list[Any] = await connection.fetch(
        f"SELECT updated::text AS updated, row, updated > clock_timestamp() - interval '{_RECENT}' AS recent"
        " FROM fhir.resource WHERE type = $1 AND (resource.updated, row) > ($2::text::timestamptz, $3)"
        " ORDER BY resource.updated, resource.row LIMIT $4",  # The column, in the index; not the text of the same name.
        resource_type,
        moment,
        row,
        limit,
    )
    return found


async def count(connection: Any, types: list[str]) -> int:
    """Count the resources of these types."""
    return int(await connection.fetchval("SELECT count(*) FROM fhir.resource WHERE type = ANY($1)", types))


async def present_types(connection: Any) -> list[str]:
    """Return the types of which the record holds a resource; one index probe each."""
    records = await connection.fetch(
        "WITH RECURSIVE t AS ((SELECT type FROM fhir.resource ORDER BY type LIMIT 1) UNION ALL"
        " SELECT (SELECT r.type FROM fhir.resource r WHERE r.type > t.type ORDER BY r.type LIMIT 1)"
        " FROM t WHERE t.type IS NOT NULL) SELECT type FROM t WHERE type IS NOT NULL"
    )
    return [record["type"] for record in records]


async def writers_have_ended(connection: Any, transaction: int) -> bool:
    """Whether every transaction that was open when `transaction` was taken has ended."""
    return bool(
        await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8", str(transaction))
    )


async def current_transaction(connection: Any) -> int:
    """Take a transaction number: whatever begins to write later has a higher one."""
    return int(await connection.fetchval("SELECT pg_current_xact_id()::text"))


async def _lock(connection: Any, rows: list[int]) -> list[Any]:
    found: list[Any] = await connection.fetch(
        "SELECT row, type, id, present, low, high, patients, content FROM fhir.resource WHERE row = ANY($1)"
        " ORDER BY key FOR UPDATE",
        rows,
    )
    return found


async def rebuild(connection: Any, rows: list[int], own_url: str) -> int:
    """Write the difference between the index and the content of some resources; returns how many differed.

    Call it inside a transaction, with the row index open.
    """
    records = await _lock(connection, rows)
    wanted = {
        record["row"]: _values_of(record, own_url) if record["content"] is not None else IndexValues()
        for record in records
    }
    changed = await _postings(connection, rows, wanted)
    for table, (field, columns) in _TABLES.items():
        values = {row: getattr(found, field) for row, found in wanted.items()}
        changed |= await _values(connection, table, columns, values)
    changed |= await _summaries(connection, records, wanted)
    return len(changed)


def _values_of(record: Any, own_url: str) -> IndexValues:
    """Index values of what lies in the store; a national identifier that is not sealed yet has those without a key."""
    content, sealed = opened_with_values(record["content"], record["type"], record["id"])
    return stored_values(record["type"], orjson.loads(content or b"{}"), record["id"], own_url, sealed)


async def _postings(connection: Any, rows: list[int], wanted: dict[int, IndexValues]) -> set[int]:
    held: dict[int, set[Key]] = {row: set() for row in rows}
    for record in await connection.fetch("SELECT row, hash, low, high FROM fhir.posting WHERE row = ANY($1)", rows):
        held[record["row"]].add((record["hash"], record["low"], record["high"]))
    gone: list[tuple[int, int, int, int]] = []
    new: list[tuple[int, int, int, int]] = []
    for row, values in wanted.items():
        target = {(value, values.low, values.high) for value in values.postings}
        gone += [(*key, row) for key in held[row] - target]
        new += [(*key, row) for key in target - held[row]]
    if gone:
        await connection.execute(
            "DELETE FROM fhir.posting p USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o(h, l, r)"
            " WHERE p.hash = o.h AND p.low = o.l AND p.row = o.r",
            *_columns(gone, (0, 1, 3)),
        )
    await insert_postings(connection, new)
    return {item[3] for item in (*gone, *new)}


async def insert_postings(connection: Any, postings: list[tuple[int, int, int, int]]) -> None:
    """Add postings (hash, low, high, row); those that are there stay."""
    if postings:
        await connection.execute(
            "INSERT INTO fhir.posting (hash, low, high, row) SELECT * FROM unnest($1::bigint[], $2::bigint[],"
            " $3::bigint[], $4::bigint[]) AS n(h, l, e, r) ORDER BY h, l, r ON CONFLICT DO NOTHING",
            *_columns(postings, (0, 1, 2, 3)),
        )


def _columns(items: list[Any], places: tuple[int, ...]) -> list[list[Any]]:
    return [[item[place] for item in items] for place in places]


async def write_values(connection: Any, wanted: dict[int, IndexValues]) -> None:
    """Give resources these dates, strings and numbers instead of those that they have."""
    for table, (field, columns) in _TABLES.items():
        await _values(connection, table, columns, {row: getattr(found, field) for row, found in wanted.items()})


async def _values(connection: Any, table: str, columns: tuple[str, ...], wanted: dict[int, set[Any]]) -> set[int]:
    names = [column.split()[0] for column in columns]
    held: dict[int, set[Any]] = {row: set() for row in wanted}
    for record in await connection.fetch(
        f"SELECT row, {', '.join(names)} FROM fhir.{table} WHERE row = ANY($1)", list(wanted)
    ):
        held[record["row"]].add(tuple(record[name] for name in names))
    changed = {row for row, values in wanted.items() if values != held[row]}
    if changed:
        await connection.execute(f"DELETE FROM fhir.{table} WHERE row = ANY($1)", list(changed))
        await insert_values(connection, table, {row: wanted[row] for row in changed})
    return changed


async def insert_values(connection: Any, table: str, values: dict[int, set[Any]]) -> None:
    """Add what is compared by range: tuples of the table's columns, by row; those that are there stay."""
    items = [(row, *value) for row, found in values.items() for value in found]
    if not items:
        return
    columns = _TABLES[table][1]
    types = ["bigint", *(column.split(" ", 1)[1] for column in columns)]
    arrays = ", ".join(f"${number}::{name}[]" for number, name in enumerate(types, 1))
    names = ", ".join(["row", *(column.split()[0] for column in columns)])
    await connection.execute(
        f"INSERT INTO fhir.{table} ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING",
        *_columns(items, tuple(range(len(types)))),
    )


async def _summaries(connection: Any, records: list[Any], wanted: dict[int, IndexValues]) -> set[int]:
    """Write what the resource's own row keeps of the index; a deletion keeps its patients, for its history."""
    changed: list[tuple[int, int, int, int, str]] = []
    for record in records:
        values = wanted[record["row"]]
        patients = sorted(hash64(patient) for patient in values.patients)
        if record["content"] is None:
            continue
        now = (record["present"], record["low"], record["high"], list(record["patients"]))
        if now != (values.present, values.low, values.high, patients):
            text = ",".join(map(str, patients))
            changed.append((record["row"], values.present, values.low, values.high, text))
    if changed:
        await connection.execute(
            """UPDATE fhir.resource SET present = n.p, low = n.l, high = n.h,
               patients = coalesce(string_to_array(nullif(n.s, ''), ',')::bigint[], '{}')
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[]) AS n(r, p, l, h, s)
               WHERE resource.row = n.r""",
            *_columns(changed, (0, 1, 2, 3, 4)),
        )
    return {item[0] for item in changed}


async def add_parameter(connection: Any, rows: list[int], custom: CustomExtractor) -> int:
    """Index some resources by one custom parameter; returns how many have a value. Call it inside a transaction."""
    postings: list[tuple[int, int, int, int]] = []
    tables: dict[str, dict[int, set[Any]]] = {table: {} for table in _TABLES}
    found = 0
    for record in await _lock(connection, rows):
        if record["content"] is None:
            continue
        values = IndexValues()
        custom.extract(orjson.loads(opened(record["content"], record["type"], record["id"]) or b"{}"), values)
        found += bool(values.postings)
        postings += [(value, record["low"], record["high"], record["row"]) for value in values.postings]
        for table, (field, _) in _TABLES.items():
            tables[table][record["row"]] = getattr(values, field)
    await insert_postings(connection, postings)
    for table, by_row in tables.items():
        await insert_values(connection, table, by_row)
    return found


async def remove_parameter(connection: Any, rows: list[int], custom: CustomExtractor) -> int:
    """Take one custom parameter's entries of some resources out of the index. Call it inside a transaction."""
    postings: list[tuple[int, int, int]] = []
    paths: dict[str, list[tuple[int, int]]] = {table: [] for table in _TABLES}
    for record in await _lock(connection, rows):
        if record["content"] is None:
            continue
        values = IndexValues()
        custom.extract(orjson.loads(opened(record["content"], record["type"], record["id"]) or b"{}"), values)
        postings += [(value, record["low"], record["row"]) for value in values.postings]
        for table, (field, _) in _TABLES.items():
            paths[table] += [(record["row"], value[0]) for value in getattr(values, field)]
    await connection.execute(
        "DELETE FROM fhir.posting p USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o(h, l, r)"
        " WHERE p.hash = o.h AND p.low = o.l AND p.row = o.r",
        *_columns(postings, (0, 1, 2)),
    )
    for table, items in paths.items():
        if items:
            await connection.execute(
                f"DELETE FROM fhir.{table} v USING unnest($1::bigint[], $2::bigint[]) AS o(r, p)"
                " WHERE v.row = o.r AND v.path = o.p",
                *_columns(items, (0, 1)),
            )
    return len(postings)
