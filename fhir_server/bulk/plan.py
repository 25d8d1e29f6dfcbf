"""From an export request and a caller to what is read of each type: scopes, compartments, members, filters. No I/O.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#security-considerations
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fhir_server.access.compartments import patient_compartment
from fhir_server.access.policy import Access
from fhir_server.bulk.pseudonyms import covered_types
from fhir_server.bulk.request import ExportRequest
from fhir_server.search.conditions import AnyPosting, Condition, Nothing, Selection
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base, resource_types, type_parameters
from fhir_server.search.parse import SearchParser
from fhir_server.store.bulk import Wanted
from foramen.kernel.errors import ForbiddenError, InvalidRequestError

_ACTIONS = "rs"
"""An export finds (s) and shows (r)."""
_RESULT = {"_include", "_revinclude", "_sort", "_count", "_summary", "_elements", "_total", "_cursor", "_contained"}


def types_of(request: ExportRequest, access: Access) -> list[str]:
    """Return the types to export, in order.

    Raises
    ------
    InvalidRequestError
        A type was asked for that this level does not export.
    ForbiddenError
        A type was asked for without a scope for it, or no scope reaches any.
    """
    compartment = patient_compartment()
    there = {
        name for name in resource_types() if request.level == "system" or name == "Patient" or compartment.get(name)
    }
    if request.project:
        there &= covered_types()
    if request.types:
        outside = [name for name in request.types if name not in there]
        if outside and (len(outside) == len(request.types) or not request.lenient):
            text = "_type names a type that this export does not hold"
            raise InvalidRequestError(text, issue_code="not-supported", expression=("_type",))
        chosen = [name for name in request.types if name in there]
        for name in chosen:
            for action in _ACTIONS:
                access.context.reach(name, action)
        return chosen
    chosen = sorted(name for name in there if all(access.may(name, action) for action in _ACTIONS))
    if not chosen:
        raise ForbiddenError("The token has no scope to search and read any resource type")
    return chosen


def plan(request: ExportRequest, access: Access, parser: SearchParser, members: list[str] | None) -> list[Wanted]:
    """Return what is read of each type.

    Parameters
    ----------
    parser : of the same caller; it adds the caller's access to every filter
    members : ids of the Patients of a Group or of the `patient` parameter; None: all
    """
    keys = None if members is None else tuple(sorted({resource_key("Patient", item) for item in members}))
    found = [_wanted(name, request, access, parser, keys) for name in types_of(request, access)]
    if request.provenance and all(access.may("Provenance", action) for action in _ACTIONS):
        found = [_provenance(found, access), *(item for item in found if item.resource_type != "Provenance")]
    return found


def _wanted(
    name: str, request: ExportRequest, access: Access, parser: SearchParser, keys: tuple[int, ...] | None
) -> Wanted:
    patients, more = _bounds(name, access, keys)
    members: Selection | None = None
    conditions: tuple[Condition, ...] = ()
    if patients is not None:
        base = patient_base(name)
        conditions = (AnyPosting(tuple(base ^ key for key in patients)),) if patients else (Nothing(),)
        members = Selection(name, conditions)
    queries = [item.partition("?")[2] for item in request.filters if item.partition("?")[0] == name]
    filters = [Selection(name, (*conditions, *_parse(parser, name, query, request).conditions)) for query in queries]
    if not filters and more:
        filters = [Selection(name, (*conditions, *more))]
    in_any_record = request.level == "patient" and patients is None
    wall = None if access.wall is None else access.wall.of_exported(name)
    return Wanted(name, patients, members, in_any_record, tuple(filters), institution=wall)


def _bounds(
    name: str, access: Access, keys: tuple[int, ...] | None
) -> tuple[tuple[int, ...] | None, tuple[Condition, ...]]:
    """Return the patients whose records the caller may see, and what else the caller's access demands."""
    own = {access.compartment_key(name, action) for action in _ACTIONS} - {None}
    bound = keys
    for key in own:
        if key is not None:
            bound = (key,) if bound is None or key in bound else ()
    expected = [AnyPosting((patient_base(name) ^ key,)) for key in own if key is not None]
    found = [access.condition(name, action) for action in _ACTIONS]
    more: list[Condition] = []
    for condition in found:
        is_compartment = isinstance(condition, AnyPosting) and any(condition.hashes == e.hashes for e in expected)
        if condition is not None and not is_compartment and condition not in more:
            more.append(condition)
    return bound, tuple(more)


def _parse(parser: SearchParser, name: str, query: str, request: ExportRequest) -> Selection:
    try:
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as exc:
        raise InvalidRequestError("_typeFilter is not valid", issue_code="value") from exc
    if any(pair[0].partition(":")[0] in _RESULT for pair in pairs):
        raise InvalidRequestError("_typeFilter takes search parameters that select only", issue_code="not-supported")
    return parser.parse(name, pairs, strict=not request.lenient).selection


def _provenance(found: list[Wanted], access: Access) -> Wanted:
    """Provenance of what is exported."""
    targets = tuple(item for item in found if item.resource_type != "Provenance")
    patients, more = _bounds("Provenance", access, None)
    conditions: tuple[Condition, ...] = more
    if patients is not None:
        conditions = (*more, AnyPosting(tuple(patient_base("Provenance") ^ key for key in patients)))
    filters = (Selection("Provenance", conditions),) if conditions else ()
    links = type_parameters("Provenance").parameters["target"].bases()
    wall = None if access.wall is None else access.wall.of_exported("Provenance")
    return Wanted("Provenance", patients, None, filters=filters, about=targets, links=tuple(links), institution=wall)


def elements_of(request: ExportRequest, name: str) -> tuple[str, ...]:
    """Names of the elements that `_elements` keeps of a type; empty: all."""
    return tuple(element for kind, element in request.elements if kind in ("", name))


def members_of(group: dict[str, Any], now: str) -> tuple[list[str], list[str]]:
    """Return the ids of the Patients and of the Groups that belong to a Group now.

    Parameters
    ----------
    now : dateTime in UTC; members whose period has ended do not count
    """
    patients: list[str] = []
    groups: list[str] = []
    for member in group.get("member", ()):
        end = (member.get("period") or {}).get("end")
        if member.get("inactive") is True or (isinstance(end, str) and end < now[: len(end)]):
            continue
        resource_type, _, logical_id = str((member.get("entity") or {}).get("reference", "")).rpartition("/")
        if resource_type.rpartition("/")[2] == "Patient":
            patients.append(logical_id)
        elif resource_type.rpartition("/")[2] == "Group":
            groups.append(logical_id)
    return patients, groups
