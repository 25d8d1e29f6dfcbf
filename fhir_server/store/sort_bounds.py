"""A bound for orders that no index holds: by token or reference, which are read from the bytes of every match.

Reading them costs some 20 µs a match, for each page anew (ADR 0014), so that a search with very many matches is refused
rather than carried out for a minute. https://hl7.org/fhir/R4/search.html#sort
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from typing import Any

from fhir_server.search.conditions import Selection, SortKey, SortKind
from fhir_server.store.query import SelectionQuery
from fhir_server.store.statement import Statement
from foramen.kernel.errors import InvalidRequestError


async def check_sort(connection: Any, selection: Selection, sort: tuple[SortKey, ...], most: int) -> None:
    """Refuse an order by content over more than `most` matches, which are counted no further than that.

    Parameters
    ----------
    selection : arranged

    Raises
    ------
    InvalidRequestError
        `too-costly`: too many matches.
    """
    if not any(key.kind is SortKind.CONTENT for key in sort):
        return
    statement = Statement()
    query = SelectionQuery(selection, statement)
    limit = statement.value(most + 1, "bigint")
    text = f"SELECT count(*) FROM (SELECT {query.text()} LIMIT {limit}) n"
    if await connection.fetchval(text, *statement.arguments) > most:
        raise InvalidRequestError(
            f"_sort by a token or reference parameter needs a search with at most {most} matches; narrow the search",
            issue_code="too-costly",
            expression=("http._sort",),
        )
