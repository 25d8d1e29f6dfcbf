"""`$everything`: the whole record of a patient or an encounter, and what it refers to.

https://hl7.org/fhir/R4/patient-operation-everything.html, https://hl7.org/fhir/R4/encounter-operation-everything.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from fhir_server.formats.negotiation import PLAIN, negotiate
from fhir_server.interactions.bundles import bundle, search_entry
from fhir_server.interactions.read import visible
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.operations.gathering import Position, supporting, types_of_record
from fhir_server.operations.parameters import Parameters, parameters_of
from fhir_server.route import Route
from fhir_server.search.conditions import AnyPosting, Condition, Keys, LastUpdated, Range, Selection
from fhir_server.search.dates import BEGINNING, END
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import resource_types
from fhir_server.server import Call
from fhir_server.store import gathering, reading
from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = {"Patient": ("start", "end", "_since", "_type", "_count"), "Encounter": ("_since", "_type", "_count")}


@dataclass(slots=True)
class Wanted:
    """What one call asks for."""

    types: frozenset[str]
    period: tuple[int, int] | None
    since: int | None
    count: int | None
    position: Position
    echo: list[tuple[str, str]]
    record: frozenset[int] = frozenset()


async def everything(call: Call) -> Response:
    """Return the record of one Patient or Encounter: pages when `_count` is given, else all of it as one Bundle."""
    if not call.logical_id:
        patient = call.access.context.patient
        if patient is None:
            text = "Without an id this needs a token of one patient; many records are fetched with $export"
            raise InvalidRequestError(text, issue_code="too-costly")
        call.logical_id, call.entity = patient, f"Patient/{patient}"
    wanted = _wanted(call, await parameters_of(call))
    compartment = call.access.compartment_key(call.resource_type, "r")
    async with call.server.connections.lend() as connection:
        found = await reading.read(connection, call.resource_type, call.logical_id)
        await call.access.learn(connection, found)
        stored = visible(found, call.resource_type, compartment, call.access)
        if call.resource_type == "Patient":
            call.patient = stored.reference
        wanted.record = frozenset(stored.patients)
        paged = wanted.count is not None or negotiate(call.request) is not PLAIN
        count = wanted.count or call.server.limits.max_page_size
        entries, position = await _block(call, connection, wanted, wanted.position, count)
    base = f"{call.server.own_url}/{call.resource_type}/{call.logical_id}/$everything"
    links = [("self", _link(base, wanted.echo))]
    if position.finished or paged:
        if not position.finished:
            links.append(("next", _link(base, [*wanted.echo, ("_cursor", position.write())])))
        return Response(bundle("searchset", entries, links=links), media_type=MEDIA_TYPE)
    return StreamingResponse(_stream(call, wanted, links, entries, position), media_type=MEDIA_TYPE)


def _wanted(call: Call, parameters: Parameters) -> Wanted:
    parameters.check_known((*_NAMES[call.resource_type], "_cursor"))
    types = parameters.listed("_type")
    if not set(types) <= resource_types():
        raise InvalidRequestError("_type names an unknown resource type", issue_code="value")
    start, end = parameters.period("start"), parameters.period("end")
    period = None
    if start is not None or end is not None:
        period = (_micros(start[0]) if start else BEGINNING, _micros(end[1]) if end else END)
    since = parameters.period("_since")
    count = parameters.integer("_count", least=1)
    cursor = parameters.text("_cursor")
    echo = [(n, p.value) for n in _NAMES[call.resource_type] for p in parameters.every(n)]
    return Wanted(
        frozenset(types),
        period,
        _micros(since[0]) if since else None,
        min(count, call.server.limits.max_page_size) if count is not None else None,
        Position.read(cursor) if cursor else Position(),
        [(name, str(value)) for name, value in echo],
    )


def _micros(at: datetime) -> int:
    delta = at - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _link(base: str, query: list[tuple[str, str]]) -> str:
    return f"{base}?{urlencode(query)}" if query else base


async def _stream(
    call: Call, wanted: Wanted, links: list[tuple[str, str]], entries: list[bytes], position: Position
) -> AsyncIterator[bytes]:
    """Write the Bundle block by block: memory holds one block, and no connection is held while the client reads."""
    opening = bundle("searchset", [], links=links)[:-1] + b',"entry":['
    while True:
        if entries:
            yield opening + b",".join(entries)
            opening = b","
        if position.finished:
            break
        async with call.server.connections.lend() as connection:
            entries, position = await _block(call, connection, wanted, position, call.server.limits.max_page_size)
    yield b"]}" if opening == b"," else bundle("searchset", [], links=links)


async def _block(
    call: Call, connection: Any, wanted: Wanted, position: Position, count: int
) -> tuple[list[bytes], Position]:
    """Entries of one page: the matches of the wanted types, then what they refer to and was not there before."""
    matches, position = await _matches(call, connection, wanted, position, count)
    included, position = await supporting(call, connection, matches, position, wanted.record)
    own_url = call.server.own_url
    entries = [
        search_entry(f"{own_url}/{stored.reference}", stored.content or b"{}", mode)
        for mode, found in (("match", matches), ("include", included))
        for stored in found
        if not wanted.types or stored.resource_type in wanted.types
    ]
    return entries, position


async def _matches(
    call: Call, connection: Any, wanted: Wanted, position: Position, count: int
) -> tuple[list[Stored], Position]:
    """Go on behind `position`, type by type; the focus itself has no date that could leave it out."""
    bases = types_of_record(call.resource_type, call.logical_id, call.access, wanted.types)
    there = await gathering.present(connection, [item for hashes in bases.values() for item in hashes])
    names = sorted(name for name, hashes in bases.items() if not there.isdisjoint(hashes) or name == call.resource_type)
    found: list[Stored] = []
    for name in names:
        if name < position.resource_type:
            continue
        after = position.row if name == position.resource_type else -(2**63)
        rest = count - len(found)
        block = await gathering.in_row_order(
            connection,
            _selection(call, name, bases[name], wanted),
            after=after,
            limit=rest + 1,
            period=None if name == call.resource_type else wanted.period,
        )
        found += block[:rest]
        if len(block) > rest:
            last = found[-1] if found and found[-1].resource_type == name else None
            return found, position.at(name, last.row if last else after)
    return found, position.end()


def _selection(call: Call, name: str, hashes: tuple[int, ...], wanted: Wanted) -> Selection:
    conditions: list[Condition] = [AnyPosting(hashes)]
    if not hashes:  # The focus is in no compartment of its own.
        conditions = [Keys((resource_key(name, call.logical_id),))]
    allowed = call.access.condition(name, "s" if name != call.resource_type else "r")
    if allowed is not None:
        conditions.append(allowed)
    if wanted.since is not None:
        conditions.append(LastUpdated((Range("ge", wanted.since, wanted.since),)))
    return Selection(name, tuple(conditions))


_PATIENT = "http://hl7.org/fhir/OperationDefinition/Patient-everything"
_ENCOUNTER = "http://hl7.org/fhir/OperationDefinition/Encounter-everything"
ROUTES: tuple[Route, ...] = tuple(
    Route(method, path, everything, "r", "operation", definition=definition)
    for method in ("GET", "POST")
    for path, definition in (
        ("Patient/{id}/$everything", _PATIENT),
        ("Patient/$everything", _PATIENT),
        ("Encounter/{id}/$everything", _ENCOUNTER),
    )
)
