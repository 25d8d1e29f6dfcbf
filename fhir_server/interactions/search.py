"""search: `GET /Type?…`, `POST /Type/_search`. https://hl7.org/fhir/R4/http.html#search"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

import orjson
from starlette.responses import Response

from fhir_server.interactions import search_explain
from fhir_server.interactions.bundles import bundle, search_entry
from fhir_server.interactions.nested_elements import top_names, trim
from fhir_server.interactions.responses import bundle_response
from fhir_server.interactions.subset import subset
from fhir_server.search import paging
from fhir_server.search.completeness import incomplete_issues
from fhir_server.search.conditions import SearchRequest
from fhir_server.search.modifiers import shown
from fhir_server.search.result_parameters import partition_bounds
from fhir_server.server import Call
from fhir_server.store import full_text, including, searching
from fhir_server.store.chain_pages import is_answer
from fhir_server.store.changes import Stored
from fhir_server.store.resolving import Resolver, asks_full_text
from fhir_server.store.sealed_content import opened
from foramen.kernel.errors import InvalidRequestError, Issue, UnsupportedMediaTypeError
from foramen.kernel.http_edge import read_body
from foramen.kernel.outcome import operation_outcome

Pairs = list[tuple[str, str]]
_FORM = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES = 1_000_000
_ENTRY = b'{"fullUrl":"%b%b","resource":%b,"search":{"mode":"match"}}'
_NEVER = datetime.fromtimestamp(0, UTC)


def pairs_of(query: str) -> Pairs:
    """Parse a query string.

    Raises
    ------
    InvalidRequestError
        Not UTF-8, or with too many parameters.
    """
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except UnicodeDecodeError as exc:
        raise InvalidRequestError("The query is not valid UTF-8", issue_code="value") from exc
    except ValueError as exc:
        raise InvalidRequestError("The search has too many parameters", issue_code="too-costly") from exc


def query_pairs_of(call: Call) -> Pairs:
    """Return the parameters of a call's URL."""
    return pairs_of(call.request.scope["query_string"].decode("latin-1"))


async def form_pairs(call: Call) -> Pairs:
    """Return the parameters of a call's URL and form.

    Raises
    ------
    UnsupportedMediaTypeError
        The body is not a form.
    """
    sent = call.request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if sent != _FORM:
        raise UnsupportedMediaTypeError(f"The body must be {_FORM}")
    body = await read_body(call.request, min(call.server.max_body_bytes, _MAX_FORM_BYTES))
    try:
        form = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidRequestError("The form is not valid UTF-8", issue_code="value") from exc
    return query_pairs_of(call) + pairs_of(form)


def shows_audit(call: Call, pairs: Pairs) -> bool:
    """Whether a search may show AuditEvents: those of reads are not flushed to replicas before they can be seen."""
    return call.resource_type == "AuditEvent" or any(
        "AuditEvent" in name or "AuditEvent" in value or value == "*" for name, value in pairs
    )


async def search(call: Call) -> Response:
    """Search one type by the URL."""
    return await _search(call, query_pairs_of(call))


async def search_post(call: Call) -> Response:
    """Search one type by a form, which keeps values out of URLs."""
    return await _search(call, await form_pairs(call))


async def _search(call: Call, pairs: Pairs) -> Response:
    mode = search_explain.wants(call, pairs)
    asked = search_explain.without(pairs) if mode else pairs
    request = call.parser().parse(call.resource_type, asked, strict=call.strict)
    primary = bool(mode) or shows_audit(call, pairs)
    simple = request.count > 0 and not request.includes and request.total == "none" and request.summary != "count"
    question = searching.simple_page(request) if simple else None
    if question is not None and not mode:
        records = await call.server.pages.read(question, primary=primary)
        if is_answer(question, records):
            return bundle_response(_simple_bundle(call, request, records))

    async def work(connection: Any) -> bytes:
        if mode:
            await prepare(call, connection, [request])
            return await search_explain.explain(call, connection, [request], mode, question)
        return await _answer(call, connection, request)

    return bundle_response(await call.server.searches.run(work, primary=primary))


def _simple_bundle(call: Call, request: SearchRequest, records: Sequence[Any]) -> bytes:
    """Write the searchset of a page that was read with others (records: place, id, content, k0, k1, …)."""
    following = None
    if len(records) > request.count:
        records = records[: request.count]
        following = list(records[-1][3:])
    own_url, resource_type = call.server.own_url, request.selection.resource_type
    call.shown = [f"{resource_type}?", *[record[1] for record in records]]
    if request.elements or request.summary != "false":
        page = [Stored(0, resource_type, r[1], 0, _NEVER, "", opened(r[2], resource_type, r[1]), ()) for r in records]
        entries = entries_of(own_url, page, request)
    else:
        base = f"{own_url}/{resource_type}/".encode()
        entries = [_ENTRY % (base, r[1].encode(), opened(r[2], resource_type, r[1])) for r in records]
    total = len(records) if following is None else None
    return bundle("searchset", entries + warnings_of(request), links=_links(call, request, following), total=total)


