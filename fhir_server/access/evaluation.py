"""Ask a condition of one version in memory: the same condition over the same index values that a search asks in SQL.

Old versions are in no index, and what is written is not there yet; so reads by id, histories and writes ask here.
`tests/contract/fhir/test_granular_property.py` holds this against the database. What needs other resources, the
terminology or the full text cannot be asked (`can_be_asked`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fhir_server.search.conditions import (
    AllOf,
    AnyOf,
    AnyPosting,
    Condition,
    Keys,
    LastUpdated,
    MainDate,
    Match,
    Not,
    Nothing,
    NumberPair,
    Pairs,
    Present,
    Range,
    RangeValues,
    StringPattern,
    StringValues,
)
from fhir_server.search.dates import MISSING
from fhir_server.search.hashing import resource_key
from fhir_server.search.index import extractor
from fhir_server.search.values import IndexValues

if TYPE_CHECKING:
    from fhir_server.store.changes import Change, Stored

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_Compare = Callable[[float, float, float, float], bool]
_SIMPLE = AnyPosting | Pairs | MainDate | RangeValues | NumberPair | StringValues | StringPattern
# Stored low and high, searched least and most: the words of store/comparisons.py.
_DATES: Mapping[str, _Compare] = {
    "eq": lambda low, high, least, most: low >= least and high <= most and low < most,
    "ne": lambda low, high, least, most: not (low >= least and high <= most),
    "gt": lambda low, high, least, most: high > most,
    "lt": lambda low, high, least, most: low < least,
    "ge": lambda low, high, least, most: high > most or (low >= least and high <= most),
    "le": lambda low, high, least, most: low < most and (low < least or high <= most),
    "sa": lambda low, high, least, most: low >= most,
    "eb": lambda low, high, least, most: low < least and high <= least,
    "ap": lambda low, high, least, most: low < most and high > least,
    "po": lambda low, high, least, most: low < most and high > least,
}
_NUMBERS: Mapping[str, _Compare] = {
    "eq": lambda low, high, least, most: low >= least and low < most and high < most,
    "ne": lambda low, high, least, most: not (low >= least and high < most),
    "gt": lambda low, high, least, most: high > most,
    "lt": lambda low, high, least, most: low < least,
    "ge": lambda low, high, least, most: high >= most,
    "le": lambda low, high, least, most: low <= least,
    "sa": lambda low, high, least, most: low > most,
    "eb": lambda low, high, least, most: low < least and high < least,
    "ap": lambda low, high, least, most: low < most and high >= least,
}
_MOMENTS: Mapping[str, _Compare] = {
    "eq": lambda at, _, least, most: least <= at < most,
    "ne": lambda at, _, least, most: not least <= at < most,
    "gt": lambda at, _, least, most: at >= most,
    "sa": lambda at, _, least, most: at >= most,
    "lt": lambda at, _, least, most: at < least,
    "eb": lambda at, _, least, most: at < least,
    "ge": lambda at, _, least, most: at >= least,
    "le": lambda at, _, least, most: at < most,
    "ap": lambda at, _, least, most: least <= at < most,
    "po": lambda at, _, least, most: least <= at < most,
}
_PATTERNS: Mapping[Match, Callable[[str, tuple[str, ...]], bool]] = {
    Match.CONTAINS: lambda value, texts: any(text in value for text in texts),
    Match.ENDS: lambda value, texts: any(value.endswith(text) for text in texts),
    Match.DIFFERS: lambda value, texts: value not in texts,
}


@dataclass(frozen=True, slots=True)
class Version:
    """What a condition looks at: the index values of one version, its key, and when it was written."""

    values: IndexValues
    key: int
    updated: datetime

    @staticmethod
    def of_stored(stored: Stored, own_url: str) -> Version:
        """Return a stored version, its values found again from its bytes."""
        values = extractor(stored.resource_type, own_url).extract(stored.data(), stored.logical_id)
        return Version(values, resource_key(stored.resource_type, stored.logical_id), stored.updated)

    @staticmethod
    def of_change(change: Change) -> Version | None:
        """Return what is about to be written; None: it is a deletion."""
        return None if change.values is None else Version(change.values, change.key, change.updated)


def can_be_asked(condition: Condition) -> bool:
    """Whether a condition needs nothing but the index values of one version."""
    match condition:
        case AnyOf(conditions) | AllOf(conditions):
            return all(map(can_be_asked, conditions))
        case Not(inner):
            return can_be_asked(inner)
    return isinstance(condition, _SIMPLE | Present | Keys | LastUpdated | Nothing)


def fulfils(version: Version, condition: Condition) -> bool:
    """Whether a version fulfils a condition; of one that cannot be asked none does, and none fulfils its opposite.

    Raises
    ------
    ValueError
        The condition cannot be asked.
    """
    match condition:
        case AnyOf(conditions):
            return any(fulfils(version, item) for item in conditions)
        case AllOf(conditions):
            return all(fulfils(version, item) for item in conditions)
        case Not(inner):
            return not fulfils(version, inner)
        case Keys(keys, negated):
            return (version.key in keys) != negated
        case LastUpdated(ranges):
            at = (version.updated - _EPOCH) // _MICROSECOND
            return any(_MOMENTS[found.prefix](at, at, found.low, found.high) for found in ranges)
        case Nothing():
            return False
    return _has_value(version.values, condition)


def _has_value(values: IndexValues, condition: Condition) -> bool:
    match condition:
        case AnyPosting(hashes, negated):
            return values.postings.isdisjoint(hashes) == negated
        case Pairs(pairs, checks):
            return not (values.postings.isdisjoint(pairs) or values.postings.isdisjoint(checks))
        case Present(bits, wanted):
            return bool(values.present & bits) == wanted
        case MainDate(ranges):
            low, high = values.low, values.high
            return low > MISSING and any(_DATES[found.prefix](low, high, found.low, found.high) for found in ranges)
        case RangeValues():
            return _in_range(values, condition)
        case NumberPair(paths, first, second):
            return any(
                path in paths and _is_number(low, first) and _is_number(high, second)
                for path, low, high in values.numbers
            )
        case StringValues(paths, spans):
            return any(
                path in paths and any(least <= value < most for least, most in spans) for path, value in values.strings
            )
        case StringPattern(paths, texts, match):
            return any(path in paths and _PATTERNS[match](value, texts) for path, value in values.strings)
    raise ValueError("a condition that needs more than one version cannot be asked in memory")


def _in_range(values: IndexValues, condition: RangeValues) -> bool:
    dates = condition.table == "date_value"
    table: set[tuple[int, int, int]] | set[tuple[int, float, float]] = values.dates if dates else values.numbers
    compare = _DATES if dates else _NUMBERS
    return any(
        path in paths and compare[found.prefix](low, high, found.low, found.high)
        for paths, found in condition.alternatives
        for path, low, high in table
    )


def _is_number(value: float, wanted: Range) -> bool:
    return wanted.low <= wanted.high and _NUMBERS[wanted.prefix](value, value, wanted.low, wanted.high)
