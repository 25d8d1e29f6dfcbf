"""Write changes: all rows of a transaction with a handful of statements, whatever its size.

Nothing here decides; `Change` says what, this says how. Arrays go in, one statement a table.
"""

from __future__ import annotations

from typing import Any

from fhir_server.search.values import IndexValues
from fhir_server.store.changes import Change, old_values
from fhir_server.store.rows import RowNumbers, place

_INSERT = """
WITH resources AS (
    INSERT INTO fhir.resource (row, key, type, id, version, updated, method, present, low, high, patients, content)
    SELECT r, k, t, i, v, u, m, p, l, h, coalesce(string_to_array(nullif(s, ''), ',')::bigint[], '{}'), c
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[], $7::text[],
                $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::bytea[])
        AS n(r, k, t, i, v, u, m, p, l, h, s, c)
), dates AS (
    INSERT INTO fhir.date_value (row, path, low, high) SELECT * FROM unnest($17::bigint[], $18::bigint[],
        $19::bigint[], $20::bigint[])
), strings AS (
    INSERT INTO fhir.string_value (row, path, value) SELECT * FROM unnest($21::bigint[], $22::bigint[], $23::text[])
), numbers AS (
    INSERT INTO fhir.number_value (row, path, low, high) SELECT * FROM unnest($24::bigint[], $25::bigint[],
        $26::double precision[], $27::double precision[])
), audit AS (
    INSERT INTO fhir.audit_log (records, count) SELECT $28::bytea, $29::integer WHERE $29::integer > 0
)
INSERT INTO fhir.posting (hash, low, row, high)
SELECT h, n.l, n.r, n.e FROM unnest($13::text[], $14::bigint[], $15::bigint[], $16::bigint[]) AS n(hashes, l, r, e),
    unnest(n.hashes::bigint[]) AS h ORDER BY 1, 2, 3
"""
_HISTORY = """
INSERT INTO fhir.history (row, version, type, id, updated, method, patients, content)
SELECT row, version, type, id, updated, method, patients, content FROM fhir.resource WHERE row = ANY($1)
"""
_UPDATE = """
UPDATE fhir.resource SET version = n.v, updated = n.u, method = n.m, present = n.p,
    low = n.l, high = n.h, patients = coalesce(string_to_array(nullif(n.s, ''), ',')::bigint[], '{}'), content = n.c
FROM unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::text[], $5::bigint[], $6::bigint[],
    $7::bigint[], $8::text[], $9::bytea[]) AS n(r, v, u, m, p, l, h, s, c)
WHERE resource.row = n.r
"""
_DELETE_POSTINGS = """
DELETE FROM fhir.posting USING (
    SELECT h, n.l, n.r FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n(hashes, l, r),
    unnest(n.hashes::bigint[]) AS h) o
WHERE posting.hash = o.h AND posting.low = o.l AND posting.row = o.r
"""
_DELETE_VALUES = """
WITH dates AS (DELETE FROM fhir.date_value WHERE row = ANY($1)),
     strings AS (DELETE FROM fhir.string_value WHERE row = ANY($1))
DELETE FROM fhir.number_value WHERE row = ANY($1)
"""

Column = list[Any]
_NO_VALUES = IndexValues()


class IndexRows:
    """Columns of the index tables, filled value by value."""

    def __init__(self) -> None:
        self.postings: tuple[Column, Column, Column, Column] = ([], [], [], [])
        self.dates: tuple[Column, Column, Column, Column] = ([], [], [], [])
        self.strings: tuple[Column, Column, Column] = ([], [], [])
        self.numbers: tuple[Column, Column, Column, Column] = ([], [], [], [])

    def add_postings(self, row: int, hashes: set[int], low: int, high: int) -> None:
        """Add the exact values of one resource: all its hashes travel as one text, `{1, 2, 3}`.

        A Python set of integers is written just as PostgreSQL reads an array; asyncpg would look at each one.
        """
        if hashes:
            for column, value in zip(self.postings, (str(hashes), low, row, high), strict=True):
                column.append(value)

    def add_values(self, row: int, values: IndexValues) -> None:
        """Add what is compared by range."""
        for path, low, high in values.dates:
            for column, value in zip(self.dates, (row, path, low, high), strict=True):
                column.append(value)
        for path, text in values.strings:
            for column, item in zip(self.strings, (row, path, text), strict=True):
                column.append(item)
        for path, least, most in values.numbers:
            for column, number in zip(self.numbers, (row, path, least, most), strict=True):
                column.append(number)

    def columns(self) -> list[Column]:
        """All columns, in the order of the statement's parameters."""
        return [*self.postings, *self.dates, *self.strings, *self.numbers]


