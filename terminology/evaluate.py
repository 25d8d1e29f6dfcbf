"""Answer predicates over a code system as sets of concept numbers; answers are kept, as value sets are asked again.

https://hl7.org/fhir/R4/valueset.html#compositions
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from terminology.code_systems import CodeSystem
from terminology.intervals import IntervalSet
from terminology.predicates import (
    Above,
    AllOf,
    AnyOf,
    Below,
    Codes,
    Everything,
    HasProperty,
    Matches,
    Not,
    Predicate,
    Withheld,
)

_KEPT = 512
_MAX_KEPT_NUMBERS = 200_000


class UnanswerableError(Exception):
    """An enumeration in the value set is withheld: its codes are licensed and not shipped."""


class Evaluator:
    """Evaluates predicates and keeps the last answers."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Hashable, Predicate], IntervalSet] = OrderedDict()

    async def numbers(self, system: CodeSystem, predicate: Predicate) -> IntervalSet:
        """Return the concepts that fulfil the predicate.

        Raises
        ------
        UnanswerableError
            An enumeration is withheld.
        """
        key = (system.key, predicate)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        found = await self._answer(system, predicate)
        if len(found.flat) <= _MAX_KEPT_NUMBERS:
            self._kept[key] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    async def _answer(self, system: CodeSystem, predicate: Predicate) -> IntervalSet:
        match predicate:
            case Everything():
                return IntervalSet((0, system.size)) if system.size else IntervalSet()
            case Codes(listed):
                return IntervalSet.of_numbers((await system.find([code for code, _ in listed])).values())
            case Withheld():
                raise UnanswerableError
            case Below(code, included):
                return await self._below(system, code, included=included)
            case Above(code):
                found = await system.find([code])
                return await system.ancestors(next(iter(found.values()))) if found else IntervalSet()
            case HasProperty(name, values):
                return await system.with_property(name, values)
            case Matches(name, pattern):
                return await system.matching(name, pattern)
            case Not(part):
                return (await self.numbers(system, part)).complement(system.size)
            case AnyOf(parts):
                return IntervalSet.union([await self.numbers(system, part) for part in parts])
            case AllOf(parts):
                return await self._all(system, parts)

    @staticmethod
    async def _below(system: CodeSystem, code: str, *, included: bool) -> IntervalSet:
        number = (await system.find([code])).get(code)
        if number is None:
            return IntervalSet()
        found = await system.descendants(number)
        return found if included else found.difference(IntervalSet((number, number + 1)))

    async def _all(self, system: CodeSystem, parts: tuple[Predicate, ...]) -> IntervalSet:
        found: IntervalSet | None = None
        for part in parts:
            if isinstance(part, Not) and found is not None:
                found = found.difference(await self.numbers(system, part.part))
            else:
                numbers = await self.numbers(system, part)
                found = numbers if found is None else found.intersection(numbers)
        return found if found is not None else IntervalSet((0, system.size))
