"""search: `GET /Type?…`, `POST /Type/_search`. https://hl7.org/fhir/R4/http.html#search"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.responses import Response

from fhir_server.interactions.bundles import bundle, search_entry
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.subset import subset
from fhir_server.search import paging
from fhir_server.search.conditions import SearchRequest
from fhir_server.server import Call
from fhir_server.store import including, searching
from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError, Issue, UnsupportedMediaTypeError
from foramen.kernel.http_edge import read_body
from foramen.kernel.outcome import operation_outcome

_FORM = "application/x-www-form-urlencoded"


def pairs_of(query: str) -> list[tuple[str, str]]:
    """Parse a query string.

    Raises
    ------
    InvalidRequestError
        Not UTF-8.
    """
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError as exc:
        raise InvalidRequestError("The query is not valid UTF-8", issue_code="value") from exc


async def search(call: Call) -> Response:
    """Search one type by the URL."""
    pairs = pairs_of(call.request.scope["query_string"].decode("latin-1"))
    async with call.server.connections.lend() as connection:
        return Response(await run(call, connection, call.resource_type, pairs), media_type=MEDIA_TYPE)


async def search_post(call: Call) -> Response:
    """Search one type by a form, which keeps values out of URLs."""
    sent = call.request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if sent != _FORM:
        raise UnsupportedMediaTypeError(f"The body must be {_FORM}")
    body = await read_body(call.request, min(call.server.max_body_bytes, 1_000_000))
    try:
        form = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidRequestError("The form is not valid UTF-8", issue_code="value") from exc
    pairs = pairs_of(call.request.scope["query_string"].decode("latin-1")) + pairs_of(form)
    async with call.server.connections.lend() as connection:
        return Response(await run(call, connection, call.resource_type, pairs), media_type=MEDIA_TYPE)


async def run(call: Call, connection: Any, resource_type: str, pairs: list[tuple[str, str]]) -> bytes:
    """Search and return the searchset Bundle."""
    request = call.parser().parse(resource_type, pairs, strict=call.strict)
    own_url = call.server.own_url
    if request.summary == "count":
        counted = await searching.count(connection, request.selection)
        return bundle("searchset", _warnings(request), links=_links(call, request, None), total=counted)
    page = await searching.page(connection, request)
    included: list[Stored] = []
    if request.includes:
        included = await including.included(connection, call.access, request, page.matches, own_url, call.server.limits)
    total = await _total(connection, request, page)
    entries = [_entry(own_url, item, "match", request) for item in page.matches]
    entries += [_entry(own_url, item, "include", request) for item in included]
    return bundle("searchset", entries + _warnings(request), links=_links(call, request, page.following), total=total)


async def _total(connection: Any, request: SearchRequest, page: searching.Page) -> int | None:
    if page.following is None and request.cursor is None:
        return len(page.matches)  # Everything is on this page: the total is known for nothing.
    if request.total in ("accurate", "estimate"):
        return await searching.count(connection, request.selection)
    return None


def _entry(own_url: str, stored: Stored, mode: str, request: SearchRequest) -> bytes:
    content = subset(stored.content or b"{}", stored.resource_type, request.summary, request.elements)
    return search_entry(f"{own_url}/{stored.reference}", content, mode)


def _warnings(request: SearchRequest) -> list[bytes]:
    if not request.unknown:
        return []
    issues = tuple(
        Issue("not-supported", "A search parameter is not known and was ignored", (f"http.{_name(name)}",), "warning")
        for name in request.unknown
    )
    return [search_entry("", orjson.dumps(operation_outcome(issues)), "outcome")]


def _name(name: str) -> str:
    return "".join(c for c in name if c.isalnum() or c in "_-:.")[:60]


def _links(call: Call, request: SearchRequest, following: list[object] | None) -> list[tuple[str, str]]:
    base = f"{call.server.own_url}/{request.selection.resource_type}"
    links = [("self", f"{base}?{urlencode(request.echo)}" if request.echo else base)]
    if following is not None:
        query = [*request.echo, ("_cursor", paging.encode(following))]
        links.append(("next", f"{base}?{urlencode(query)}"))
    return links
