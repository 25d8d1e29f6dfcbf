"""`Patient/{id}/$access-log`: who saw this record. Our own operation; answers a searchset of redacted AuditEvents.

PIPL art. 44-45 (right to know, access); https://hl7.org/fhir/R4/auditevent.html; docs/api/access-log.md
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.responses import Response

from fhir_server.access.policy import Access as Policy
from fhir_server.audit.accesses import ACCESS_KIND, KINDS, Access, access_of
from fhir_server.interactions.bundles import bundle, search_entry
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.operations.parameters import Parameters, parameters_of
from fhir_server.route import Route
from fhir_server.search import paging
from fhir_server.search.conditions import AllOf, AnyOf, AnyPosting, SearchRequest, Selection
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.parameters import r4_parameters
from fhir_server.search.parse import SearchParser
from fhir_server.server import Call
from fhir_server.store import reading, searching
from fhir_server.store.changes import Stored
from foramen.kernel.access_context import ADMINISTRATOR, AccessContext, Scope, parse_scopes
from foramen.kernel.audit_event import OPERATION_NAME
from foramen.kernel.errors import ForbiddenError, NotFoundError

_EVENT = "AuditEvent"
_NAMES = ("start", "end", "_count")
_REDACTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "REDACTED"}
_MANY = "Bulk export of many records, which may have held this one"
# The selection is bound to one patient by this module; an event that names several is in nobody's compartment, and
# the patients among them shall see it all the same, without the others.
_INSIDE = Policy(AccessContext("foramen", "foramen", parse_scopes(f"system/{_EVENT}.s")), None)


async def access_log(call: Call) -> Response:
    """Return accesses to one record, newest first, in pages."""
    scopes = _reader(call)
    parameters = await parameters_of(call)
    parameters.check_known((*_NAMES, "_cursor"))
    request = _request(call, parameters, scopes)
    call.patient = f"Patient/{call.logical_id}"
    async with call.server.connections.lend() as connection:
        if not await _sees_patient(call, connection, bounded=bool(scopes)):
            raise NotFoundError("Patient not found")
        page = await searching.page(connection, request)
        shown = _Shown(call, [stored.data() for stored in page.matches])
        await shown.look_up(connection)
    base = f"{call.server.own_url}/Patient/{call.logical_id}/$access-log"
    echo = [(name, str(item.value)) for name in _NAMES for item in parameters.every(name)]
    links = [("self", _link(base, echo))]
    if page.following is not None:
        links.append(("next", _link(base, [*echo, ("_cursor", paging.encode(page.following))])))
    own_url = call.server.own_url
    entries = [
        search_entry(f"{own_url}/{_EVENT}/{event['id']}", orjson.dumps(event), "match") for event in shown.redacted()
    ]
    return Response(bundle("searchset", entries, links=links), media_type=MEDIA_TYPE)


def _reader(call: Call) -> tuple[Scope, ...]:
    """Let pass who may ask; returns the scopes that bound what an auditor sees, none of patients and administrators.

    A patient scope is not enough: an app that a clinician opened for a patient has one too.

    Raises
    ------
    ForbiddenError
        Neither the patient's own sign-in, nor an auditor or a service with a scope that names AuditEvents.
    NotFoundError
        A patient asks for another's record.
    """
    context = call.access.context
    if context.is_patient:
        granted = [s for s in context.granted(_EVENT, "s") if s.context == "patient" and not s.query]
        if not granted or context.patient is None:
            raise ForbiddenError("This needs the scope patient/AuditEvent.s of the patient's own sign-in")
        if context.patient != call.logical_id:
            raise NotFoundError("Patient not found")
        return ()
    if context.has_scope(ADMINISTRATOR):
        return ()
    scopes = tuple(scope for scope in context.scopes if _reads_audit(scope))
    if not scopes:
        raise ForbiddenError("This needs the patient's own sign-in, or a scope that names AuditEvent (user, system)")
    return scopes


def _reads_audit(scope: Scope) -> bool:
    """Whether a scope was given for the audit itself: one for all types was given for the record."""
    needed = {"user": "rs", "system": "s"}.get(scope.context)
    return needed is not None and scope.resource_type == _EVENT and all(scope.covers(_EVENT, one) for one in needed)


async def _sees_patient(call: Call, connection: Any, *, bounded: bool) -> bool:
    """Whether there is such a Patient; an auditor needs no scope for it, but the wall of an institution holds.

    Consents do not: they are about the use of a record, and who oversees the use has to look there all the more.
    """
    if not bounded:
        return await reading.read(connection, "Patient", call.logical_id) is not None
    access = call.access
    context = replace(access.context, scopes=parse_scopes("user/Patient.rs"))
    asked = Policy(context, None, access.own_url, access.restriction, access.wall)
    parser = SearchParser(call.server.limits, call.server.own_url, asked)
    found = await searching.page(connection, parser.parse("Patient", [("_id", call.logical_id)], strict=True))
    return bool(found.matches)


def _link(base: str, query: list[tuple[str, str]]) -> str:
    return f"{base}?{urlencode(query)}" if query else base


def _request(call: Call, parameters: Parameters, scopes: tuple[Scope, ...]) -> SearchRequest:
    """Parse dates, size and page with the parser of searches; bind the selection to the patient, and by the scopes."""
    pairs = [("_sort", "-date")]
    for name, prefix in (("start", "ge"), ("end", "le")):
        if parameters.period(name) is not None:
            pairs.append(("date", f"{prefix}{parameters.text(name)}"))
    count = parameters.integer("_count", least=1)
    pairs.append(("_count", str(min(count or call.server.limits.page_size, call.server.limits.max_page_size))))
    cursor = parameters.text("_cursor")
    if cursor is not None:
        pairs.append(("_cursor", cursor))
    request = SearchParser(call.server.limits, call.server.own_url, _INSIDE).parse(_EVENT, pairs, strict=True)
    bound = AnyOf((_naming(call.logical_id), _bulk_exports(call)))
    granted = Policy(replace(call.access.context, scopes=scopes), None, call.server.own_url) if scopes else _INSIDE
    query = granted.condition(_EVENT, "s")  # Of a granular scope, e.g. of an auditor of one institution.
    bounds = (bound,) if query is None else (bound, query)
    request.selection = Selection(_EVENT, (*bounds, *request.selection.conditions))
    return request


def _naming(logical_id: str) -> AnyPosting:
    """Events that name the Patient: as what was asked for, as whose record it was, or as who asked."""
    key = resource_key("Patient", logical_id)
    table = r4_parameters(_EVENT).parameters
    return AnyPosting(tuple({base ^ key for code in ("patient", "entity") for base in table[code].bases()}))


def _bulk_exports(call: Call) -> AllOf:
    """Events of operations that handed out many records."""
    pairs = [("subtype", f"{OPERATION_NAME}|export"), ("outcome", "0")]
    request = SearchParser(call.server.limits, call.server.own_url, _INSIDE).parse(_EVENT, pairs, strict=True)
    return AllOf(request.selection.conditions)


@dataclass(slots=True)
class _Names:
    """What is known of those whom the events name."""

    display: dict[str, str]
    own: frozenset[str]


class _Shown:
    """The events of one page, and what of them may be told."""

    def __init__(self, call: Call, events: list[dict[str, Any]]) -> None:
        self._patient = f"Patient/{call.logical_id}"
        self._key = resource_key("Patient", call.logical_id)
        self._events = events
        self._ai = frozenset(call.server.limits.audit_ai_clients.split(","))
        self._names = _Names({}, frozenset())
        self._accesses = [access_of(event, self._ai) for event in events]

    async def look_up(self, connection: Any) -> None:
        """Find the names of practitioners and institutions, and which of the resources are in this record."""
        people = {name for access in self._accesses for name in (access.who, access.institution) if name}
        people = {name for name in people if name.startswith(("Practitioner/", "PractitionerRole/", "Organization/"))}
        named = {reference for event in self._events for reference in _references(event)}
        found = await reading.current(connection, [hash64(name) for name in people | named])
        stored = {item.reference: item for item in found.values()}
        self._names = _Names(
            {name: display for name in people if (display := _display(stored.get(name)))},
            frozenset(name for name in named if name in stored and self._key in stored[name].patients),
        )

    def redacted(self) -> list[dict[str, Any]]:
        """Return the events as the reader may see them: a new resource of chosen elements, never a filtered old one."""
        told = zip(self._events, self._accesses, strict=True)
        return [self._event(event, access) for event, access in told if not self._of_another(event)]

    def _of_another(self, event: dict[str, Any]) -> bool:
        """Whether it is an export of another patient's record alone."""
        patients = {name for name in _references(event) if name.startswith("Patient/")}
        return bool(patients) and self._patient not in patients

    def _event(self, event: dict[str, Any], access: Access) -> dict[str, Any]:
        own = [name for name in _references(event) if name in self._names.own or name == self._patient]
        kind = {"system": ACCESS_KIND, "code": access.kind, "display": KINDS[access.kind]}
        shown: dict[str, Any] = {
            "resourceType": _EVENT,
            "id": event["id"],
            "meta": {"lastUpdated": event["meta"]["lastUpdated"], "security": [_REDACTED]},
            "type": event["type"],
            "subtype": [kind],
            "recorded": event["recorded"],
            "outcome": event.get("outcome", "0"),
            "agent": self._agents(access),
            "source": {"observer": {"display": event["source"].get("observer", {}).get("display", "foramen")}},
            "entity": [{"what": {"reference": name}} for name in dict.fromkeys(own)],
        }
        if "action" in event:
            shown["action"] = event["action"]
        if not own:
            shown["outcomeDesc"] = _MANY
            del shown["entity"]
        return shown

    def _agents(self, access: Access) -> list[dict[str, Any]]:
        agent: dict[str, Any] = {"requestor": True, "role": [{"text": self._role(access)}]}
        if access.client:
            agent["name"] = access.client
        who = access.who or ""
        if who == self._patient:
            agent["who"] = {"reference": who, "display": "yourself"}
        elif who.startswith("Practitioner"):
            agent["who"] = {"reference": who, "display": self._names.display.get(who, "Practitioner")}
        agents = [agent]
        if access.institution:
            display = self._names.display.get(access.institution, "Organization")
            agents.append({"requestor": False, "who": {"reference": access.institution, "display": display}})
        return agents

    def _role(self, access: Access) -> str:
        who = access.who or ""
        if who.startswith("Patient/"):
            return "patient" if who == self._patient else "another person"
        if who.startswith("Practitioner"):
            return "practitioner"
        if access.client in self._ai:
            return "AI service"
        return "not signed in" if access.account in (None, "anonymous") else "service or account"


def _references(event: dict[str, Any]) -> list[str]:
    entities = [entity.get("what", {}).get("reference") for entity in event.get("entity", [])]
    return [reference for reference in entities if isinstance(reference, str)]


def _display(stored: Stored | None) -> str | None:
    """Name of a Practitioner or an Organization."""
    if stored is None or stored.is_deleted:
        return None
    data = stored.data()
    name = data.get("name")
    if isinstance(name, str):
        return name
    if not isinstance(name, list) or not name or not isinstance(name[0], dict):
        return None
    first = name[0]
    if first.get("text"):
        return str(first["text"])
    parts = [*first.get("prefix", []), *first.get("given", []), first.get("family", "")]
    return " ".join(str(part) for part in parts if part) or None


_DEFINITION = "https://foramen.example/fhir/OperationDefinition/Patient-access-log"
ROUTES: tuple[Route, ...] = tuple(
    Route(method, "Patient/{id}/$access-log", access_log, "", "operation", definition=_DEFINITION)
    for method in ("GET", "POST")
)
