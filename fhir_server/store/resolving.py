"""Look up what a search needs before it can be asked: value sets, code hierarchies, Lists, part-of hierarchies.

The parser only notes these (`conditions.Deferred`); one asynchronous step replaces them by plain conditions. Whatever
is read of the record is read under the caller's access, which the parser put into the selections.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_server.model.references import parse_reference
from fhir_server.search.conditions import (
    AllOf,
    AnyOf,
    AnyPosting,
    Chained,
    Condition,
    Deferred,
    FullText,
    InList,
    InValueSet,
    Keys,
    Not,
    Nothing,
    ReferenceTree,
    ReverseChained,
    Selection,
    Subsumption,
)
from fhir_server.search.hashing import resource_key
from fhir_server.search.index import references_of
from fhir_server.search.references import part_of
from fhir_server.search.values import token_hashes
from fhir_server.store import searching
from foramen.kernel.errors import InvalidRequestError, NotFoundError
from terminology.service import Terminology

_MAX_LEVELS = 30


class Resolver:
    """Resolves the selections of one request."""

    def __init__(self, connection: Any, terminology: Terminology, own_url: str, most: int) -> None:
        self._connection = connection
        self._terminology = terminology
        self._own_url = own_url
        self._most = most

    async def selection(self, selection: Selection) -> Selection:
        """Return an equal selection without deferred conditions.

        Raises
        ------
        NotFoundError
            The value set, code system, List or root of a hierarchy does not exist (for this caller).
        InvalidRequestError
            `too-costly`: it stands for more codes or resources than the limit.
        """
        if not any(map(is_deferred, selection.conditions)):
            return selection
        return replace(selection, conditions=tuple([await self._condition(item) for item in selection.conditions]))

    async def _condition(self, condition: Condition) -> Condition:
        match condition:
            case InValueSet():
                return await self._value_set(condition)
            case Subsumption():
                return await self._subsumption(condition)
            case ReferenceTree():
                return await self._tree(condition)
            case InList():
                return await self._list(condition)
            case AnyOf(inner):
                return AnyOf(tuple([await self._condition(item) for item in inner]))
            case AllOf(inner):
                return AllOf(tuple([await self._condition(item) for item in inner]))
            case Not(negated):
                return Not(await self._condition(negated))
            case Chained():
                return replace(condition, targets=tuple([await self.selection(item) for item in condition.targets]))
            case ReverseChained():
                return replace(condition, source=await self.selection(condition.source))
        return condition

    def _limited(self, number: int, what: str) -> None:
        if number > self._most:
            raise InvalidRequestError(f"{what} stands for more than {self._most} values", issue_code="too-costly")

    async def _value_set(self, asked: InValueSet) -> Condition:
        url = asked.value_set if isinstance(asked.value_set, str) else await self._url_of(asked)
        expansion = await self._terminology.expand(url, count=self._most + 1)
        self._limited(max(expansion.total, len(expansion.codes)), asked.parameter)
        hashes: set[int] = set()
        for coding in expansion.codes:
            plain, qualified = token_hashes(coding.system, coding.code)[:2]
            hashes.update((plain, qualified) if asked.bare else (qualified,))
        return _postings(asked.bases, hashes, negated=asked.negated)

    async def _url_of(self, asked: InValueSet) -> str:
        assert isinstance(asked.value_set, Selection)  # noqa: S101
        found = await searching.matches(self._connection, asked.value_set, 1)
        if not found:
            raise NotFoundError(f"The value set of {asked.parameter} does not exist")
        url = found[0].data().get("url")
        if not isinstance(url, str):
            raise InvalidRequestError(f"The value set of {asked.parameter} has no url", issue_code="not-supported")
        return url

    async def _subsumption(self, asked: Subsumption) -> Condition:
        look = self._terminology.ancestors if asked.above else self._terminology.subsumed
        codes = await look(asked.system, asked.code)
        self._limited(len(codes), asked.parameter)
        hashes: set[int] = set()
        for code in codes:
            plain, qualified = token_hashes(asked.system, code)[:2]
            hashes.update((plain, qualified) if asked.bare else (qualified,))
        return _postings(asked.bases, hashes)

    async def _list(self, asked: InList) -> Condition:
        found = await searching.matches(self._connection, asked.list_selection, 1)
        if not found:
            raise NotFoundError("The List of _list does not exist")
        keys: set[int] = set()
        for entry in found[0].data().get("entry", ()):
            parsed = parse_reference(entry.get("item", {}).get("reference") or "", self._own_url)
            if parsed is not None and parsed[0] == asked.resource_type and not entry.get("deleted"):
                keys.add(resource_key(*parsed))
        self._limited(len(keys), "_list")
        return Keys(tuple(keys)) if keys else Nothing()

    async def _tree(self, asked: ReferenceTree) -> Condition:
        """Walk the part-of references of the root's type, a level at a time; cycles end the walk."""
        resource_type = asked.root.resource_type
        parameter = part_of(resource_type)
        assert parameter is not None  # noqa: S101 - the parser asks for a type with a hierarchy
        frontier = await searching.matches(self._connection, asked.root, 1)
        if not frontier:
            return Nothing()
        access = asked.root.conditions[1:]
        keys: set[int] = set()
        for _ in range(_MAX_LEVELS):
            fresh = {resource_key(item.resource_type, item.logical_id) for item in frontier} - keys
            keys |= fresh
            self._limited(len(keys), "The hierarchy")
            if not fresh:
                break
            if asked.above:
                step: Condition = Keys(tuple(self._parents(frontier, parameter)))
            else:
                step = AnyPosting(tuple(base ^ key for base in parameter.bases() for key in fresh))
            selection = Selection(resource_type, (step, *access))
            frontier = await searching.matches(self._connection, selection, self._most + 1)
        return _postings(asked.bases, keys)

    def _parents(self, frontier: list[Any], parameter: Any) -> set[int]:
        found: set[int] = set()
        for stored in frontier:
            for reference in references_of(stored.data(), parameter, self._own_url):
                parsed = parse_reference(reference, self._own_url)
                if parsed is not None and parsed[0] == parameter.resource_type:
                    found.add(resource_key(*parsed))
        return found


def _postings(bases: tuple[int, ...], hashes: set[int], *, negated: bool = False) -> Condition:
    if not hashes:
        return Keys((), negated=True) if negated else Nothing()
    return AnyPosting(tuple(base ^ value for base in bases for value in sorted(hashes)), negated)


def is_deferred(condition: Condition) -> bool:
    """Whether a condition, or one inside it, needs to be resolved."""
    return any(isinstance(item, Deferred) for item in _nested(condition))


def asks_full_text(selection: Selection) -> bool:
    """Whether a selection looks at the full-text index."""
    return any(isinstance(item, FullText) for condition in selection.conditions for item in _nested(condition))


def _nested(condition: Condition) -> list[Condition]:
    match condition:
        case AnyOf(inner) | AllOf(inner):
            below = list(inner)
        case Not(negated):
            below = [negated]
        case Chained():
            below = [item for target in condition.targets for item in target.conditions]
        case ReverseChained():
            below = list(condition.source.conditions)
        case _:
            return [condition]
    return [condition, *(found for item in below for found in _nested(item))]
