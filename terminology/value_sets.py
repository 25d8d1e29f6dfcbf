"""From a ValueSet to one predicate for each code system: include, exclude, filters, imported value sets.

https://hl7.org/fhir/R4/valueset.html#compositions
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from foramen.kernel.errors import InvalidRequestError, NotFoundError
from terminology.predicates import (
    Above,
    Below,
    Codes,
    Everything,
    HasProperty,
    Matches,
    Not,
    Predicate,
    Withheld,
    all_of,
    any_of,
)

_MAX_NESTING = 20
_MAX_VALUE_SETS = 200
Find = Callable[[str], Awaitable[dict[str, Any] | None]]
"""Find a ValueSet by its canonical (with ``|version`` or not)."""
Key = tuple[str, str]
"""(system, version); the version is empty when any will do."""


@dataclass(slots=True)
class Rules:
    """What a value set says: a predicate for each code system, in the order they are named.

    `incomplete`: an imported value set is not known here, so a code that is not found may still belong. `unsure`: one
    that is excluded is not known, so a code that is found may still not belong.
    """

    predicates: dict[Key, Predicate] = field(default_factory=dict)
    incomplete: bool = False
    unsure: bool = False


def _fault(text: str, code: str = "invalid") -> InvalidRequestError:
    return InvalidRequestError(text, issue_code=code)


class Compiler:
    """Compiles one value set and those it imports."""

    def __init__(self, find: Find, url: str | None = None) -> None:
        self._find = find
        self._open: list[str] = [url] if url else []
        self._done: dict[str, Rules | None] = {}

    async def compile(self, resource: dict[str, Any]) -> Rules:
        """Return the rules of a ValueSet.

        Raises
        ------
        InvalidRequestError
            The value set includes itself, is nested too deeply, or has a filter that is not supported.
        """
        compose = resource.get("compose")
        if compose is None:
            return _of_expansion(resource)
        included = [await self._part(part) for part in compose.get("include", [])]
        excluded = [await self._part(part) for part in compose.get("exclude", [])]
        rules = Rules(
            incomplete=any(part.incomplete for part in included),
            unsure=any(part.unsure for part in included) or any(part.incomplete or part.unsure for part in excluded),
        )
        keys = dict.fromkeys(key for part in included for key in part.predicates)
        for key in keys:
            predicate = any_of(*(part.predicates[key] for part in included if key in part.predicates))
            # An exclusion of one version, or of any, applies to every inclusion it overlaps with.
            refused = [
                Not(found)
                for part in excluded
                for other, found in part.predicates.items()
                if other[0] == key[0] and (other[1] == key[1] or not other[1] or not key[1])
            ]
            rules.predicates[key] = all_of(predicate, *refused)
        return rules

    async def _part(self, part: dict[str, Any]) -> Rules:
        own: Rules | None = None
        if part.get("system"):
            predicate: Predicate = Everything()
            if part.get("withheld"):
                predicate = Withheld()
            elif part.get("concept"):
                listed = [item for item in part["concept"] if item.get("code")]
                predicate = Codes(tuple((item["code"], item.get("display") or "") for item in listed))
            elif part.get("filter"):
                predicate = all_of(*(_filter(item) for item in part["filter"]))
            own = Rules({(part["system"], part.get("version", "")): predicate})
        imported = [await self._imported(canonical) for canonical in part.get("valueSet", [])]
        rules = own or Rules(dict(imported[0].predicates) if imported else {})
        for other in imported if own is not None else imported[1:]:
            rules.predicates = _intersection(rules.predicates, other.predicates)
        rules.incomplete = any(other.incomplete for other in imported)
        rules.unsure = any(other.unsure for other in imported)
        return rules

    async def _imported(self, canonical: str) -> Rules:
        if canonical in self._open or canonical.partition("|")[0] in self._open:
            raise _fault("The value set includes itself", "processing")
        if len(self._open) >= _MAX_NESTING or len(self._done) >= _MAX_VALUE_SETS:
            raise _fault("The value set imports too many others", "too-costly")
        if canonical not in self._done:
            resource = await self._find(canonical)
            if resource is None:
                self._done[canonical] = None
            else:
                self._open.append(canonical)
                self._done[canonical] = await self.compile(resource)
                self._open.pop()
        return self._done[canonical] or Rules(incomplete=True)


def _intersection(left: dict[Key, Predicate], right: dict[Key, Predicate]) -> dict[Key, Predicate]:
    found: dict[Key, Predicate] = {}
    for (system, version), predicate in left.items():
        others = [
            other
            for (name, number), other in right.items()
            if name == system and (number == version or not number or not version)
        ]
        if others:
            found[system, version] = all_of(predicate, any_of(*others))
    return found


def _of_expansion(resource: dict[str, Any]) -> Rules:
    """Take a value set that was stored with its expansion alone."""
    listed: dict[Key, list[tuple[str, str]]] = {}

    def walk(items: list[dict[str, Any]], nesting: int) -> None:
        if nesting > _MAX_NESTING:
            raise _fault("The expansion is nested too deeply", "too-costly")
        for item in items:
            if item.get("code") and not item.get("abstract"):
                listed.setdefault((item.get("system", ""), ""), []).append((item["code"], item.get("display", "")))
            walk(item.get("contains", []), nesting + 1)

    walk(resource.get("expansion", {}).get("contains", []), 0)
    return Rules({key: Codes(tuple(codes)) for key, codes in listed.items()})


def _filter(item: dict[str, Any]) -> Predicate:
    """https://hl7.org/fhir/R4/valueset-filter-operator.html"""
    name, operator, value = item.get("property", ""), item.get("op", ""), item.get("value", "")
    values = tuple(part.strip() for part in value.split(","))
    match operator:
        case "is-a":
            return Below(value, included=True)
        case "descendent-of":
            return Below(value, included=False)
        case "is-not-a":
            return Not(Below(value, included=True))
        case "generalizes":
            return Above(value)
        case "regex":
            return Matches(name, value)
        case "in":
            return Codes(tuple((code, "") for code in values)) if name in _CODE else HasProperty(name, values)
        case "not-in":
            return Not(Codes(tuple((code, "") for code in values)) if name in _CODE else HasProperty(name, values))
        case "exists":
            found = HasProperty(name, ())
            return found if value == "true" else Not(found)
        case "=":
            return Codes(((value, ""),)) if name in _CODE else HasProperty(name, (value,))
    raise _fault("The value set has a filter operator that is not supported", "not-supported")


_CODE = ("code", "concept")


def require_known(rules: Rules) -> None:
    """Refuse to list a value set of which a part is not known.

    Raises
    ------
    NotFoundError
        An imported value set is missing.
    """
    if rules.incomplete or rules.unsure:
        raise NotFoundError("The value set imports another one that is not known here")
