"""Statements of the operations that gather a record: `$everything`, `$lastn`, `$meta`; each over a selection.

A selection carries the caller's access as a condition, so access is decided before anything is ordered or cut.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from fhir_server.search.conditions import Selection
from fhir_server.search.dates import MISSING
from fhir_server.store.arranging import arrange
from fhir_server.store.changes import Stored
from fhir_server.store.query import SelectionQuery
from fhir_server.store.sealed_content import opened_with_values
from fhir_server.store.statement import Statement
from foramen.kernel.errors import InvalidRequestError

_COLUMNS = "r.row, r.type, r.id, r.version, r.updated, r.method, r.content, r.patients"
_JSON = "convert_from(r.content, 'UTF8')::json"


def _stored(record: Any) -> Stored:
    row, resource_type, logical_id, version, updated, method, content, patients = tuple(record)[:8]
    content, sealed = opened_with_values(content, resource_type, logical_id)
    return Stored(row, resource_type, logical_id, version, updated, method, content, tuple(patients), sealed)


async def present(connection: Any, hashes: Sequence[int]) -> set[int]:
    """Return those of the postings that some resource has."""
    records = await connection.fetch(
        "SELECT h FROM unnest($1::bigint[]) AS h WHERE EXISTS (SELECT FROM fhir.posting p WHERE p.hash = h)",
        list(hashes),
    )
    return {record["h"] for record in records}


async def in_row_order(
    connection: Any, selection: Selection, *, after: int, limit: int, period: tuple[int, int] | None = None
) -> list[Stored]:
    """Return matches in the order of their row numbers, which no update changes.

    Parameters
    ----------
    after : row number of the last match of the page before
    period : [from, to) in microseconds; matches whose main date lies outside are left out, those without one are kept
    """
    statement = Statement()
    query = SelectionQuery(await arrange(connection, selection), statement)
    driver = query.driver
    query.add(f"{driver}.row > {statement.value(after, 'bigint')}")
    if period is not None:
        begin, end = (statement.value(bound, "bigint") for bound in period)
        query.add(f"({driver}.low <= {MISSING} OR ({driver}.low < {end} AND {driver}.high > {begin}))")
    text = (
        f"SELECT {_COLUMNS} FROM (SELECT {driver}.row AS found {query.text()} ORDER BY {driver}.row"
        f" LIMIT {statement.value(limit, 'bigint')}) c JOIN fhir.resource r ON r.row = c.found ORDER BY r.row"
    )
    return [_stored(record) for record in await connection.fetch(text, *statement.arguments)]


async def newest_by_code(connection: Any, selection: Selection, *, most: int, limit: int) -> list[Stored]:
    """Return the newest `most` resources of each code (its first coding, else its text), newest first in each.

    Raises
    ------
    InvalidRequestError
        A search value that the database cannot use.
    """
    statement = Statement()
    query = SelectionQuery(await arrange(connection, selection), statement)
    driver = query.driver
    code = f"{_JSON} -> 'code'"
    text = (
        f"SELECT {_COLUMNS} FROM (SELECT m.row, m.low, m.code,"
        f" row_number() OVER (PARTITION BY m.code ORDER BY m.low DESC, m.row DESC) AS place"
        f" FROM (SELECT r.row, s.low, coalesce(({code} #>> '{{coding,0,system}}'), '') || '|' ||"
        f" coalesce(({code} #>> '{{coding,0,code}}'), ({code} ->> 'text'), '') AS code"
        f" FROM (SELECT {driver}.row, {driver}.low {query.text()}) s JOIN fhir.resource r ON r.row = s.row) m) n"
        f" JOIN fhir.resource r ON r.row = n.row WHERE n.place <= {statement.value(most, 'bigint')}"
        f" ORDER BY n.code, n.low DESC, n.row DESC LIMIT {statement.value(limit, 'bigint')}"
    )
    try:
        return [_stored(record) for record in await connection.fetch(text, *statement.arguments)]
    except asyncpg.DataError as exc:
        raise InvalidRequestError("A search value cannot be used", issue_code="value") from exc


async def labels(connection: Any, selection: Selection, *, limit: int) -> tuple[int, list[tuple[str, str]]] | None:
    """Return how many match, and their distinct profiles, tags and security labels as (element, JSON text).

    Returns None when there are more than `limit` matches, as each of them has to be read.
    """
    statement = Statement()
    query = SelectionQuery(await arrange(connection, selection), statement)
    matches = f"SELECT {query.driver}.row {query.text()} LIMIT {statement.value(limit + 1, 'bigint')}"
    count = await connection.fetchval(f"SELECT count(*) FROM ({matches}) c", *statement.arguments)
    if count > limit:
        return None
    text = (
        f"SELECT DISTINCT l.key, e.value::text FROM ({matches}) c JOIN fhir.resource r ON r.row = c.row,"
        f" json_each({_JSON} -> 'meta') AS l, json_array_elements("
        f"CASE WHEN l.key IN ('profile', 'security', 'tag') THEN l.value ELSE '[]' END) AS e"
    )
    return count, [(record[0], record[1]) for record in await connection.fetch(text, *statement.arguments)]
