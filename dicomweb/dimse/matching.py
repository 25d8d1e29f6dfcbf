"""Attribute matching on values we build ourselves (worklist), without an index: PS3.4 §C.2.2.2. Pure functions."""

from __future__ import annotations

import re

from pydicom import DataElement, Dataset

from dicomweb.dimse.identifier import key_text

_RANGE = re.compile(r"[\d.:]*-?[\d.:]*")


def matches(query: Dataset, found: Dataset) -> bool:
    """Whether every key of a query that has a value matches; keys in items of a sequence too (one item, §C.2.2.2.6)."""
    for element in query:
        if element.keyword in ("SpecificCharacterSet", "QueryRetrieveLevel") or element.tag.element == 0:
            continue
        if element.VR == "SQ":
            inner = element.value[0] if element.value else None
            if inner is None or len(inner) == 0:
                continue
            items = found.get(element.keyword) or [Dataset()]
            if not any(matches(inner, item) for item in items):
                return False
        elif not _matches(element, found):
            return False
    return True


def returned(query: Dataset, found: Dataset) -> Dataset:
    """What a query asks for of a result: its keys, in items of sequences too; whole sequences for an empty item."""
    answer = Dataset()
    for element in query:
        keyword = element.keyword
        if not keyword or keyword == "SpecificCharacterSet" or keyword not in found:
            continue
        if element.VR == "SQ" and element.value and len(element.value[0]):
            setattr(answer, keyword, [returned(element.value[0], item) for item in found[keyword].value])
        else:
            answer[keyword] = found[keyword]
    return answer


def _matches(element: DataElement, found: Dataset) -> bool:
    wanted = key_text(element)
    if not wanted.strip("*"):
        return True
    value = key_text(found.get(element.keyword))
    if element.VR in ("DA", "TM") and _RANGE.fullmatch(wanted):
        return _in_range(wanted, value)
    if element.VR == "UI":
        return value in wanted.split("\\")
    if not any(mark in wanted for mark in "*?"):
        return _plain(value, element.VR) in (_plain(part, element.VR) for part in wanted.split("\\"))
    fold = element.VR == "PN"
    return is_like(wanted.casefold() if fold else wanted, value.casefold() if fold else value)


def is_like(pattern: str, value: str) -> bool:
    """Wildcard matching in linear space and quadratic time at worst: a hostile pattern cannot make a regex explode."""
    place = at = 0
    star, mark = -1, 0
    while at < len(value):
        if place < len(pattern) and pattern[place] == "*":
            star, mark, place = place, at, place + 1
        elif place < len(pattern) and pattern[place] in ("?", value[at]):
            place, at = place + 1, at + 1
        elif star >= 0:
            mark += 1
            place, at = star + 1, mark
        else:
            return False
    return not pattern[place:].strip("*")


def _plain(value: str, vr: str) -> str:
    return value.casefold().rstrip("^") if vr == "PN" else value


def _in_range(wanted: str, value: str) -> bool:
    low, dash, high = wanted.replace(":", "").partition("-")
    if not value:
        return False
    if not dash:
        return value.startswith(low)
    return (not low or value >= low) and (not high or value <= high + "9" * (16 - len(high)))
