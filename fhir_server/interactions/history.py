"""history: of a resource, of a type, of everything. https://hl7.org/fhir/R4/http.html#history"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from fhir_server.access.security_context import BINARY
from fhir_server.interactions.bundles import bundle, history_entry
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.search import pairs_of
from fhir_server.interactions.subset import subset, wanted_parts
from fhir_server.interactions.visible_versions import Cursor, visible_versions
from fhir_server.search import paging
from fhir_server.search.dates import date_range
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import resource_types
from fhir_server.server import Call
from fhir_server.store import reading
from fhir_server.store.changes import Stored
from foramen.kernel.access_context import Reach
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotFoundError

_KNOWN = {
    *("_since", "_at", "_count", "_sort", "_cursor"),
    *("_format", "_pretty", "_summary", "_elements"),
}
_STATUS = {"POST": "201 Created", "PUT": "200 OK", "PATCH": "200 OK", "DELETE": "204 No Content"}
_INT8, _INT4 = 1 << 63, 1 << 31
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def history_instance(call: Call) -> Response:
    """Versions of one resource, newest first."""
    return await _answer(call, call.resource_type, call.logical_id)


async def history_type(call: Call) -> Response:
    """Versions of all resources of a type, newest first."""
    return await _answer(call, call.resource_type, None)


async def history_system(call: Call) -> Response:
    """Versions of everything that the token may search, newest first."""
    return await _answer(call, None, None)


async def _answer(call: Call, resource_type: str | None, logical_id: str | None) -> Response:
    pairs = pairs_of(call.request.scope["query_string"].decode("latin-1"))
    async with call.server.connections.lend() as connection:
        content = await history_bundle(call, connection, resource_type, logical_id, pairs)
    return Response(content, media_type=MEDIA_TYPE)


def _reach(call: Call, resource_type: str | None, logical_id: str | None) -> tuple[int | None, list[str] | None]:
    """Return the compartment that bounds the answer, and the types of the system history."""
    if resource_type is not None:
        return call.access.compartment_key(resource_type, "r" if logical_id else "s"), None
    types, bounded = [], False
    for name in sorted(resource_types()):
        if call.access.may(name, "s"):
            types.append(name)
            bounded = bounded or call.access.compartment_key(name, "s") is not None
            bounded = bounded or call.access.context.reach(name, "s") is Reach.COMPARTMENT
    if not types:
        raise ForbiddenError("The token has no scope for a history")
    patient = call.access.context.patient
    # One patient scope among user scopes bounds the whole answer: less is shown, never more.
    return resource_key("Patient", patient) if bounded and patient else None, types


async def history_bundle(
    call: Call, connection: Any, resource_type: str | None, logical_id: str | None, pairs: list[tuple[str, str]]
) -> bytes:
    """Return the history Bundle of one resource, a type, or everything.

    Raises
    ------
    InteropError
        400 a parameter cannot be used, 403, 404.
    """
    compartment, types = _reach(call, resource_type, logical_id)
    asked = _checked(call, pairs)
    count = _count(asked, call)
    versions = await _versions(call, connection, (resource_type, logical_id), (compartment, types), asked, count + 1)
    if logical_id is not None and not versions:
        found = await reading.read(connection, resource_type or "", logical_id)
        if found is None or (compartment is not None and compartment not in found.patients):
            raise NotFoundError(f"{resource_type} not found")
        await call.access.learn(connection, found)
        if not call.access.hidden_patients(found.resource_type).isdisjoint(found.patients) or call.access.hides(found):
            raise NotFoundError(f"{resource_type} not found")
    more = len(versions) > count
    versions = versions[:count]
    call.shown += [stored.reference for stored in versions]
    path = "/".join(part for part in (resource_type, logical_id, "_history") if part)
    links = [("self", _link(call, path, pairs, None))]
    if more:
        links.append(("next", _link(call, path, pairs, versions[-1])))
    summary, elements = wanted_parts(asked)
    entries = [_entry(call.server.own_url, stored, summary, elements) for stored in versions]
    return bundle("history", entries, links=links)


async def _versions(
    call: Call,
    connection: Any,
    of: tuple[str | None, str | None],
    reach: tuple[int | None, list[str] | None],
    asked: dict[str, str],
    wanted: int,
) -> list[Stored]:
    """Return the next versions; where that takes a look inside, those that may be seen among them."""
    (resource_type, logical_id), (compartment, types) = of, reach
    since, current_from, until = _bounds(asked)
    every = [resource_type] if resource_type else types or []
    action = "r" if logical_id else "s"

    async def fetch(before: Cursor | None, limit: int) -> list[Stored]:
        found = await reading.history(
            connection,
            resource_type=resource_type,
            logical_id=logical_id,
            since=since,
            current_from=current_from,
            until=until,
            compartment=compartment,
            before=before,
            limit=limit,
            types=types,
            hidden=_hidden(call, every),
            contexts=_contexts(call, resource_type, compartment),
            institution=call.access.wall.of_versions(every) if call.access.wall is not None else None,
        )
        await call.access.learn(connection, *found)
        return found

    if not any(call.access.looks_inside(name, action) or call.access.looks_outside(name) for name in every):
        return await fetch(_cursor(asked), wanted)
    return await visible_versions(
        fetch,
        lambda stored: call.access.hides(stored, action),
        before=_cursor(asked),
        wanted=wanted,
        most=call.server.limits.max_history_scan,
    )


def _checked(call: Call, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Refuse what is not supported; what is unknown only under `Prefer: handling=strict`."""
    asked = dict(pairs)
    if "_list" in asked:  # Left out, it would show more than was asked for.
        raise InvalidRequestError("_list is not supported in a history", issue_code="not-supported")
    if asked.get("_sort", "-_lastUpdated") != "-_lastUpdated":
        raise InvalidRequestError("A history is sorted by -_lastUpdated", issue_code="not-supported")
    if call.strict and not asked.keys() <= _KNOWN:
        raise InvalidRequestError("A parameter is not one of a history", issue_code="not-supported")
    return asked


