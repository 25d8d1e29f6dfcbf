"""Token parameters as conditions: codes, identifiers, texts, value sets, hierarchies.

https://hl7.org/fhir/R4/search.html#token
"""

from __future__ import annotations

from fhir_server.access.compartments import patient_compartment
from fhir_server.search.conditions import AnyOf, AnyPosting, Condition, Role, Subsumption
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import Parameter, registry
from fhir_server.search.strings import prefix_condition
from fhir_server.search.text import split, unescape
from fhir_server.search.values import blind_of_type_hash, blind_token_hashes, of_type_hash, token_hashes
from foramen.kernel.errors import InvalidRequestError

_BARE = frozenset({"code", "boolean", "id", "string"})
"""Data types that hold a code without its system, which the element's binding implies."""


def is_bare(parameter: Parameter) -> bool:
    """Whether the parameter's elements hold codes without a system."""
    return bool(parameter.data_types & _BARE)


def token_parts(code: str, value: str) -> tuple[str | None, str]:
    """Split ``system|code``: the system is None when no bar is written, and empty for ``|code``.

    Raises
    ------
    InvalidRequestError
        More than two parts, or nothing in either.
    """
    parts = [unescape(part) for part in split(value, "|")]
    if len(parts) > 2 or not any(parts):
        raise InvalidRequestError(f"{code} needs code, system|code, |code or system|", issue_code="value")
    return (None, parts[0]) if len(parts) == 1 else (parts[0], parts[1])


def asked_hashes(system: str | None, code: str, *, exact: bool, folded: bool) -> list[int]:
    """Hashes that one token value asks for.

    Parameters
    ----------
    exact : the elements are identifiers, whose case counts
    folded : (also) codes, whose case does not
    """
    if not code:
        return [hash64(f"{system}|")]
    hashes = []
    for kind in ([True] if exact else []) + ([False] if folded or not exact else []):
        plain, qualified = token_hashes(system or None, code, exact=kind)[:2]
        hashes.append(plain if system is None else qualified)
    return hashes + (_blind_hashes(system, code) if exact else [])


def _blind_hashes(system: str | None, value: str) -> list[int]:
    """Hashes of national identifiers; those without a key are asked for as well, for what is not sealed yet."""
    blind = registry().blind
    if blind is None or (system is not None and not blind.knows(system)):
        return []
    alone, qualified = blind_token_hashes(system or "", value, blind)
    return [alone if system is None else qualified]


def part_hashes(code: str, value: str, data_types: frozenset[str]) -> list[int]:
    """Hashes that one token value asks for in elements of these data types."""
    system, name = token_parts(code, value)
    exact = "Identifier" in data_types
    hashes = asked_hashes(system, name, exact=exact, folded=bool(data_types - {"Identifier"}))
    if system and name and data_types & _BARE:
        hashes += asked_hashes(None, name, exact=False, folded=True)
    return hashes


def token_condition(parameter: Parameter, modifier: str | None, values: list[str]) -> Condition:
    """Return the condition of a token parameter (all modifiers but `:in` and `:not-in`)."""
    if any(path.endswith("#true") for path in parameter.paths):
        return _existence(parameter, values, modifier)
    match modifier:
        case "of-type":
            found = [value for text in values for value in _of_type(parameter, text)]
            return _postings(parameter, found, Role.SELECTIVE)
        case "text":
            return prefix_condition(parameter.bases(), [unescape(value) for value in values])
        case "above" | "below":
            return any_of([_subsumption(parameter, modifier, value) for value in values])
    hashes = [found for value in values for found in part_hashes(parameter.code, value, parameter.data_types)]
    if modifier == "not":
        return AnyPosting(tuple(base ^ value for base in parameter.bases() for value in hashes), negated=True)
    return _postings(parameter, hashes, _role(parameter, values))


def any_of(conditions: list[Condition]) -> Condition:
    """Join alternatives."""
    return conditions[0] if len(conditions) == 1 else AnyOf(tuple(conditions))


def _postings(parameter: Parameter, hashes: list[int], role: Role) -> Condition:
    bases = parameter.bases()
    found = tuple(dict.fromkeys(base ^ value for base in bases for value in hashes))
    return AnyPosting(found, role=role, base=bases[0] if role is Role.CODE else 0)


def _role(parameter: Parameter, values: list[str]) -> Role:
    if parameter.data_types == {"Identifier"} and not any(value.endswith("|") for value in values):
        return Role.SELECTIVE
    is_paired = (
        parameter.code == "code"
        and len(parameter.paths) == 1
        and bool(patient_compartment().get(parameter.resource_type))
        and not any(value.endswith("|") for value in values)
    )
    return Role.CODE if is_paired else Role.PLAIN


def _of_type(parameter: Parameter, value: str) -> list[int]:
    parts = [unescape(part) for part in split(value, "|")]
    if len(parts) != 3 or not all(parts):
        raise InvalidRequestError(f"{parameter.code}:of-type needs system|code|value", issue_code="value")
    blind = registry().blind
    system, kind, text = parts
    keyed = [] if blind is None else [blind_of_type_hash(system, kind, text, blind)]
    return [of_type_hash(system, kind, text), *keyed]


def _subsumption(parameter: Parameter, modifier: str, value: str) -> Condition:
    system, code = token_parts(parameter.code, value)
    if not system or not code:
        raise InvalidRequestError(f"{parameter.code}:{modifier} needs system|code", issue_code="value")
    return Subsumption(
        parameter.bases(), system, code, modifier == "above", is_bare(parameter), f"{parameter.code}:{modifier}"
    )


def _existence(parameter: Parameter, values: list[str], modifier: str | None) -> Condition:
    """`Patient.deceased`: false is what no element says."""
    if modifier not in (None, "not") or len(values) != 1 or values[0] not in ("true", "false"):
        raise InvalidRequestError(f"{parameter.code} needs true or false", issue_code="value")
    yes = token_hashes(None, "true")[0]
    negated = (values[0] == "false") != (modifier == "not")
    return AnyPosting(tuple(base ^ yes for base in parameter.bases()), negated)
