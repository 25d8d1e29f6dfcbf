"""`$lastn`: the newest n Observations of each code. https://hl7.org/fhir/R4/observation-operation-lastn.html"""

from __future__ import annotations

from starlette.responses import Response

from fhir_server.interactions.bundles import bundle, search_entry
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.search import pairs_of, prepare
from fhir_server.operations.parameters import parameters_of
from fhir_server.route import Route
from fhir_server.search.parameters import Parameter, type_parameters
from fhir_server.server import Call
from fhir_server.store import gathering
from foramen.kernel.errors import InvalidRequestError

_SUBJECTS = {"patient", "subject"}
_SHAPING = ("_sort", "_count", "_include", "_revinclude", "_total", "_summary", "_elements", "_cursor")


async def lastn(call: Call) -> Response:
    """Return the newest `max` (default 1) of each code among the matches of a search, one group after the other."""
    pairs = await _pairs(call)
    most = [value for name, value in pairs if name == "max"]
    pairs = [(name, value) for name, value in pairs if name not in ("max", "_format", "_pretty")]
    names = {name.partition(":")[0].partition(".")[0] for name, _ in pairs}
    if not names & _SUBJECTS:
        raise InvalidRequestError("$lastn needs patient or subject", issue_code="required")
    if not any(_speaks_of_code(name) for name in names):
        raise InvalidRequestError("$lastn needs category or a parameter with a code", issue_code="required")
    if any(name in _SHAPING for name in names):
        raise InvalidRequestError("$lastn has an order and size of its own", issue_code="not-supported")
    request = call.parser().parse("Observation", pairs, strict=True)
    limit = call.server.limits.max_page_size
    async with call.server.connections.lend() as connection:
        await prepare(call, connection, [request])
        found = await gathering.newest_by_code(connection, request.selection, most=_most(most), limit=limit + 1)
    if len(found) > limit:
        raise InvalidRequestError("The answer would be too large; narrow the search", issue_code="too-costly")
    call.shown += [stored.reference for stored in found]
    own_url = call.server.own_url
    entries = [search_entry(f"{own_url}/{stored.reference}", stored.content or b"{}", "match") for stored in found]
    links = [("self", f"{own_url}/Observation/$lastn")]
    return Response(bundle("searchset", entries, links=links, total=len(found)), media_type=MEDIA_TYPE)


async def _pairs(call: Call) -> list[tuple[str, str]]:
    if call.request.method == "GET":
        return pairs_of(call.request.scope["query_string"].decode("latin-1"))
    parameters = await parameters_of(call)
    return [
        (item.name, str(item.value) if item.kind == "valuePositiveInt" else parameters.only_text(item))
        for item in parameters
    ]


def _most(given: list[str]) -> int:
    if not given:
        return 1
    text = given[0]
    if len(given) > 1 or not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) == 0:
        raise InvalidRequestError("max is one whole number above 0", issue_code="value")
    return int(text)


def _speaks_of_code(name: str) -> bool:
    """Whether a parameter is `category` or has Observation.code among its paths."""
    found = type_parameters("Observation").parameters.get(name)
    return found is not None and (name == "category" or _has_code(found))


def _has_code(parameter: Parameter) -> bool:
    return parameter.code in ("code", "combo-code") or parameter.code.startswith(("code-value-", "combo-code-value-"))


_DEFINITION = "http://hl7.org/fhir/OperationDefinition/Observation-lastn"
ROUTES: tuple[Route, ...] = tuple(
    Route(method, "Observation/$lastn", lastn, "s", "operation", definition=_DEFINITION) for method in ("GET", "POST")
)