def _hidden(call: Call, types: list[str]) -> dict[str, list[int]]:
    """Patients whose versions of a type the answer leaves out, as a Consent or a restriction hides some of them."""
    if call.access.consent is None and call.access.restriction is None:
        return {}
    return {name: sorted(keys) for name in types if (keys := call.access.hidden_patients(name))}


def _contexts(call: Call, resource_type: str | None, compartment: int | None) -> list[str] | None:
    """Types that a Binary of the answer may name; in one patient's record all name that patient, who may be seen."""
    if resource_type not in (None, BINARY) or (compartment is not None and call.access.sees_own_patient):
        return None
    return call.access.seen_contexts


def _entry(own_url: str, stored: Stored, summary: str, elements: tuple[str, ...]) -> bytes:
    url = stored.resource_type if stored.method == "POST" else stored.reference
    status = "201 Created" if stored.version == 1 else _STATUS[stored.method]
    full_url = f"{own_url}/{stored.reference}"
    content = stored.content
    if content is not None:
        content = subset(content, stored.resource_type, summary, elements)
    return history_entry(full_url, content, stored.method, url, status, stored.version, stored.updated)


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
    try:
        return _EPOCH + timedelta(microseconds=found[0]), _EPOCH + timedelta(microseconds=found[1])
    except OverflowError as exc:  # The end of 9999 is no moment any more.
        raise InvalidRequestError(f"{name} is beyond the calendar", issue_code="value") from exc


def _bounds(asked: dict[str, str]) -> tuple[datetime | None, datetime | None, datetime | None]:
    """Return: written since, current at or after, written before."""
    since = _moment("_since", asked["_since"])[0] if "_since" in asked else None
    if "_at" not in asked:
        return since, None, None
    current_from, until = _moment("_at", asked["_at"])
    return since, current_from, until


def _cursor(asked: dict[str, str]) -> tuple[datetime, int, int] | None:
    if "_cursor" not in asked:
        return None
    keys = paging.decode(asked["_cursor"])
    if len(keys) != 3 or not all(isinstance(key, int) for key in keys):
        raise InvalidRequestError("The page link is damaged", issue_code="value")
    moment, row, version = (int(str(key)) for key in keys)
    if abs(row) >= _INT8 or abs(version) >= _INT4:
        raise InvalidRequestError("The page link is damaged", issue_code="value")
    try:
        return _EPOCH + timedelta(microseconds=moment), row, version
    except OverflowError as exc:
        raise InvalidRequestError("The page link is damaged", issue_code="value") from exc


def _link(call: Call, path: str, pairs: list[tuple[str, str]], last: Stored | None) -> str:
    query = [(name, value) for name, value in pairs if name != "_cursor"]
    if last is not None:
        delta = last.updated - _EPOCH
        moment = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
        query.append(("_cursor", paging.encode([moment, last.row, last.version])))
    return f"{call.server.own_url}/{path}" + (f"?{urlencode(query)}" if query else "")
