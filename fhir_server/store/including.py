"""`_include` and `_revinclude`: what the matches refer to, and what refers to them; each under the caller's access.

https://hl7.org/fhir/R4/search.html#revinclude
"""

from __future__ import annotations

from typing import Any

from fhir_server.access.policy import Access
from fhir_server.model.references import parse_reference
from fhir_server.search.conditions import AnyPosting, Condition, Include, Keys, SearchRequest, Selection
from fhir_server.search.hashing import resource_key
from fhir_server.search.index import references_of
from fhir_server.search.parameters import Parameter, resource_types, type_parameters
from fhir_server.settings import FhirSettings
from fhir_server.store import searching
from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError

_MAX_ROUNDS = 5


async def included(
    connection: Any,
    access: Access,
    request: SearchRequest,
    matches: list[Stored],
    own_url: str,
    limits: FhirSettings,
) -> list[Stored]:
    """Return the resources that the includes of a search add, without those that are matches.

    Raises
    ------
    InvalidRequestError
        `too-costly`: more than the limit would come along.
    """
    seen = {stored.reference for stored in matches}
    found: list[Stored] = []
    frontier, first = matches, True
    for _ in range(_MAX_ROUNDS):
        added: list[Stored] = []
        for include in request.includes:
            if first or include.iterate:
                step = _reverse if include.reverse else _forward
                for stored in await step(connection, access, include, frontier, own_url, limits.max_included):
                    if stored.reference not in seen:
                        seen.add(stored.reference)
                        added.append(stored)
        found += added
        if len(found) > limits.max_included:
            raise InvalidRequestError("The search would include too many resources", issue_code="too-costly")
        if not added or not any(include.iterate for include in request.includes):
            break
        frontier, first = added, False
    return found


def _parameters(include: Include) -> list[Parameter]:
    table = type_parameters(include.source_type).parameters
    if include.parameter != "*":
        return [table[include.parameter]]
    return [parameter for parameter in table.values() if parameter.kind == "reference"]


async def _forward(
    connection: Any, access: Access, include: Include, sources: list[Stored], own_url: str, limit: int
) -> list[Stored]:
    wanted: dict[str, set[int]] = {}
    for stored in sources:
        if stored.resource_type != include.source_type:
            continue
        for parameter in _parameters(include):
            for reference in references_of(stored.data(), parameter, own_url):
                parsed = parse_reference(reference, own_url)
                if parsed is None or parsed[0] not in resource_types():
                    continue
                if parameter.targets and parsed[0] not in parameter.targets:
                    continue
                if include.target_type in (None, parsed[0]):
                    wanted.setdefault(parsed[0], set()).add(resource_key(*parsed))
    found: list[Stored] = []
    for resource_type, keys in wanted.items():
        if access.may(resource_type, "r"):
            found += await _select(connection, access, resource_type, Keys(tuple(keys)), limit, "r")
    return found


async def _reverse(
    connection: Any, access: Access, include: Include, targets: list[Stored], own_url: str, limit: int
) -> list[Stored]:
    if not access.may(include.source_type, "s"):
        return []
    hashes = [
        base ^ resource_key(stored.resource_type, stored.logical_id)
        for parameter in _parameters(include)
        for stored in targets
        if not parameter.targets or stored.resource_type in parameter.targets
        if include.target_type in (None, stored.resource_type)
        for base in parameter.bases()
    ]
    if not hashes:
        return []
    return await _select(connection, access, include.source_type, AnyPosting(tuple(hashes)), limit, "s")


async def _select(
    connection: Any, access: Access, resource_type: str, condition: Condition, limit: int, action: str
) -> list[Stored]:
    bound = access.condition(resource_type, action)
    conditions = (condition,) if bound is None else (condition, bound)
    return await searching.matches(connection, Selection(resource_type, conditions), limit + 1)
