"""List the codes of a value set page by page: sets of numbers are counted and cut without listing what is not shown.

https://hl7.org/fhir/R4/valueset-operation-expand.html
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from foramen.kernel.errors import InvalidRequestError, NotFoundError
from terminology.code_systems import CodeSystem, MemoryCodeSystem
from terminology.evaluate import Evaluator
from terminology.intervals import IntervalSet
from terminology.model import Coding, Concept, Expansion
from terminology.predicates import Predicate, any_of, enumerated, is_withheld, listed_displays
from terminology.resolve import Resolver
from terminology.syntax_systems import SYNTAX_SYSTEMS
from terminology.value_sets import Key, Rules, require_known

_KEPT_LISTS = 64
_WITHHELD = "The value set lists licensed codes that are not shipped; store the value set from your own copy to use it"


@dataclass(slots=True)
class _Segment:
    """The part of a value set that comes from one code system."""

    url: str
    version: str | None
    system: CodeSystem
    predicate: Predicate
    numbers: IntervalSet
    displays: dict[str, str]


class Expander:
    """Expands value sets."""

    def __init__(self, resolver: Resolver, evaluator: Evaluator, max_codes: int) -> None:
        self._resolver = resolver
        self._evaluator = evaluator
        self._max_codes = max_codes
        self._lists: OrderedDict[Hashable, MemoryCodeSystem] = OrderedDict()

    async def expand(
        self,
        url: str | None,
        resource: dict[str, Any] | None,
        *,
        text: str,
        count: int | None,
        offset: int,
        active_only: bool,
        designations: bool,
        language: str | None,
    ) -> Expansion:
        """See `Terminology.expand`."""
        if resource is None:
            rules = await self._resolver.rules(url or "")
            resource = await self._resolver.value_set(url or "")
            if rules is None or resource is None:
                raise NotFoundError("The value set is not known here")
        else:
            rules = await self._resolver.rules_of(resource)
        segments = await self._segments(rules)
        if active_only:
            for segment in segments:
                segment.numbers = segment.numbers.difference(await segment.system.inactive())
        if text.strip():
            for segment in segments:
                segment.numbers = segment.numbers.intersection(await segment.system.search(text))
        total = sum(segment.numbers.size for segment in segments)
        if count is None and total - offset > self._max_codes:
            text = f"The value set has {total} codes, an answer at most {self._max_codes}: ask for pages with count"
            raise InvalidRequestError(text, issue_code="too-costly")
        limit = self._max_codes if count is None else min(count, self._max_codes)
        codes = await _page(segments, offset, limit, designations=designations, language=language)
        versions = tuple(f"{item.url}|{item.version}" for item in segments if item.version)
        return Expansion(codes, total, offset, resource, versions)

    async def _segments(self, rules: Rules) -> list[_Segment]:
        require_known(rules)
        merged: dict[Hashable, tuple[Key, CodeSystem | None, Predicate]] = {}
        for key, predicate in rules.predicates.items():
            system = await self._resolver.code_system(key[0], key[1] or None)
            place = key if system is None else system.key
            if place in merged:
                predicate = any_of(merged[place][2], predicate)
            merged[place] = (key, system, predicate)
        return [await self._segment(key, system, predicate) for key, system, predicate in merged.values()]

    async def _segment(self, key: Key, system: CodeSystem | None, predicate: Predicate) -> _Segment:
        listed = enumerated(predicate)
        version = key[1] or None if system is None else system.version
        if listed is not None:
            found = await self._list(key, system, predicate, listed)
            return _Segment(key[0], version, found, predicate, IntervalSet((0, found.size) if found.size else ()), {})
        if is_withheld(predicate):
            raise NotFoundError(_WITHHELD)
        if system is None:
            if key[0] in SYNTAX_SYSTEMS:
                raise InvalidRequestError("A grammar has no list of codes", issue_code="too-costly")
            raise NotFoundError("The value set needs a code system that is not known here")
        numbers = await self._evaluator.numbers(system, predicate)
        return _Segment(key[0], version, system, predicate, numbers, listed_displays(predicate))

    async def _list(
        self, key: Key, system: CodeSystem | None, predicate: Predicate, listed: dict[str, str]
    ) -> MemoryCodeSystem:
        """Build an enumeration, in its own order, with what the code system knows about the codes."""
        place = (key, system.key if system else None, predicate)
        found = self._lists.get(place)
        if found is None:
            known: dict[str, Concept] = {}
            if system is not None:
                numbers = await system.find(listed)
                concepts = await system.concepts(list(numbers.values()))
                known = dict(zip(numbers, concepts, strict=True))
            concepts_in_order = [
                _described(code, display or _grammar_name(key[0], code), known.get(code))
                for code, display in listed.items()
            ]
            found = MemoryCodeSystem({"url": key[0], "version": key[1] or None, "concept": concepts_in_order})
            self._lists[place] = found
            if len(self._lists) > _KEPT_LISTS:
                self._lists.popitem(last=False)
        return found


def _grammar_name(system: str, code: str) -> str:
    grammar = SYNTAX_SYSTEMS.get(system)
    return (grammar.display(code) or "") if grammar is not None else ""


def _described(code: str, display: str, known: Concept | None) -> dict[str, Any]:
    concept: dict[str, Any] = {"code": code}
    if display or known is not None:
        concept["display"] = display or (known.display if known else "")
    if known is not None:
        concept["designation"] = [item.to_fhir() for item in known.designations]
        if not known.active:
            concept["property"] = [{"code": "inactive", "valueBoolean": True}]
    return concept


async def _page(
    segments: list[_Segment], offset: int, limit: int, *, designations: bool, language: str | None
) -> list[Coding]:
    codes: list[Coding] = []
    for segment in segments:
        if len(codes) >= limit:
            break
        if offset >= segment.numbers.size:
            offset -= segment.numbers.size
            continue
        numbers = segment.numbers.page(offset, limit - len(codes))
        offset = 0
        for concept in await segment.system.concepts(numbers):
            named = concept.named(language) if language else concept.display
            display = named if named != concept.display else segment.displays.get(concept.code, named)
            codes.append(
                Coding(
                    segment.url,
                    concept.code,
                    display,
                    segment.version,
                    not concept.active,
                    concept.designations if designations else (),
                )
            )
    return codes
