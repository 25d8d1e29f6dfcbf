"""Write changes: all rows of a transaction with a handful of statements, whatever its size.

Nothing here decides; `Change` says what, this says how. Arrays go in, one statement a table.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from typing import Any

import asyncpg

from fhir_server.search.values import IndexValues
from fhir_server.store import audit_chain
from fhir_server.store.changes import Change, old_values
from fhir_server.store.rows import RowNumbers, place
from fhir_server.store.sealed_content import sealed

_NEW_ROWS = """resources AS (
    INSERT INTO fhir.resource (row, key, type, id, version, updated, method, present, low, high, patients, content)
    SELECT r, k, t, i, v, u, m, p, l, h, coalesce(string_to_array(nullif(s, ''), ',')::bigint[], '{}'), c
    FROM unnest($1::text::bigint[], $2::text::bigint[], $3::text::text[], $4::text::text[], $5::text::integer[],
                $6::text::timestamptz[], $7::text::text[], $8::text::bigint[], $9::text::bigint[], $10::text::bigint[],
                $11::text::text[], $12::bytea[]) AS n(r, k, t, i, v, u, m, p, l, h, s, c)
)"""
_NEW_VALUES = """dates AS (
    INSERT INTO fhir.date_value (row, path, low, high) SELECT * FROM unnest($17::text::bigint[], $18::text::bigint[],
        $19::text::bigint[], $20::text::bigint[])
), strings AS (
    INSERT INTO fhir.string_value (row, path, value)
    SELECT * FROM unnest($21::text::bigint[], $22::text::bigint[], $23::text[])
), numbers AS (
    INSERT INTO fhir.number_value (row, path, low, high) SELECT * FROM unnest($24::text::bigint[],
        $25::text::bigint[], $26::text::double precision[], $27::text::double precision[]) ORDER BY 2, 3
), audit AS (
    INSERT INTO fhir.audit_log (records, count) SELECT $28::bytea, $29::integer WHERE $29::integer > 0
)"""
_NEW_POSTINGS = """INSERT INTO fhir.posting (hash, low, row, high)
SELECT h, n.l, n.r, n.e FROM unnest($13::text::text[], $14::text::bigint[], $15::text::bigint[], $16::text::bigint[])
    AS n(hashes, l, r, e), unnest(n.hashes::bigint[]) AS h"""
# True while the registry of search parameters is the one that the values were found by (or was changed by this very
# transaction); else the statement fails, for it divides by zero: entries of a parameter that came in between would be
# missing for ever (ADR 0015).
_KNOWN = (
    "(SELECT 1 / (version = coalesce({0}::bigint, version)"
    " OR version::text = coalesce(current_setting('foramen.registry', true), ''))::integer FROM fhir.registry) = 1"
)
_KNOWN_NEW, _KNOWN_REPLACED = _KNOWN.format("$30"), _KNOWN.format("$53")
_INSERT = f"WITH {_NEW_ROWS}, {_NEW_VALUES} {_NEW_POSTINGS} WHERE {_KNOWN_NEW} ORDER BY 1, 2, 3"
# The version that is replaced goes from the update straight into the history. What an update deletes and inserts in one
# table differs in its key, but for postings: those of a resource whose main date ends at another time have the old key,
# so all that go are gone (counted) before one is inserted.
_REPLACE = f"""WITH replaced AS (
    UPDATE fhir.resource SET version = n.v, updated = n.u, method = n.m, present = n.p,
        low = n.l, high = n.h, patients = coalesce(string_to_array(nullif(n.s, ''), ',')::bigint[], '{{}}'),
        content = n.c
    FROM unnest($30::text::bigint[], $31::text::integer[], $32::text::timestamptz[], $33::text::text[],
        $34::text::bigint[], $35::text::bigint[], $36::text::bigint[], $37::text::text[], $38::bytea[])
        AS n(r, v, u, m, p, l, h, s, c)
    WHERE resource.row = n.r
    RETURNING old.row, old.version, old.type, old.id, old.updated, old.method, old.patients, old.content
), history AS (
    INSERT INTO fhir.history (row, version, type, id, updated, method, patients, content) SELECT * FROM replaced
), gone AS (
    DELETE FROM fhir.posting USING (
        SELECT h, n.l, n.r FROM unnest($39::text::text[], $40::text::bigint[], $41::text::bigint[]) AS n(hashes, l, r),
        unnest(n.hashes::bigint[]) AS h) o
    WHERE posting.hash = o.h AND posting.low = o.l AND posting.row = o.r
    RETURNING 1
), old_dates AS (
    DELETE FROM fhir.date_value v USING unnest($42::text::bigint[], $43::text::bigint[], $44::text::bigint[],
        $45::text::bigint[]) AS o(r, p, l, h) WHERE v.row = o.r AND v.path = o.p AND v.low = o.l AND v.high = o.h
), old_strings AS (
    DELETE FROM fhir.string_value v USING unnest($46::text::bigint[], $47::text::bigint[], $48::text[]) AS o(r, p, t)
    WHERE v.row = o.r AND v.path = o.p AND v.value = o.t
), old_numbers AS (
    DELETE FROM fhir.number_value v USING unnest($49::text::bigint[], $50::text::bigint[],
        $51::text::double precision[], $52::text::double precision[]) AS o(r, p, l, h)
    WHERE v.row = o.r AND v.path = o.p AND v.low = o.l AND v.high = o.h
), {_NEW_ROWS}, {_NEW_VALUES}
{_NEW_POSTINGS} WHERE (SELECT count(*) FROM gone) >= 0 AND {_KNOWN_REPLACED} ORDER BY 1, 2, 3"""

Column = list[Any]
Number = tuple[int, float, float]
_NO_VALUES = IndexValues()


def _numbers(values: Column) -> str:
    """Write numbers as PostgreSQL reads an array; asyncpg would look at each element and encode it by itself."""
    return "{" + str(values)[1:-1] + "}"


def _quoted(values: Column) -> str:
    """Write texts of ours (types, ids, lists of numbers), which hold neither quotes nor backslashes."""
    return '{"' + '","'.join(values) + '"}' if values else "{}"


class IndexRows:
    """Columns of the index tables, filled value by value."""

    def __init__(self) -> None:
        self.postings: tuple[Column, Column, Column, Column] = ([], [], [], [])
        self.dates: tuple[Column, Column, Column, Column] = ([], [], [], [])
        self.strings: tuple[Column, Column, Column] = ([], [], [])
        self.numbers: tuple[Column, Column, Column, Column] = ([], [], [], [])

    def add_postings(self, row: int, hashes: set[int], low: int, high: int) -> None:
        """Add the exact values of one resource: all its hashes travel as one text, ``{1, 2, 3}``."""
        if hashes:
            texts, lows, rows, highs = self.postings
            texts.append(str(hashes))
            lows.append(low)
            rows.append(row)
            highs.append(high)

    def add_values(
        self, row: int, dates: set[tuple[int, int, int]], strings: set[tuple[int, str]], numbers: set[Number]
    ) -> None:
        """Add what is compared by range."""
        for table, found in ((self.dates, dates), (self.numbers, numbers)):
            if found:
                rows, paths, lows, highs = table
                rows.extend([row] * len(found))
                for path, low, high in found:
                    paths.append(path)
                    lows.append(low)
                    highs.append(high)
        for path, text in strings:
            self.strings[0].append(row)
            self.strings[1].append(path)
            self.strings[2].append(text)

    def columns(self) -> list[Any]:
        """All columns as the statement takes them: postings, then `value_columns`."""
        texts, *rest = self.postings
        return [_quoted(texts), *map(_numbers, rest), *self.value_columns()]

    def value_columns(self) -> list[Any]:
        """Dates, strings and numbers as a statement takes them."""
        rows, paths, texts = self.strings
        return [*map(_numbers, self.dates), _numbers(rows), _numbers(paths), texts, *map(_numbers, self.numbers)]


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
    asyncpg.SerializationError
        Other search parameters are in force by now; the caller loads them and decides again.
    """
    known = min((change.registry for change in changes if change.registry is not None), default=None)
    # In the order of their keys: two writers then meet in the unique index in the same order and cannot deadlock.
    created = sorted((change for change in changes if change.previous is None), key=_key)
    events = [change for change in created if change.resource_type == audit_chain.EVENT]
    if events and not connection.is_in_transaction():
        async with connection.transaction():
            await write_changes(connection, rows, changes, own_url, audit)
        return
    replaced = [change for change in changes if change.previous is not None]
    numbers = await rows.take(connection, len(created))
    index = IndexRows()
    for change, number in zip(created, numbers, strict=True):
        change.row = place(number, change.patient_keys[0] if change.patient_keys else change.key)
        if change.values is not None:
            index.add_postings(change.row, change.values.postings, change.values.low, change.values.high)
            index.add_values(change.row, change.values.dates, change.values.strings, change.values.numbers)
    gone = _replaced(replaced, index, own_url) if replaced else []
    text = _REPLACE if replaced else _INSERT
    try:
        await connection.execute(text, *_new_rows(created), *index.columns(), *audit, *gone, known)
    except asyncpg.DivisionByZeroError as exc:
        raise asyncpg.SerializationError("the search parameters changed") from exc
    if events:
        await audit_chain.add_unsealed(connection, events)


