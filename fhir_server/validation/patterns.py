"""fixed[x] and pattern[x]: is a value this value, does it contain this pattern. Pure.

https://hl7.org/fhir/R4/elementdefinition-definitions.html#ElementDefinition.pattern_x_
"""

from __future__ import annotations

from typing import Any

from fhir_server.search.dates import date_range


def equals(value: Any, fixed: Any) -> bool:
    """Whether a value is exactly the fixed one."""
    if type(value) is bool or type(fixed) is bool:
        return value is fixed
    return bool(value == fixed)


def contains(value: Any, pattern: Any) -> bool:
    """Whether a value has everything the pattern has; a list has, for each item of the pattern, one that fits."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and contains(value[name], p) for name, p in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(contains(item, p) for item in value) for p in pattern)
    return equals(value, pattern)


def in_range(value: Any, least: Any, most: Any) -> bool:
    """Whether a value is within minValue[x] and maxValue[x]; what cannot be compared is not out of range."""
    return not (_is_less(value, least) or _is_less(most, value))


def _is_less(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        first, second = date_range(one), date_range(other)
        return first is not None and second is not None and first[1] <= second[0]
    if isinstance(one, dict) and isinstance(other, dict) and one.get("code") == other.get("code"):
        return _is_less(one.get("value"), other.get("value"))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one < other
    return False
