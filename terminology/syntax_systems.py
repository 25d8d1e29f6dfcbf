"""Code systems whose codes follow a grammar and cannot be listed: UCUM, languages (BCP 47), media types (BCP 13).

https://hl7.org/fhir/R4/terminologies-systems.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from terminology import systems, ucum
from terminology.patterns import compile_pattern
from terminology.predicates import AllOf, AnyOf, Codes, Everything, HasProperty, Matches, Not, Predicate

_LANGUAGE = re.compile(
    r"(?:[A-Za-z]{2,3}(?:-[A-Za-z]{3}){0,3}|[A-Za-z]{4,8})(?:-[A-Za-z]{4})?(?:-(?:[A-Za-z]{2}|\d{3}))?"
    r"(?:-(?:[A-Za-z0-9]{5,8}|\d[A-Za-z0-9]{3}))*(?:-[A-WY-Za-wy-z0-9](?:-[A-Za-z0-9]{2,8})+)*"
    r"(?:-x(?:-[A-Za-z0-9]{1,8})+)?|x(?:-[A-Za-z0-9]{1,8})+"
)  # RFC 5646 §2.1 without the grandfathered tags
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # noqa: S105 - RFC 6838 §4.2
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:\s*;\s*{_TOKEN}=(?:{_TOKEN}|\"[^\"]*\"))*")


@dataclass(frozen=True, slots=True)
class SyntaxSystem:
    """A grammar: `display` gives the name of a valid code and None for any other text."""

    url: str
    name: str
    display: Callable[[str], str | None]

    def holds(self, predicate: Predicate, code: str) -> bool | None:
        """Whether a valid code fulfils a predicate; None when that cannot be said."""
        match predicate:
            case Everything():
                return True
            case Codes(listed):
                return any(code == known for known, _ in listed)
            case HasProperty("canonical", values) if self.url == systems.UCUM:
                return any(ucum.is_comparable(code, value) for value in values)
            case Matches("code", pattern):
                return compile_pattern(pattern).fullmatch(code) is not None
            case Not(part):
                found = self.holds(part, code)
                return None if found is None else not found
            case AnyOf(parts):
                return three_valued_any([self.holds(part, code) for part in parts])
            case AllOf(parts):
                return three_valued_all([self.holds(part, code) for part in parts])
        return None


def three_valued_any(found: list[bool | None]) -> bool | None:
    """Kleene's disjunction: an unknown part matters only when no part is true."""
    return True if True in found else None if None in found else False


def three_valued_all(found: list[bool | None]) -> bool | None:
    """Kleene's conjunction."""
    return False if False in found else None if None in found else True


def _language(code: str) -> str | None:
    return code if len(code) <= 100 and _LANGUAGE.fullmatch(code) else None


def _media_type(code: str) -> str | None:
    return code if len(code) <= 300 and _MEDIA_TYPE.fullmatch(code) else None


SYNTAX_SYSTEMS = {
    item.url: item
    for item in (
        SyntaxSystem(systems.UCUM, "Unified Code for Units of Measure (UCUM)", ucum.display),
        SyntaxSystem(systems.BCP47, "Tags for Identifying Languages (BCP 47)", _language),
        SyntaxSystem(systems.BCP13, "Media Types (BCP 13)", _media_type),
    )
}
