"""What the service asks of a code system, and a code system in memory (HL7's, our own, those that users stored).

https://hl7.org/fhir/R4/codesystem.html
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import count
from typing import Any, Protocol, TypeVar

from foramen.kernel.errors import InvalidResourceError
from terminology.hierarchy import HierarchyCycleError, number_hierarchy
from terminology.intervals import IntervalSet
from terminology.model import Concept, Designation
from terminology.patterns import compile_pattern
from terminology.words import index_words, query_words

MAX_CONCEPTS_IN_MEMORY = 50_000
_MAX_NESTING = 50
_T = TypeVar("_T")
_COUNTER = count()
"""Answers are kept by system; a number is never used again, unlike an object's id."""


class CodeSystem(Protocol):
    """A code system whose concepts are numbered in the order of its hierarchy."""

    url: str
    version: str | None
    name: str
    content: str
    key: Hashable
    size: int

    async def find(self, codes: Iterable[str]) -> dict[str, int]:
        """Numbers of those codes that exist."""

    async def concepts(self, numbers: Sequence[int]) -> list[Concept]:
        """Return concepts in the order asked, with their designations and properties."""

    async def parents(self, number: int) -> list[int]:
        """Numbers of the direct parents."""

    async def children(self, number: int) -> list[int]:
        """Numbers of the direct children."""

    async def descendants(self, number: int) -> IntervalSet:
        """Return all below, itself included."""

    async def ancestors(self, number: int) -> IntervalSet:
        """Return all above, itself included."""

    async def inactive(self) -> IntervalSet:
        """Concepts that must not be used any more."""

    async def with_property(self, name: str, values: tuple[str, ...]) -> IntervalSet:
        """Concepts with one of the values, or with any value when none is named."""

    async def matching(self, name: str, pattern: str) -> IntervalSet:
        """Concepts whose property, ``code`` or ``display`` matches a whole regular expression."""

    async def search(self, text: str) -> IntervalSet:
        """Concepts with every word of the text at the start of a word of a name or code (CJK: anywhere)."""

    async def codes(self, numbers: IntervalSet) -> list[str]:
        """Codes of a set."""


class MemoryCodeSystem:
    """A code system built from a FHIR CodeSystem.

    Raises
    ------
    InvalidResourceError
        Codes twice, a cycle, unknown parents, or too many concepts.
    """

    def __init__(self, resource: dict[str, Any]) -> None:
        self.url: str = resource.get("url", "")
        self.version: str | None = resource.get("version")
        self.name: str = resource.get("title") or resource.get("name") or self.url
        self.content: str = resource.get("content", "complete")
        self.key: Hashable = ("memory", next(_COUNTER))
        self._folded = resource.get("caseSensitive") is False
        raw: list[dict[str, Any]] = []
        above: list[list[int]] = []
        _flatten(resource.get("concept", []), raw, above, None)
        if len({concept["code"] for concept in raw}) != len(raw):
            raise InvalidResourceError("A code stands twice in the code system", issue_code="duplicate")
        _further_parents(resource, raw, above)
        try:
            numbering = number_hierarchy(above)
        except HierarchyCycleError as exc:
            raise InvalidResourceError("The hierarchy of the code system has a cycle", issue_code="invariant") from exc
        self.size = len(raw)
        self._reach = _ordered(numbering.number, numbering.descendants)
        self._above = _ordered(numbering.number, [[numbering.number[p] for p in parents] for parents in above])
        self._concepts = _ordered(
            numbering.number, [_concept(item, numbering.number[place]) for place, item in enumerate(raw)]
        )
        self.numbers = {self._fold(concept.code): concept.number for concept in self._concepts}
        self._words: list[set[str]] | None = None
        self._inactive = IntervalSet.of_numbers(c.number for c in self._concepts if not c.active)

    def _fold(self, code: str) -> str:
        return code.casefold() if self._folded else code

    def number(self, code: str) -> int | None:
        """Return the number of a code, or None."""
        return self.numbers.get(self._fold(code))

    def concept(self, number: int) -> Concept:
        """Return one concept."""
        return self._concepts[number]

    async def find(self, codes: Iterable[str]) -> dict[str, int]:
        """See `CodeSystem`."""
        return {code: number for code in codes if (number := self.number(code)) is not None}

    async def concepts(self, numbers: Sequence[int]) -> list[Concept]:
        """See `CodeSystem`."""
        return [self._concepts[number] for number in numbers]

    async def parents(self, number: int) -> list[int]:
        """See `CodeSystem`."""
        return list(self._above[number])

    async def children(self, number: int) -> list[int]:
        """See `CodeSystem`."""
        return [place for place, parents in enumerate(self._above) if number in parents]

    async def descendants(self, number: int) -> IntervalSet:
        """See `CodeSystem`."""
        return IntervalSet(self._reach[number])

    async def ancestors(self, number: int) -> IntervalSet:
        """See `CodeSystem`."""
        found, open_ = {number}, [number]
        while open_:
            for parent in self._above[open_.pop()]:
                if parent not in found:
                    found.add(parent)
                    open_.append(parent)
        return IntervalSet.of_numbers(found)

    async def inactive(self) -> IntervalSet:
        """See `CodeSystem`."""
        return self._inactive

    async def with_property(self, name: str, values: tuple[str, ...]) -> IntervalSet:
        """See `CodeSystem`."""
        if name in ("parent", "child"):
            return await _related(self, name, values)
        found = [
            concept.number
            for concept in self._concepts
            if any(known == name and (not values or _text(value) in values) for known, value in concept.properties)
            or (name in ("code", "display") and getattr(concept, name) in values)
        ]
        return IntervalSet.of_numbers(found)

    async def matching(self, name: str, pattern: str) -> IntervalSet:
        """See `CodeSystem`."""
        compiled = compile_pattern(pattern)
        return IntervalSet.of_numbers(
            concept.number
            for concept in self._concepts
            if any(compiled.fullmatch(text) for text in _texts(concept, name))
        )

    async def search(self, text: str) -> IntervalSet:
        """See `CodeSystem`."""
        beginnings, whole = query_words(text)
        if not beginnings and not whole:
            return IntervalSet()
        if self._words is None:
            self._words = [
                index_words(" ".join((item.code, item.display, *(name.value for name in item.designations))))
                for item in self._concepts
            ]
        return IntervalSet.of_numbers(
            number
            for number, words in enumerate(self._words)
            if all(word in words for word in whole)
            and all(any(word.startswith(start) for word in words) for start in beginnings)
        )

    async def codes(self, numbers: IntervalSet) -> list[str]:
        """See `CodeSystem`."""
        return [self._concepts[number].code for number in numbers.page(0, numbers.size)]


