"""Compartment search: `GET /Patient/{id}/Observation?…`, `GET /Patient/{id}/*`, `POST …/_search`.

https://hl7.org/fhir/R4/compartmentdefinition.html, https://hl7.org/fhir/R4/http.html#vsearch
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from fhir_server.access.compartments import compartment, compartment_types
from fhir_server.interactions import search_explain
from fhir_server.interactions.responses import MEDIA_TYPE
from fhir_server.interactions.search import form_pairs, query_pairs_of, shows_audit
from fhir_server.interactions.search_types import Pairs, answer, named_types, parse_types, types_to_search
from fhir_server.search.conditions import AnyOf, AnyPosting, Condition, Keys
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base, r4_parameters
from fhir_server.server import Call
from foramen.kernel.errors import NotFoundError

EVERY_TYPE = "*"
_SELF = "{def}"


async def search_compartment(call: Call) -> Response:
    """Search by the URL."""
    return await _search(call, query_pairs_of(call))


async def search_compartment_post(call: Call) -> Response:
    """Search by a form."""
    return await _search(call, await form_pairs(call))


def membership(name: str, logical_id: str, member: str) -> Condition | None:
    """Return what a resource of the type `member` fulfils when it belongs to the compartment of `name/logical_id`.

    None: no resource of that type ever does.
    """
    codes = compartment(name).get(member, [])
    key = resource_key(name, logical_id)
    if not codes:
        return None
    if name == "Patient":  # Indexed as one value, for access control.
        return AnyPosting((patient_base(member) ^ key,))
    found: list[Condition] = [Keys((key,))] if _SELF in codes else []
    table = r4_parameters(member).parameters
    hashes = tuple({base ^ key for code in codes if code != _SELF for base in table[code].bases()})
    if hashes:
        found.append(AnyPosting(hashes))
    return found[0] if len(found) == 1 else AnyOf(tuple(found))


def _member(call: Call) -> str:
    path: str = call.request.scope["path"]
    return [part for part in path.split("/")[2:] if part][2]


async def _search(call: Call, pairs: Pairs) -> Response:
    name, logical_id, member = call.resource_type, call.logical_id, _member(call)
    if name not in compartment_types():
        raise NotFoundError("There is no compartment of this resource type")
    members = frozenset(item for item, codes in compartment(name).items() if codes)
    if member != EVERY_TYPE and member not in members:
        raise NotFoundError("Resources of this type do not belong to this compartment")
    mode = search_explain.wants(call, pairs)
    pairs = search_explain.without(pairs)
    named, rest = named_types(pairs) if member == EVERY_TYPE else ([member], pairs)
    if name == "Patient":
        call.patient = f"Patient/{logical_id}"

    async def work(connection: Any) -> bytes:
        types = await types_to_search(call, connection, named, members)
        requests = parse_types(call, types, rest, lambda item: membership(name, logical_id, item), common=named is None)
        path = f"{name}/{logical_id}/{member}"
        return await answer(call, connection, requests, path, named if member == EVERY_TYPE else None, mode)

    primary = bool(mode) or member in ("AuditEvent", EVERY_TYPE) or shows_audit(call, pairs)
    return Response(await call.server.searches.run(work, primary=primary), media_type=MEDIA_TYPE)
