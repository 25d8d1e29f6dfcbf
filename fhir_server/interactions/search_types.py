"""Searches over several types: what each type is asked, and the Bundle of all their answers.

https://hl7.org/fhir/R4/search.html#3.1.1.2: across types only parameters that all of them have can be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from fhir_server.interactions import search_explain
from fhir_server.interactions.bundles import bundle
from fhir_server.interactions.search import entry_of, prepare, warnings_of
from fhir_server.search import paging
from fhir_server.search.conditions import Condition, SearchRequest
from fhir_server.search.parameters import resource_types
from fhir_server.search.parse import UnknownParameterError
from fhir_server.server import Call
from fhir_server.store import including, rebuilding, searching, searching_types
from fhir_server.store.changes import Stored
from foramen.kernel.errors import ForbiddenError, InvalidRequestError

Pairs = list[tuple[str, str]]
Bound = Callable[[str], Condition | None]


def named_types(pairs: Pairs) -> tuple[list[str] | None, Pairs]:
    """Return the types that `_type` names (None without it), and the other parameters.

    Raises
    ------
    InvalidRequestError
        One is not a resource type of R4.
    """
    given = [value for name, value in pairs if name == "_type"]
    if not given:
        return None, pairs
    sets = [{item.strip() for item in value.split(",")} for value in given]
    types = sorted(set.intersection(*sets))
    if not set.union(*sets) <= resource_types():
        raise InvalidRequestError(
            "_type names an unknown resource type", issue_code="value", expression=("http._type",)
        )
    return types, [(name, value) for name, value in pairs if name != "_type"]


async def types_to_search(call: Call, connection: Any, named: list[str] | None, among: frozenset[str]) -> list[str]:
    """Return the types that are searched: those named, or else all that the record holds and the token may search.

    Raises
    ------
    ForbiddenError
        A named type, or every type, is out of the token's reach.
    """
    if named is not None:
        for name in named:
            call.access.context.reach(name, "s")
        return [name for name in named if name in among]
    allowed = {name for name in among if call.access.may(name, "s")}
    if not allowed:
        raise ForbiddenError("The token has no scope to search any of these types")
    return [name for name in await rebuilding.present_types(connection) if name in allowed]


def parse_types(
    call: Call, types: list[str], pairs: Pairs, bound: Bound | None, *, common: bool
) -> list[SearchRequest]:
    """Parse the same search for each type.

    Parameters
    ----------
    bound : condition that each type's matches must also fulfil (a compartment); None for a type means no match there
    common : no type was named, so that only parameters of every resource can be meant; a type that lacks one of them
        (a narrative, say) has no match

    Raises
    ------
    InvalidRequestError
        As for a search on one type; under strict handling also a parameter that not all types have.
    """
    unknown = [name for name, _ in pairs if common and not name.startswith("_")]
    if unknown and call.strict:
        raise UnknownParameterError("Without _type only parameters that all resources have can be used")
    pairs = [(name, value) for name, value in pairs if name not in unknown]
    requests = [call.parser().parse(name, pairs, strict=call.strict and not common) for name in types]
    missed = {name for request in requests for name in request.unknown}
    if common:
        nowhere = set.intersection(*(set(request.unknown) for request in requests)) if requests else set()
        if nowhere and call.strict:
            raise UnknownParameterError("No resource type has this search parameter")
        requests = [request for request in requests if set(request.unknown) <= nowhere]
        unknown += sorted(nowhere)
    elif missed:
        pairs = [(name, value) for name, value in pairs if name not in missed]
        requests = [call.parser().parse(name, pairs, strict=False) for name in types]
        unknown += sorted(missed)
    for request in requests:
        request.unknown = unknown
    return [request for request in requests if bound is None or _bind(request, bound)]


def _bind(request: SearchRequest, bound: Bound) -> bool:
    condition = bound(request.selection.resource_type)
    if condition is None:
        return False
    selection = request.selection
    request.selection = type(selection)(selection.resource_type, (condition, *selection.conditions))
    return True


async def answer(
    call: Call, connection: Any, requests: list[SearchRequest], path: str, named: list[str] | None, mode: str = ""
) -> bytes:
    """Run the searches and return one searchset, or (`mode`, as `search_explain.wants` returned it) their explanation.

    Parameters
    ----------
    path : of the search below the base URL, for its links
    named : value of `_type`, for the same
    """
    own_url = call.server.own_url
    base = f"{own_url}/{path}" if path else own_url
    if not requests:
        return bundle("searchset", [], links=[("self", base)], total=0)
    await prepare(call, connection, requests)
    if mode:
        return await search_explain.explain(call, connection, requests, mode)
    first = requests[0]
    first.incomplete = tuple(sorted({name for request in requests for name in request.incomplete}))
    echo = [*([("_type", ",".join(named))] if named is not None else []), *first.echo]
    links = [("self", f"{base}?{urlencode(echo)}" if echo else base)]
    if first.summary == "count":
        total = await searching_types.count(connection, requests)
        return bundle("searchset", warnings_of(first), links=links, total=total)
    page = await searching_types.page(connection, requests)
    found: list[Stored] = []
    if first.includes:
        found = await including.included(connection, call.access, first, page.matches, own_url, call.server.limits)
    if page.following is not None:
        links.append(("next", f"{base}?{urlencode([*echo, ('_cursor', paging.encode(page.following))])}"))
    call.shown += [stored.reference for stored in (*page.matches, *found)]
    entries = [entry_of(own_url, item, "match", first) for item in page.matches]
    entries += [entry_of(own_url, item, "include", first) for item in found]
    counted = await _total(connection, requests, page)
    return bundle("searchset", entries + warnings_of(first), links=links, total=counted)


async def _total(connection: Any, requests: list[SearchRequest], page: searching.Page) -> int | None:
    first = requests[0]
    if page.following is None and first.cursor is None:
        return len(page.matches)
    if first.total in ("accurate", "estimate"):
        return await searching_types.count(connection, requests)
    return None
