"""history: of a resource, of a type, of everything. https://hl7.org/fhir/R4/http.html#history"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from starlette.responses import Response

from fhir_server.interactions.bundles import bundle, history_entry
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.search import pairs_of
from fhir_server.search import paging
from fhir_server.search.dates import date_range
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import resource_types
from fhir_server.server import Call
from fhir_server.store import reading
from fhir_server.store.changes import Stored
from foramen.kernel.access_context import Reach
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotFoundError

_STATUS = {"POST": "201 Created", "PUT": "200 OK", "DELETE": "204 No Content"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def history_instance(call: Call) -> Response:
    """Versions of one resource, newest first."""
    compartment = call.access.compartment_key(call.resource_type, "r")
    return await _history(call, call.resource_type, call.logical_id, compartment, None)


async def history_type(call: Call) -> Response:
    """Versions of all resources of a type, newest first."""
    compartment = call.access.compartment_key(call.resource_type, "s")
    return await _history(call, call.resource_type, None, compartment, None)


async def history_system(call: Call) -> Response:
    """Versions of everything that the token may search, newest first."""
    types, bounded = [], False
    for resource_type in sorted(resource_types()):
        if call.access.may(resource_type, "s"):
            types.append(resource_type)
            bounded = bounded or call.access.context.reach(resource_type, "s") is Reach.COMPARTMENT
    if not types:
        raise ForbiddenError("The token has no scope for a history")
    patient = call.access.context.patient
    # One patient scope among user scopes bounds the whole answer: less is shown, never more.
    compartment = resource_key("Patient", patient) if bounded and patient else None
    return await _history(call, None, None, compartment, types)


async def _history(
    call: Call, resource_type: str | None, logical_id: str | None, compartment: int | None, types: list[str] | None
) -> Response:
    pairs = pairs_of(call.request.scope["query_string"].decode("latin-1"))
    asked = dict(pairs)
    count = _count(asked, call)
    since, until = _bounds(asked)
    async with call.server.connections.lend() as connection:
        versions = await reading.history(
            connection,
            resource_type=resource_type,
            logical_id=logical_id,
            since=since,
            until=until,
            compartment=compartment,
            before=_cursor(asked),
            limit=count + 1,
            types=types,
        )
        if logical_id is not None and not versions and (since is None or compartment is not None):
            found = await reading.read(connection, resource_type or "", logical_id)
            if found is None or (compartment is not None and compartment not in found.patients):
                raise NotFoundError(f"{resource_type} not found")
    more = len(versions) > count
    versions = versions[:count]
    path = "/".join(part for part in (resource_type, logical_id, "_history") if part)
    links = [("self", _link(call, path, pairs, None))]
    if more:
        links.append(("next", _link(call, path, pairs, versions[-1])))
    entries = [_entry(call.server.own_url, stored) for stored in versions]
    return Response(bundle("history", entries, links=links), media_type=MEDIA_TYPE)


def _entry(own_url: str, stored: Stored) -> bytes:
    url = stored.resource_type if stored.method == "POST" else stored.reference
    status = "201 Created" if stored.version == 1 else _STATUS[stored.method]
    full_url = f"{own_url}/{stored.reference}"
    return history_entry(full_url, stored.content, stored.method, url, status, stored.version, stored.updated)


def _count(asked: dict[str, str], call: Call) -> int:
    text = asked.get("_count", "")
    if not text:
        return call.server.limits.page_size
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequestError("_count is not a whole number", issue_code="value")
    return max(1, min(int(text), call.server.limits.max_page_size))


def _moment(name: str, text: str) -> tuple[datetime, datetime]:
    found = date_range(text.replace(" ", "+"))
    if found is None:
        raise InvalidRequestError(f"{name} is not a date", issue_code="value")
    return _EPOCH + timedelta(microseconds=found[0]), _EPOCH + timedelta(microseconds=found[1])


def _bounds(asked: dict[str, str]) -> tuple[datetime | None, datetime | None]:
    since = _moment("_since", asked["_since"])[0] if "_since" in asked else None
    until = None
    if "_at" in asked:
        low, until = _moment("_at", asked["_at"])
        since = max(since, low) if since else low
    return since, until


def _cursor(asked: dict[str, str]) -> tuple[datetime, int, int] | None:
    if "_cursor" not in asked:
        return None
    keys = paging.decode(asked["_cursor"])
    if len(keys) != 3 or not all(isinstance(key, int) for key in keys):
        raise InvalidRequestError("The page link is damaged", issue_code="value")
    try:
        return _EPOCH + timedelta(microseconds=int(str(keys[0]))), int(str(keys[1])), int(str(keys[2]))
    except OverflowError as exc:
        raise InvalidRequestError("The page link is damaged", issue_code="value") from exc


def _link(call: Call, path: str, pairs: list[tuple[str, str]], last: Stored | None) -> str:
    query = [(name, value) for name, value in pairs if name != "_cursor"]
    if last is not None:
        delta = last.updated - _EPOCH
        moment = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
        query.append(("_cursor", paging.encode([moment, last.row, last.version])))
    return f"{call.server.own_url}/{path}" + (f"?{urlencode(query)}" if query else "")