async def prepare(call: Call, connection: Any, requests: Sequence[SearchRequest]) -> None:
    """Look up what the searches need first: value sets, hierarchies, Lists; and bring the full-text index up to date.

    Raises
    ------
    NotFoundError
        A value set, code system or List does not exist.
    InvalidRequestError
        One of them is too large.
    """
    resolver = Resolver(connection, call.server.terminology, call.server.own_url, call.server.limits.max_expansion)
    for request in requests:
        request.selection = await resolver.selection(request.selection)
    if any(asks_full_text(request.selection) for request in requests):
        waiting = await full_text.catch_up(call.server.lookups)
        if waiting:
            for request in requests:
                request.incomplete = (*request.incomplete, "_text")


async def run(call: Call, connection: Any, resource_type: str, pairs: Pairs) -> bytes:
    """Search and return the searchset Bundle."""
    request = call.parser().parse(resource_type, pairs, strict=call.strict)
    return await _answer(call, connection, request)


async def _answer(call: Call, connection: Any, request: SearchRequest) -> bytes:
    await prepare(call, connection, [request])
    own_url = call.server.own_url
    if request.summary == "count":
        counted = await searching.count(connection, request.selection)
        return bundle("searchset", warnings_of(request), links=_links(call, request, None), total=counted)
    page = await searching.page(connection, request)
    included: list[Stored] = []
    if request.includes:
        included = await including.included(connection, call.access, request, page.matches, own_url, call.server.limits)
    call.shown += [stored.reference for stored in (*page.matches, *included)]
    total = await _total(connection, request, page)
    entries = entries_of(own_url, page.matches, request)
    entries += [entry_of(own_url, item, "include", request) for item in included]
    return bundle("searchset", entries + warnings_of(request), links=_links(call, request, page.following), total=total)


async def _total(connection: Any, request: SearchRequest, page: searching.Page) -> int | None:
    if page.following is None and request.cursor is None:
        return len(page.matches)  # Everything is on this page: the total is known for nothing.
    if request.total == "accurate":
        return await searching.count(connection, request.selection)
    if request.total == "estimate":
        return await searching.estimate(connection, request.selection)
    return None


def entries_of(own_url: str, matches: list[Stored], request: SearchRequest) -> list[bytes]:
    """Write the entries of the matches; whole resources, the usual case, are joined without a look inside."""
    if request.elements or request.summary != "false":
        return [entry_of(own_url, item, "match", request) for item in matches]
    base = own_url.encode()
    return [
        _ENTRY % (b"%b/%b/" % (base, item.resource_type.encode()), item.logical_id.encode(), item.content or b"{}")
        for item in matches
    ]


def entry_of(own_url: str, stored: Stored, mode: str, request: SearchRequest) -> bytes:
    """Write one entry, as much of the resource as the search asks for."""
    elements = top_names(request.elements)
    content = subset(stored.content or b"{}", stored.resource_type, request.summary, elements)
    if elements != request.elements and mode == "match":
        content = trim(content, request.elements)
    return search_entry(f"{own_url}/{stored.reference}", content, mode)


def warnings_of(request: SearchRequest) -> list[bytes]:
    """Return the OperationOutcome entry that tells what the answer leaves out; nothing when it leaves out nothing."""
    issues = [
        Issue("not-supported", "A search parameter is not known and was ignored", (f"http.{shown(name)}",), "warning")
        for name in request.unknown
    ]
    issues += incomplete_issues(request)
    if not issues:
        return []
    return [search_entry("", orjson.dumps(operation_outcome(tuple(issues))), "outcome")]


_quoted = lru_cache(maxsize=512)(quote_plus)


def _links(call: Call, request: SearchRequest, following: list[object] | None) -> list[tuple[str, str]]:
    base = f"{call.server.own_url}/{request.selection.resource_type}"
    query = "&".join([f"{_quoted(name)}={quote_plus(value)}" for name, value in request.echo])
    links = [("self", f"{base}?{query}" if query else base)]
    if following is not None:
        links.append(("next", f"{base}?{query}{'&' if query else ''}_cursor={quote_plus(paging.encode(following))}"))
    if request.partitions and request.cursor is None:
        rest = [(name, value) for name, value in request.echo if name != "_partitions"]
        for low, high in partition_bounds(request.partitions):
            links.append(("partition", f"{base}?{urlencode([*rest, ('_partition', f'{low}-{high}')])}"))
    return links