async def _related(system: MemoryCodeSystem, name: str, values: tuple[str, ...]) -> IntervalSet:
    """``parent = X`` are the children of X; ``child = X`` its parents."""
    found: list[int] = []
    for number in (await system.find(values)).values():
        found += await (system.children(number) if name == "parent" else system.parents(number))
    return IntervalSet.of_numbers(found)


def _texts(concept: Concept, name: str) -> list[str]:
    if name in ("code", "display"):
        return [getattr(concept, name)]
    return [_text(value) for known, value in concept.properties if known == name]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("code", ""))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ordered(numbers: list[int], items: Sequence[_T]) -> list[_T]:
    """Put items that lie in input order into number order."""
    found: list[Any] = [None] * len(items)
    for number, item in zip(numbers, items, strict=True):
        found[number] = item
    return found


def _flatten(
    concepts: list[dict[str, Any]],
    raw: list[dict[str, Any]],
    above: list[list[int]],
    parent: int | None,
    nesting: int = 0,
) -> None:
    if nesting > _MAX_NESTING:
        raise InvalidResourceError("The code system is nested too deeply", issue_code="too-costly")
    for concept in concepts:
        if len(raw) >= MAX_CONCEPTS_IN_MEMORY:
            text = f"A stored code system may have {MAX_CONCEPTS_IN_MEMORY} concepts; import a larger one"
            raise InvalidResourceError(text, issue_code="too-costly")
        if not isinstance(concept.get("code"), str):  # It may have an extension in the place of its value.
            raise InvalidResourceError("A concept of the code system has no code", issue_code="required")
        place = len(raw)
        raw.append(concept)
        above.append([] if parent is None else [parent])
        _flatten(concept.get("concept", []), raw, above, place, nesting + 1)


def _further_parents(resource: dict[str, Any], raw: list[dict[str, Any]], above: list[list[int]]) -> None:
    """Add the parents that stand in properties (http://hl7.org/fhir/concept-properties#parent, #child)."""
    places = {concept["code"]: place for place, concept in enumerate(raw)}
    kinds = {"parent": "parent", "subsumedBy": "parent", "child": "child"}
    for item in resource.get("property", []):
        if str(item.get("uri", "")).startswith("http://hl7.org/fhir/concept-properties#"):
            kinds[item["code"]] = item["uri"].rpartition("#")[2]
    for place, concept in enumerate(raw):
        for item in concept.get("property", []):
            kind, other = kinds.get(item.get("code")), places.get(str(item.get("valueCode")))
            if kind not in ("parent", "child") or other is None:
                continue
            lower, upper = (place, other) if kind == "parent" else (other, place)
            if upper not in above[lower]:
                above[lower].append(upper)


def _concept(item: dict[str, Any], number: int) -> Concept:
    properties = tuple(
        (str(prop.get("code")), value)
        for prop in item.get("property", [])
        for key, value in prop.items()
        if key.startswith("value")
    )
    known = {name: _text(value) for name, value in properties}
    # http://hl7.org/fhir/concept-properties: inactive; status with the values of the terminologies that have one.
    active = known.get("inactive") != "true" and known.get("status") not in ("retired", "inactive")
    designations = tuple(
        Designation(found.get("language", ""), found["value"], found.get("use", {}).get("code", ""))
        for found in item.get("designation", [])
        if found.get("value")
    )
    display = item.get("display") or item["code"]
    return Concept(number, item["code"], display, active, item.get("definition", ""), designations, properties)
