"""What a search asks for, after parsing: values, not SQL. The store turns these into one statement.

https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Role(Enum):
    """What a posting condition stands for, as far as the order of work depends on it."""

    PLAIN = "plain"
    CODE = "code"
    PATIENT = "patient"
    SELECTIVE = "selective"
    """Names one thing (an identifier, a patient's record): few resources, whatever the size of the record."""


@dataclass(frozen=True, slots=True)
class AnyPosting:
    """At least one of these postings (or, negated, none of them).

    `role` CODE and PATIENT hold values of the type's `code` and `patient` paths, which are also indexed as pairs.
    """

    hashes: tuple[int, ...]
    negated: bool = False
    role: Role = Role.PLAIN
    base: int = 0
    """With role CODE or PATIENT: the index base that the hashes were combined with."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """At least one of these patient × code postings, each with the posting of its patient as a second check.

    The pair is indexed by compartment, which may be wider than the parameter that was asked.
    """

    pairs: tuple[int, ...]
    checks: tuple[int, ...]


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
class NumberPair:
    """Two numbers of one element (a composite's last two parts), each in its range."""

    paths: tuple[int, ...]
    first: Range
    second: Range


@dataclass(frozen=True, slots=True)
class StringValues:
    """A stored string under one of the paths that lies in one of the ranges [least, most) (by code point)."""

    paths: tuple[int, ...]
    ranges: tuple[tuple[str, str], ...]


class Match(Enum):
    """How a stored string is compared where no range of the index can tell."""

    CONTAINS = "contains"
    ENDS = "ends"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class StringPattern:
    """A stored string under one of the paths that contains, ends with or differs from one of the texts."""

    paths: tuple[int, ...]
    texts: tuple[str, ...]
    match: Match


@dataclass(frozen=True, slots=True)
class FullText:
    """The narrative or the whole content holds these words (`_text`, `_content`); `query` is a tsquery."""

    field: str
    query: str


@dataclass(frozen=True, slots=True)
class Near:
    """A Location's position lies within a distance of a point (degrees, kilometres)."""

    latitude: float
    longitude: float
    kilometres: float


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
    arranged: bool = False
    """Whether the conditions stand in the order in which they shall be worked on (store/arranging.py)."""


@dataclass(frozen=True, slots=True)
class Chained:
    """Refers, by one of the paths, to a resource that one of the selections holds.

    `by_patient`: every path is one that puts the resource into the target Patient's compartment. `canonical`: the
    paths hold canonical URLs, which name the target by its `url`. `code` is the code of the parameter.
    """

    bases: tuple[int, ...]
    targets: tuple[Selection, ...]
    by_patient: bool = False
    canonical: bool = False
    code: str = ""
    own_url: str = ""


@dataclass(frozen=True, slots=True)
class ReverseChained:
    """Is referred to, by one of the paths, from a resource in the selection (`_has`).

    `by_patient`: the paths put the source into the compartment of the Patient searched for. `canonical`: the paths
    hold canonical URLs; `own_type` is the type searched for.
    """

    bases: tuple[int, ...]
    source: Selection
    own_type: str = ""
    by_patient: bool = False
    canonical: bool = False
    code: str = ""
    """Code of the source's parameter."""
    own_url: str = ""


@dataclass(frozen=True, slots=True)
class InValueSet:
    """A token of the value set (`:in`, `:not-in`): its URL, or the selection of the stored ValueSet."""

    bases: tuple[int, ...]
    value_set: str | Selection
    negated: bool = False
    bare: bool = False
    """Whether the element holds a code without its system."""
    parameter: str = ""


@dataclass(frozen=True, slots=True)
class Subsumption:
    """A token that is below (or above) the code in its system's hierarchy, itself included."""

    bases: tuple[int, ...]
    system: str
    code: str
    above: bool = False
    bare: bool = False
    parameter: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceTree:
    """Refers to the resource or to what is below (or above) it by a part-of reference of its type."""

    bases: tuple[int, ...]
    root: Selection
    above: bool = False


@dataclass(frozen=True, slots=True)
class InList:
    """Is an entry of a stored List (`_list`)."""

    resource_type: str
    list_selection: Selection


@dataclass(frozen=True, slots=True)
class InInstitution:
    """Lies in the record of a Patient with the posting `managed`, or of one of `patients` (keys), or in none at all.

    Parameters
    ----------
    managed : posting of the institution's Patients, none or one
    beyond : whether what lies in no patient's record fulfils it
    asked : keys of Patients in whose records every match lies; when one of them is the institution's, that suffices
    """

    managed: tuple[int, ...]
    patients: tuple[int, ...] = ()
    beyond: bool = True
    asked: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Nothing:
    """Matches no resource."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these conditions."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of these conditions."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Everything that does not fulfil the condition."""

    condition: Condition


Deferred = InValueSet | Subsumption | ReferenceTree | InList
"""Conditions that need the terminology or a stored resource before they can be asked (store/resolving.py)."""

Condition = (
    AnyPosting
    | Pairs
    | MainDate
    | RangeValues
    | NumberPair
    | StringValues
    | StringPattern
    | FullText
    | Near
    | Present
    | Keys
    | LastUpdated
    | InInstitution
    | Chained
    | ReverseChained
    | Nothing
    | AnyOf
    | AllOf
    | Not
    | Deferred
)


class SortKind(Enum):
    """Where a sort key comes from."""

    MAIN_DATE = "main-date"
    LAST_UPDATED = "last-updated"
    ID = "id"
    DATE = "date_value"
    STRING = "string_value"
    NUMBER = "number_value"
    CONTENT = "content"
    """Read from the stored bytes, by `json_paths` (tokens, references, uris)."""


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of the order."""

    kind: SortKind
    paths: tuple[int, ...] = ()
    descending: bool = False
    json_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Include:
    """One `_include` or `_revinclude`."""

    source_type: str
    """A resource type, or ``*``: every type."""
    parameter: str
    target_type: str | None = None
    reverse: bool = False
    iterate: bool = False


@dataclass(slots=True)
class SearchRequest:
    """A whole search."""

    selection: Selection
    sort: tuple[SortKey, ...] = ()
    most_sorted: int = 50_000
    """Most matches of a search whose order is read from the bytes of each of them."""
    count: int = 50
    cursor: tuple[object, ...] | None = None
    partition: tuple[int, int] | None = None
    """First and last bucket of rows (0…1023) this search is limited to; None for all."""
    partitions: int = 0
    """Into how many searches, to be followed side by side, the first page shall offer to split this one."""
    includes: list[Include] = field(default_factory=list)
    total: str = "none"
    summary: str = "false"
    elements: tuple[str, ...] = ()
    unknown: list[str] = field(default_factory=list)
    incomplete: tuple[str, ...] = ()
    """Parameters and types asked for whose index is not complete yet."""
    echo: list[tuple[str, str]] = field(default_factory=list)
