"""What a search asks for, after parsing: values, not SQL. The store turns these into one statement.

https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class AnyPosting:
    """At least one of these postings (or, negated, none of them)."""

    hashes: tuple[int, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """One comparison of a stored range [low, high) with a searched one, under a prefix (eq ne gt lt ge le sa eb ap)."""

    prefix: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MainDate:
    """The resource's main date, which lies in every posting."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class RangeValues:
    """A date or number under one of the paths; each range belongs to the paths at the same place."""

    table: str
    alternatives: tuple[tuple[tuple[int, ...], Range], ...]


@dataclass(frozen=True, slots=True)
class StringValues:
    """A normalised string under one of the paths that starts with or contains one of the texts."""

    paths: tuple[int, ...]
    texts: tuple[str, ...]
    contains: bool = False


@dataclass(frozen=True, slots=True)
class Present:
    """Whether a parameter has a value at all (`:missing`)."""

    bits: int
    wanted: bool


@dataclass(frozen=True, slots=True)
class Keys:
    """The resource is one of these (`_id`)."""

    keys: tuple[int, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class LastUpdated:
    """`meta.lastUpdated`, a point in time in microseconds."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """All resources of one type that fulfil every condition."""

    resource_type: str
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Chained:
    """Refers, by one of the paths, to a resource that one of the selections holds."""

    bases: tuple[int, ...]
    targets: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class ReverseChained:
    """Is referred to, by one of the paths, from a resource in the selection (`_has`)."""

    bases: tuple[int, ...]
    source: Selection


@dataclass(frozen=True, slots=True)
class Nothing:
    """Matches no resource."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these conditions."""

    conditions: tuple[Condition, ...]


Condition = (
    AnyPosting
    | MainDate
    | RangeValues
    | StringValues
    | Present
    | Keys
    | LastUpdated
    | Chained
    | ReverseChained
    | Nothing
    | AnyOf
)


class SortKind(Enum):
    """Where a sort key comes from."""

    MAIN_DATE = "main-date"
    LAST_UPDATED = "last-updated"
    ID = "id"
    DATE = "date_value"
    STRING = "string_value"
    NUMBER = "number_value"


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of the order."""

    kind: SortKind
    paths: tuple[int, ...] = ()
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Include:
    """One `_include` or `_revinclude`."""

    source_type: str
    parameter: str
    target_type: str | None = None
    reverse: bool = False
    iterate: bool = False


@dataclass(slots=True)
class SearchRequest:
    """A whole search."""

    selection: Selection
    sort: tuple[SortKey, ...] = ()
    count: int = 50
    cursor: tuple[object, ...] | None = None
    includes: list[Include] = field(default_factory=list)
    total: str = "none"
    summary: str = "false"
    elements: tuple[str, ...] = ()
    unknown: list[str] = field(default_factory=list)
    echo: list[tuple[str, str]] = field(default_factory=list)
