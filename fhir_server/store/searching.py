"""Run parsed searches: one page of matches, a count, the resources that references name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from fhir_server.search.conditions import SearchRequest, Selection, SortKey, SortKind
from fhir_server.store.arranging import arrange, arranged_at_once
from fhir_server.store.chain_pages import chain_question
from fhir_server.store.changes import Stored
from fhir_server.store.ordering import WITH_PATIENTS, page_statement
from fhir_server.store.page_shapes import PageQuestion, page_question
from fhir_server.store.query import SelectionQuery, count_statement
from fhir_server.store.sealed_content import opened
from fhir_server.store.sort_bounds import check_sort
from fhir_server.store.statement import Statement
from fhir_server.store.walking import unfollowed, walk
from foramen.kernel.errors import InvalidRequestError

NEWEST_FIRST = (SortKey(SortKind.MAIN_DATE, descending=True),)
"""The order without `_sort`: newest main date first, then newest row; the order in which the index lies."""
_COUNTED = 10_000
"""An estimated total is exact up to this number."""


@dataclass(frozen=True, slots=True)
class Page:
    """Matches of one page and the sort keys of the last, when there are more."""

    matches: list[Stored]
    following: list[object] | None


def stored_of(record: Any) -> Stored:
    """Return what one record of a page statement holds: its first six columns (ordering.py)."""
    resource_type, logical_id, version, updated, content, patients = record[:6]
    content = opened(content, resource_type, logical_id)
    return Stored(0, resource_type, logical_id, version, updated, "", content, tuple(patients or ()))


def _unusable(exc: asyncpg.DataError) -> InvalidRequestError:
    error = InvalidRequestError("A search value or page link cannot be used", issue_code="value")
    error.__cause__ = exc
    return error


def is_in_order(sort: tuple[SortKey, ...]) -> bool:
    """Whether the index lies in this order, so that reading may stop when the page is full."""
    return all(key.kind is SortKind.MAIN_DATE for key in sort)


def simple_page(request: SearchRequest) -> PageQuestion | None:
    """Return the first page as a question that can be asked together with others, or None if it is not that simple."""
    if request.cursor is not None or request.partition is not None:
        return None
    sort, limit = request.sort or NEWEST_FIRST, request.count + 1
    selection = arranged_at_once(request.selection, in_order=is_in_order(sort))
    if selection is None:
        return chain_question(request.selection, sort, limit)
    return page_question(selection, sort, limit)


async def page(connection: Any, request: SearchRequest) -> Page:
    """Return one page of matches.

    Raises
    ------
    InvalidRequestError
        The page link does not fit this search.
    """
    sort = request.sort or NEWEST_FIRST
    if request.cursor is not None and len(request.cursor) != len(sort) + 1:
        raise InvalidRequestError("The page link does not fit this search", issue_code="value")
    try:
        selection = await arrange(connection, request.selection, in_order=is_in_order(sort))
        if is_in_order(sort) and unfollowed(selection):
            records = await walk(connection, selection, sort, request.cursor, request.count + 1, request.partition)
        else:
            await check_sort(connection, selection, sort, request.most_sorted)
            text, arguments = page_statement(selection, sort, request.cursor, request.count + 1, request.partition)
            records = await connection.fetch(text, *arguments)
    except asyncpg.DataError as exc:
        raise _unusable(exc) from exc
    more = len(records) > request.count
    records = records[: request.count]
    following = [records[-1][f"k{number}"] for number in range(len(sort) + 1)] if more and records else None
    return Page([stored_of(record) for record in records], following)


async def matches(connection: Any, selection: Selection, limit: int) -> list[Stored]:
    """Return up to `limit` matches (for conditional interactions), newest first."""
    try:
        arranged = await arrange(connection, selection)
        text, arguments = page_statement(arranged, NEWEST_FIRST, None, limit, columns=WITH_PATIENTS)
        return [stored_of(record) for record in await connection.fetch(text, *arguments)]
    except asyncpg.DataError as exc:
        raise _unusable(exc) from exc


async def count(connection: Any, selection: Selection) -> int:
    """Count all matches."""
    try:
        text, arguments = count_statement(await arrange(connection, selection))
        return int(await connection.fetchval(text, *arguments))
    except asyncpg.DataError as exc:
        raise _unusable(exc) from exc


async def estimate(connection: Any, selection: Selection) -> int:
    """Return the number of matches: exact when it is small, else the planner's guess, which may be far off."""
    try:
        statement = Statement()
        query = SelectionQuery(await arrange(connection, selection), statement)
        limited = f"SELECT {query.text()} LIMIT {_COUNTED + 1}"
        found = int(await connection.fetchval(f"SELECT count(*) FROM ({limited}) n", *statement.arguments))  # noqa: S608 - our own text
        if found <= _COUNTED:
            return found
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT {query.text()}", *statement.arguments)
    except asyncpg.DataError as exc:
        raise _unusable(exc) from exc
    rows = (orjson.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"]
    return max(found, int(rows))
