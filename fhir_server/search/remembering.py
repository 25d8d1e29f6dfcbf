"""Index values of elements that come again and again (codes, categories, statuses), found once for each text of theirs.

What an element contributes depends on nothing but its own value, so the same value contributes the same. Elements that
hold dates, quantities, names, identifiers or references are different nearly every time and are not remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import orjson

from fhir_server.search.values import IndexValues

Key = tuple[int, str | bytes]

_LONGEST = 400
_MOST = 8192
_SEEN: dict[Key, IndexValues] = {}
_numbers = count()
_CODED = frozenset({"code", "Coding", "CodeableConcept", "boolean"})


def is_repetitive(kind: str, data_type: str) -> bool:
    """Whether elements of this type, indexed for this kind of parameter, tend to have one of a few values."""
    return kind == "token" and data_type in _CODED


def new_number() -> int:
    """Return a number that no other remembered element of this process has."""
    return next(_numbers)


def add_remembered(number: int, value: Any, out: IndexValues, visit: Callable[[Any, IndexValues], None]) -> None:
    """Add the index values of one element.

    Parameters
    ----------
    number : of the element, by `new_number`
    value : its JSON value, a list for one that repeats
    visit : finds the index values when they are not known
    """
    text = value if type(value) is str else orjson.dumps(value)
    found = _SEEN.get((number, text))
    if found is None:
        found = IndexValues()
        for item in value if type(value) is list else (value,):
            if item is not None:
                visit(item, found)
        if len(text) <= _LONGEST:
            if len(_SEEN) >= _MOST:
                _SEEN.clear()
            _SEEN[number, text] = found
    out.postings |= found.postings
    out.present |= found.present
    if found.strings:
        out.strings |= found.strings
    if found.codes:
        out.codes |= found.codes
