"""What a value set says about one code system, as a small algebra; `value_sets.py` builds it, `evaluate.py` answers it.

https://hl7.org/fhir/R4/valueset.html#compositions, https://hl7.org/fhir/R4/valueset-filter-operator.html
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Everything:
    """All concepts of the system."""


@dataclass(frozen=True, slots=True)
class Codes:
    """An enumeration: (code, display or empty), in its order."""

    listed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """An enumeration that is not shipped because its codes are licensed: nothing can be said."""


@dataclass(frozen=True, slots=True)
class Below:
    """Descendants of a code, itself included or not."""

    code: str
    included: bool


@dataclass(frozen=True, slots=True)
class Above:
    """Ancestors of a code and itself (generalizes)."""

    code: str


@dataclass(frozen=True, slots=True)
class HasProperty:
    """A property has one of the values; no values: has the property at all."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """A property (or ``code``, ``display``) matches a regular expression as a whole."""

    name: str
    pattern: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """Conjunction."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Disjunction."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Negation."""

    part: Predicate


Predicate = Everything | Codes | Withheld | Below | Above | HasProperty | Matches | AllOf | AnyOf | Not


def all_of(*parts: Predicate) -> Predicate:
    """Conjunction without superfluous parts."""
    kept = tuple(part for part in parts if not isinstance(part, Everything))
    return kept[0] if len(kept) == 1 else AllOf(kept) if kept else Everything()


def any_of(*parts: Predicate) -> Predicate:
    """Disjunction without superfluous parts."""
    return parts[0] if len(parts) == 1 else AnyOf(parts)


def enumerated(predicate: Predicate) -> dict[str, str] | None:
    """Codes and displays when the predicate is made of enumerations alone, so that it needs no code system.

    Returns
    -------
    code → display (may be empty), in order; None when something else is in it.
    """
    match predicate:
        case Codes(listed):
            return dict(listed)
        case AnyOf(parts):
            found: dict[str, str] = {}
            for part in parts:
                codes = enumerated(part)
                if codes is None:
                    return None
                for code, display in codes.items():
                    found[code] = found.get(code) or display
            return found
        case AllOf(parts):
            sure = [codes for part in parts if (codes := enumerated(part)) is not None]
            refused = [
                codes for part in parts if isinstance(part, Not) and (codes := enumerated(part.part)) is not None
            ]
            if not sure or len(sure) + len(refused) != len(parts):
                return None
            return {
                code: display
                for code, display in sure[0].items()
                if all(code in other for other in sure[1:]) and not any(code in other for other in refused)
            }
    return None


def listed_displays(predicate: Predicate) -> dict[str, str]:
    """Displays that enumerations in the predicate give their codes; they go before the system's own."""
    match predicate:
        case Codes(listed):
            return {code: display for code, display in listed if display}
        case AnyOf(parts) | AllOf(parts):
            found: dict[str, str] = {}
            for part in parts:
                found = {**listed_displays(part), **found}
            return found
    return {}


def is_withheld(predicate: Predicate) -> bool:
    """Whether an enumeration that is not shipped is a part of the predicate."""
    match predicate:
        case Withheld():
            return True
        case Not(part):
            return is_withheld(part)
        case AnyOf(parts) | AllOf(parts):
            return any(is_withheld(part) for part in parts)
    return False