async def write_changes(
    connection: Any, rows: RowNumbers, changes: list[Change], own_url: str, audit: tuple[bytes, int] = (b"", 0)
) -> None:
    """Write all changes. Call it inside a transaction when any of them replaces a version.

    Parameters
    ----------
    audit : encoded audit records that are committed with the changes they tell of, and their number

    Raises
    ------
    asyncpg.UniqueViolationError
        A new resource's id was taken in between; the caller decides again.
    """
    # In the order of their keys: two writers then meet in the unique index in the same order and cannot deadlock.
    created = sorted((change for change in changes if change.previous is None), key=_key)
    replaced = [change for change in changes if change.previous is not None]
    numbers = await rows.take(connection, len(created))
    index = IndexRows()
    for change, number in zip(created, numbers, strict=True):
        change.row = place(number, change.patient_keys[0] if change.patient_keys else change.key)
        if change.values is not None:
            index.add_postings(change.row, change.values.postings, change.values.low, change.values.high)
            index.add_values(change.row, change.values)
    if replaced:
        await _replace(connection, replaced, index, own_url)
    await connection.execute(_INSERT, *_new_rows(created), *index.columns(), *audit)


def _key(change: Change) -> int:
    return change.key


async def insert_index(connection: Any, index: IndexRows) -> None:
    """Write index entries alone."""
    await connection.execute(_INSERT, *_new_rows([]), *index.columns(), b"", 0)


def _summary(changes: list[Change]) -> list[Column]:
    values = [change.values or _NO_VALUES for change in changes]
    return [[v.present for v in values], [v.low for v in values], [v.high for v in values]]


def _patients(change: Change) -> str:
    return ",".join(map(str, change.patient_keys))


def _new_rows(changes: list[Change]) -> list[Column]:
    return [
        [change.row for change in changes],
        [change.key for change in changes],
        [change.resource_type for change in changes],
        [change.logical_id for change in changes],
        [change.version for change in changes],
        [change.updated for change in changes],
        [change.method for change in changes],
        *_summary(changes),
        [_patients(change) for change in changes],
        [change.content for change in changes],
    ]


async def _replace(connection: Any, changes: list[Change], index: IndexRows, own_url: str) -> None:
    row_numbers = [change.row for change in changes]
    await connection.execute(_HISTORY, row_numbers)
    await connection.execute(
        _UPDATE,
        row_numbers,
        [change.version for change in changes],
        [change.updated for change in changes],
        [change.method for change in changes],
        *_summary(changes),
        [_patients(change) for change in changes],
        [change.content for change in changes],
    )
    gone: tuple[Column, Column, Column] = ([], [], [])
    refilled: list[int] = []
    for change in changes:
        _difference(change, index, gone, refilled, own_url)
    if gone[0]:
        await connection.execute(_DELETE_POSTINGS, *gone)
    if refilled:
        await connection.execute(_DELETE_VALUES, refilled)


def _difference(
    change: Change, index: IndexRows, gone: tuple[Column, Column, Column], refilled: list[int], own_url: str
) -> None:
    """Add to the index only what changed: most updates touch a status and leave the rest alone."""
    previous = change.previous
    assert previous is not None  # noqa: S101
    before = IndexValues() if previous.is_deleted else old_values(previous, own_url)
    after = change.values or IndexValues()
    same_date = (before.low, before.high) == (after.low, after.high)
    removed = before.postings - after.postings if same_date else before.postings
    added = after.postings - before.postings if same_date else after.postings
    if removed:
        for column, value in zip(gone, (str(removed), before.low, change.row), strict=True):
            column.append(value)
    index.add_postings(change.row, added, after.low, after.high)
    if (before.dates, before.strings, before.numbers) != (after.dates, after.strings, after.numbers):
        refilled.append(change.row)
        index.add_values(change.row, after)
