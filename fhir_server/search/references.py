"""Reference parameters as conditions: literal, logical and canonical references, their types and hierarchies.

https://hl7.org/fhir/R4/search.html#reference
"""

from __future__ import annotations

from functools import lru_cache

from fhir_server.access.compartments import patient_compartment
from fhir_server.model.references import LOGICAL_ID, normalise_reference, parse_reference
from fhir_server.search.conditions import AnyPosting, Condition, Nothing, Role
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import Parameter, r4_parameters, resource_types, type_parameters
from fhir_server.search.text import unescape
from fhir_server.search.tokens import asked_hashes, token_parts
from fhir_server.search.values import identifier_hash

LITERAL = frozenset({"Reference", "Resource"})
CANONICAL = frozenset({"canonical", "uri"})
PART_OF = ("partof", "part-of")
"""Codes of the parameters by which a type refers to the larger whole of its own type."""


def reference_condition(parameter: Parameter, modifier: str | None, values: list[str], own_url: str) -> Condition:
    """Return the condition of a reference parameter (all modifiers but `:above` and `:below`)."""
    bases = parameter.bases()
    hashes: list[int] = []
    names: set[str] = set()
    for value in map(unescape, values) if modifier != "identifier" else values:
        if modifier == "identifier":
            system, code = token_parts(parameter.code, value)
            hashes += [identifier_hash(found) for found in asked_hashes(system, code, exact=True, folded=False)]
        else:
            references = asked_references(parameter, modifier, value, own_url)
            names.update(reference.partition("/")[0] for reference in references)
            hashes += [hash64(reference) for reference in references]
    if not hashes:
        return Nothing()
    found = tuple(dict.fromkeys(base ^ value for base in bases for value in hashes))
    if names == {"Patient"} and len(bases) == 1 and leads_to_patient(parameter):
        return AnyPosting(found, role=Role.PATIENT, base=bases[0])
    return AnyPosting(found)


def leads_to_patient(parameter: Parameter) -> bool:
    """Whether every path of the parameter puts a resource into the compartment of the Patient it refers to."""
    return bool(parameter.paths) and _member_paths(parameter.resource_type).issuperset(parameter.paths)


@lru_cache(maxsize=256)
def _member_paths(resource_type: str) -> frozenset[str]:
    table = r4_parameters(resource_type).parameters
    codes = [code for code in patient_compartment().get(resource_type, []) if code in table]
    return frozenset(path for code in codes for path in table[code].paths)


def asked_references(parameter: Parameter, modifier: str | None, value: str, own_url: str) -> list[str]:
    """Return the references, as the index writes them, that a value may mean; none when no target type fits."""
    if parameter.data_types and parameter.data_types.isdisjoint(LITERAL):
        return [normalise_reference(value, own_url)]
    parsed = parse_reference(value, own_url)
    if parsed is not None:
        allowed = (modifier,) if modifier else parameter.targets
        return [f"{parsed[0]}/{parsed[1]}"] if not allowed or parsed[0] in allowed else []
    if LOGICAL_ID.fullmatch(value):
        targets = (modifier,) if modifier else parameter.targets or tuple(sorted(resource_types()))
        return [f"{target}/{value}" for target in targets]
    return [value]


def part_of(resource_type: str) -> Parameter | None:
    """Return the parameter by which a type refers to its larger whole, or None when it has no hierarchy."""
    table = type_parameters(resource_type).parameters
    for code in PART_OF:
        found = table.get(code)
        if found is not None and found.kind == "reference" and resource_type in found.targets:
            return found
    return None
