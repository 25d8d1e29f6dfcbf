"""One statement for the first pages of many searches of the same shape: their values are columns of one list.

Searches that differ in their values only (which patient, which code, since when) have one text. It is built once, and
what is asked at the same time is asked together (gathered_pages.py). ADR 0021 has the reasons and figures.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fhir_server.search.conditions import (
    AllOf,
    AnyOf,
    AnyPosting,
    Condition,
    InInstitution,
    Keys,
    MainDate,
    Nothing,
    Pairs,
    Present,
    Range,
    Selection,
    SortKey,
    SortKind,
)
from fhir_server.search.parameters import resource_types
from fhir_server.store.ordering import page_statement
from fhir_server.store.statement import Statement

_MOST_VALUES = 24
"""Searches with more values have a statement of their own."""


class Slot:
    """Stands for a value that each search of a shape has of its own."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class NoShapeError(Exception):
    """A search with many values, or with conditions of other kinds."""


_SLOTS: tuple[Any, ...] = tuple(Slot(number) for number in range(_MOST_VALUES))
LIMIT = _SLOTS[0]
"""Most matches: the first value of each search."""


class GatheredStatement(Statement):
    """Writes slots as columns of the list ``a``, and what belongs to the shape as constants."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: dict[int, str] = {}

    def value(self, value: Any, sql_type: str) -> str:
        """Return the place of a slot, or a constant of our own."""
        if isinstance(value, Slot):
            self.columns[value.number] = sql_type
            return f"a.x{value.number}"
        if isinstance(value, list):
            element = sql_type.removesuffix("[]")
            return f"ARRAY[{', '.join(self.value(item, element) for item in value)}]::{sql_type}"
        if type(value) is int or value in resource_types():
            return f"'{value}'::{sql_type}"
        raise TypeError("a value that is neither a slot nor of the shape")

    def gathered(self, text: str) -> GatheredPages:
        """Return the statement that joins `text`, which gives ``p``, to each search ``a`` of the list."""
        slots = tuple(sorted(self.columns))
        lists = ", ".join(f"${place}::{self.columns[slot]}[]" for place, slot in enumerate(slots, 1))
        names = ", ".join(f"x{slot}" for slot in slots)
        return GatheredPages(
            f"SELECT a.place, p.* FROM unnest({lists}) WITH ORDINALITY AS a({names}, place) {text}", slots
        )


@dataclass(frozen=True, slots=True)
class GatheredPages:
    """The statement of one shape: its text and which values, in this order, are its lists."""

    text: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PageQuestion:
    """One search as a statement that it may share and its own values."""

    statement: GatheredPages
    values: tuple[int, ...]

    @property
    def most(self) -> int:
        """Most matches of the page: the first value of every question."""
        return self.values[0]

    def columns(self) -> list[Any]:
        """Return the arguments of the statement when it is asked for this search alone."""
        return [[self.values[slot]] for slot in self.statement.slots]


def page_question(selection: Selection, sort: tuple[SortKey, ...], limit: int) -> PageQuestion | None:
    """Return the question of a first page, or None when the search has no simple shape.

    Parameters
    ----------
    selection : arranged
    limit : most matches
    """
    if any(key.kind is SortKind.CONTENT for key in sort):
        return None
    values = [limit]
    try:
        conditions = tuple([slotted(condition, values) for condition in selection.conditions])
    except NoShapeError:
        return None
    shaped = Selection(selection.resource_type, conditions, arranged=True)
    return PageQuestion(_statement(shaped, sort), tuple(values))


def slotted(condition: Condition, values: list[int]) -> Condition:
    """Put slots in the place of the values, which are appended to `values`.

    Raises
    ------
    NoShapeError
        Too many values, or a condition of another kind.
    """
    match condition:
        case AnyPosting(hashes, negated):
            return AnyPosting(slots_for(hashes, values), negated)
        case MainDate(ranges):
            bounds = [(found.prefix, slots_for((found.low, found.high), values)) for found in ranges]
            return MainDate(tuple([Range(prefix, *ends) for prefix, ends in bounds]))
        case Keys(keys, negated):
            return Keys(slots_for(keys, values), negated)
        case Pairs(pairs, checks):
            return Pairs(slots_for(pairs, values), slots_for(checks, values))
        case InInstitution(managed, patients, beyond, asked):
            found = [slots_for(item, values) for item in (managed, patients, asked)]
            return InInstitution(found[0], found[1], beyond, found[2])
        case AnyOf(inner):
            return AnyOf(tuple([slotted(item, values) for item in inner]))
        case AllOf(inner):
            return AllOf(tuple([slotted(item, values) for item in inner]))
        case Present() | Nothing():
            return condition
    raise NoShapeError


def slots_for(found: Sequence[Any], values: list[int]) -> tuple[Any, ...]:
    """Append values and return their slots."""
    start = len(values)
    if start + len(found) > len(_SLOTS):
        raise NoShapeError
    values += found
    return _SLOTS[start : len(values)]


@lru_cache(maxsize=256)
def _statement(shape: Selection, sort: tuple[SortKey, ...]) -> GatheredPages:
    statement = GatheredStatement()
    text, _ = page_statement(shape, sort, None, LIMIT, columns="r.id, r.content", statement=statement)
    return statement.gathered(f"CROSS JOIN LATERAL ({text}) p")
