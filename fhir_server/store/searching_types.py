"""Search several types as one: each type's page as its own search would give it, merged in one order by one statement.

Every branch stops at the page's size and reads its index in the order of the answer, so a page costs what the types
cost that have matches. All branches have the same sort keys; the row number, unique over all types, ends the order.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

import re
from typing import Any

import asyncpg

from fhir_server.search.conditions import SearchRequest
from fhir_server.store.arranging import arrange
from fhir_server.store.ordering import page_statement
from fhir_server.store.query import count_statement
from fhir_server.store.searching import NEWEST_FIRST, Page, is_in_order, stored_of
from fhir_server.store.sort_bounds import check_sort
from foramen.kernel.errors import InvalidRequestError

_PLACEHOLDER = re.compile(r"\$(\d+)::")


def _merged(parts: list[tuple[str, list[Any]]]) -> tuple[list[str], list[Any]]:
    """Number the parameters of several statements through."""
    texts, arguments = [], list[Any]()
    for text, values in parts:
        texts.append(_shifted(text, len(arguments)))
        arguments += values
    return texts, arguments


def _shifted(text: str, by: int) -> str:
    return _PLACEHOLDER.sub(lambda found: f"${int(found[1]) + by}::", text)


async def types_statement(connection: Any, requests: list[SearchRequest]) -> tuple[str, list[Any]]:
    """Build the statement for one page over all requests, which differ in their type alone."""
    first = requests[0]
    sort = first.sort or NEWEST_FIRST
    parts = []
    for item in requests:
        selection = await arrange(connection, item.selection, in_order=is_in_order(sort))
        own = item.sort or NEWEST_FIRST
        await check_sort(connection, selection, own, item.most_sorted)
        parts.append(page_statement(selection, own, first.cursor, first.count + 1, first.partition))
    texts, arguments = _merged(parts)
    down = [key.descending for key in sort]
    order = ", ".join(f"u.k{number} {'DESC' if item else 'ASC'}" for number, item in enumerate([*down, down[-1]]))
    arguments.append(first.count + 1)
    union = " UNION ALL ".join(f"(SELECT * FROM ({text}) t)" for text in texts)
    return f"SELECT * FROM ({union}) u ORDER BY {order} LIMIT ${len(arguments)}::bigint", arguments


async def page(connection: Any, requests: list[SearchRequest]) -> Page:
    """Return one page of matches of all types.

    Raises
    ------
    InvalidRequestError
        The page link does not fit this search.
    """
    first = requests[0]
    sort = first.sort or NEWEST_FIRST
    if first.cursor is not None and len(first.cursor) != len(sort) + 1:
        raise InvalidRequestError("The page link does not fit this search", issue_code="value")
    try:
        text, arguments = await types_statement(connection, requests)
        records = await connection.fetch(text, *arguments)
    except asyncpg.DataError as exc:
        raise InvalidRequestError("A search value or page link cannot be used", issue_code="value") from exc
    more = len(records) > first.count
    records = records[: first.count]
    following = [records[-1][f"k{number}"] for number in range(len(sort) + 1)] if more and records else None
    return Page([stored_of(record) for record in records], following)


async def count(connection: Any, requests: list[SearchRequest]) -> int:
    """Count the matches of all types."""
    try:
        parts = [count_statement(await arrange(connection, item.selection)) for item in requests]
        texts, arguments = _merged(parts)
        total = " + ".join(f"({text})" for text in texts)
        return int(await connection.fetchval(f"SELECT {total}", *arguments))
    except asyncpg.DataError as exc:
        raise InvalidRequestError("A search value cannot be used", issue_code="value") from exc
