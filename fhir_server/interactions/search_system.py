"""search-system: `GET /?_type=…`, `POST /_search`: several types, or all that the token may search, as one list.

https://hl7.org/fhir/R4/http.html#search, https://hl7.org/fhir/R4/search.html#3.1.1.2
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from fhir_server.interactions import search_explain
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.search import form_pairs, query_pairs_of, run, shows_audit
from fhir_server.interactions.search_types import Pairs, answer, named_types, parse_types, types_to_search
from fhir_server.search.parameters import resource_types
from fhir_server.server import Call


async def search_system(call: Call) -> Response:
    """Search by the URL."""
    return await _search(call, query_pairs_of(call))


async def search_system_post(call: Call) -> Response:
    """Search by a form."""
    return await _search(call, await form_pairs(call))


async def _search(call: Call, pairs: Pairs) -> Response:
    mode = search_explain.wants(call, pairs)
    named, rest = named_types(search_explain.without(pairs))

    async def work(connection: Any) -> bytes:
        return await run_system(call, connection, named, rest, mode)

    primary = bool(mode) or named is None or shows_audit(call, pairs)
    return Response(await call.server.searches.run(work, primary=primary), media_type=MEDIA_TYPE)


async def run_system(call: Call, connection: Any, named: list[str] | None, pairs: Pairs, mode: str = "") -> bytes:
    """Search and return the searchset; one named type is a search on that type."""
    if named is not None and len(named) == 1 and not mode:
        call.access.context.reach(named[0], "s")
        return await run(call, connection, named[0], pairs)
    types = await types_to_search(call, connection, named, resource_types())
    requests = parse_types(call, types, pairs, None, common=named is None)
    return await answer(call, connection, requests, "", named, mode)
