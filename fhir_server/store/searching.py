"""Run parsed searches: one page of matches, a count, the resources that references name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from fhir_server.search.conditions import SearchRequest, Selection, SortKey, SortKind
from fhir_server.store.changes import Stored
from fhir_server.store.query import count_statement, page_statement
from foramen.kernel.errors import InvalidRequestError

NEWEST_FIRST = (SortKey(SortKind.MAIN_DATE, descending=True),)
"""The order without `_sort`: newest main date first, then newest row; the order in which the index lies."""


@dataclass(frozen=True, slots=True)
class Page:
    """Matches of one page and the sort keys of the last, when there are more."""

    matches: list[Stored]
    following: list[object] | None


def _stored(record: Any) -> Stored:
    return Stored(
        0,
        record["type"],
        record["id"],
        record["version"],
        record["updated"],
        "",
        record["content"],
        tuple(record["patients"]),
    )


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
    text, arguments = page_statement(request.selection, sort, request.cursor, request.count + 1)
    try:
        records = await connection.fetch(text, *arguments)
    except asyncpg.DataError as exc:
        raise InvalidRequestError("A search value or page link cannot be used", issue_code="value") from exc
    more = len(records) > request.count
    records = records[: request.count]
    following = [records[-1][f"k{number}"] for number in range(len(sort) + 1)] if more and records else None
    return Page([_stored(record) for record in records], following)


async def matches(connection: Any, selection: Selection, limit: int) -> list[Stored]:
    """Return up to `limit` matches (for conditional interactions)."""
    text, arguments = page_statement(selection, NEWEST_FIRST, None, limit)
    try:
        return [_stored(record) for record in await connection.fetch(text, *arguments)]
    except asyncpg.DataError as exc:
        raise InvalidRequestError("A search value cannot be used", issue_code="value") from exc


async def count(connection: Any, selection: Selection) -> int:
    """Count all matches."""
    text, arguments = count_statement(selection)
    try:
        return int(await connection.fetchval(text, *arguments))
    except asyncpg.DataError as exc:
        raise InvalidRequestError("A search value cannot be used", issue_code="value") from exc
