"""Values of the terminology service: concepts, answers of validation, expansion, lookup and translation.

https://hl7.org/fhir/R4/terminology-service.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Coding:
    """One code, as an expansion lists it."""

    system: str
    code: str
    display: str | None = None
    version: str | None = None
    inactive: bool = False
    designations: tuple[Designation, ...] = ()

    def to_fhir(self) -> dict[str, Any]:
        """FHIR Coding."""
        named = {"system": self.system, "version": self.version, "code": self.code, "display": self.display}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True, slots=True)
class Designation:
    """Another name of a concept."""

    language: str
    value: str
    use: str = ""

    def to_fhir(self) -> dict[str, Any]:
        """Element of `ValueSet.expansion.contains.designation`."""
        use = {"use": {"code": self.use}} if self.use else {}
        language = {"language": self.language} if self.language else {}
        return {**language, **use, "value": self.value}


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of a code system; `number` is its place in the hierarchy's order."""

    number: int
    code: str
    display: str
    active: bool = True
    definition: str = ""
    designations: tuple[Designation, ...] = ()
    properties: tuple[tuple[str, Any], ...] = ()

    def named(self, language: str | None) -> str:
        """Return the display in a language (``zh`` also finds ``zh-CN``), else the system's own."""
        if language:
            for wanted in (language.lower(), language.lower().partition("-")[0]):
                for item in self.designations:
                    known = item.language.lower()
                    if known == wanted or known.startswith(f"{wanted}-"):
                        return item.value
        return self.display

    def answers_to(self, display: str) -> bool:
        """Whether a text is one of the names, apart from case and white space."""
        wanted = " ".join(display.split()).casefold()
        names = (self.display, *(item.value for item in self.designations))
        return any(" ".join(name.split()).casefold() == wanted for name in names)


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether a code is valid; None: it cannot be said, because a system or value set is not known here."""

    result: bool | None
    message: str = ""
    display: str | None = None
    system: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Expansion:
    """One page of the codes of a value set; `total` counts all pages."""

    codes: list[Coding]
    total: int
    offset: int = 0
    value_set: dict[str, Any] = field(default_factory=dict)
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is known about a code."""

    name: str
    version: str | None
    concept: Concept
    parents: tuple[Concept, ...] = ()
    children: tuple[Concept, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """One target of a translation."""

    equivalence: str
    coding: Coding
    source: str
    comment: str = ""
    products: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Translation:
    """Targets of a code; `result` is False when none is a match, None when no map could be asked."""

    result: bool
    message: str
    matches: tuple[Match, ...] = ()