def _key(change: Change) -> int:
    return change.key


def _summary(changes: list[Change]) -> list[str]:
    values = [change.values or _NO_VALUES for change in changes]
    return [
        _numbers([v.present for v in values]),
        _numbers([v.low for v in values]),
        _numbers([v.high for v in values]),
        _quoted([",".join(map(str, change.patient_keys)) for change in changes]),
    ]


def _version(changes: list[Change]) -> list[str]:
    return [
        _numbers([change.version for change in changes]),
        _quoted([change.updated.isoformat() for change in changes]),
        _quoted([change.method for change in changes]),
        *_summary(changes),
    ]


def _new_rows(changes: list[Change]) -> list[Any]:
    return [
        _numbers([change.row for change in changes]),
        _numbers([change.key for change in changes]),
        _quoted([change.resource_type for change in changes]),
        _quoted([change.logical_id for change in changes]),
        *_version(changes),
        [sealed(change.content, change.resource_type, change.logical_id) for change in changes],
    ]


def _replaced(changes: list[Change], index: IndexRows, own_url: str) -> list[Any]:
    """Columns of what replaces a version and of what goes from the index; what comes is added to `index`."""
    gone = IndexRows()
    for change in changes:
        _difference(change, index, gone, own_url)
    texts, lows, rows, _ = gone.postings
    return [
        _numbers([change.row for change in changes]),
        *_version(changes),
        [sealed(change.content, change.resource_type, change.logical_id) for change in changes],
        _quoted(texts),
        _numbers(lows),
        _numbers(rows),
        *gone.value_columns(),
    ]


def _difference(change: Change, index: IndexRows, gone: IndexRows, own_url: str) -> None:
    """Collect only what changed: most updates touch a status and leave the rest of the index alone."""
    previous = change.previous
    assert previous is not None  # noqa: S101
    before = _NO_VALUES if previous.is_deleted else old_values(previous, own_url, change.old)
    after = change.values or _NO_VALUES
    same_date = (before.low, before.high) == (after.low, after.high)
    gone.add_postings(
        change.row, before.postings - after.postings if same_date else before.postings, before.low, before.high
    )
    index.add_postings(
        change.row, after.postings - before.postings if same_date else after.postings, after.low, after.high
    )
    gone.add_values(
        change.row, before.dates - after.dates, before.strings - after.strings, before.numbers - after.numbers
    )
    index.add_values(
        change.row, after.dates - before.dates, after.strings - before.strings, after.numbers - before.numbers
    )
