"""Looks for the persons in what was drawn: an independent check that shares no code with what makes the rows.

It collects every identifying value of the resources that were read and searches the finished text for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

_LONG = 8
"""Shorter values in ASCII are compared with whole words only (any text holds "3"); a number of one digit is not looked
for at all."""
_IDENTIFYING = frozenset(
    {"value", "family", "given", "text", "line", "city", "postalCode", "birthDate", "display", "id", "reference", "div"}
)
_WITHIN = {
    "Patient": ("id", "identifier", "name", "telecom", "address", "birthDate", "contact"),
    "Practitioner": ("id",),
    "ImagingStudy": ("id", "identifier", "series"),
    "DiagnosticReport": ("id", "identifier", "conclusion"),
}


def identifying_values(resource: dict[str, Any]) -> set[str]:
    """Values of a resource that may not occur in the output."""
    kept = _WITHIN.get(resource.get("resourceType", ""), ("id",))
    found = set()
    for name in kept:
        found |= set(_texts(resource.get(name), name))
    return {item for item in found if item}


def leaks(text: str, forbidden: Iterable[str]) -> int:
    """How many of the values occur in a text; the number alone, as naming one would repeat it."""
    words = set(re.split(r"[^\w.\-]+", text))
    return sum(1 for value in set(forbidden) if _occurs(value, text, words))


def _occurs(value: str, text: str, words: set[str]) -> bool:
    if value.isascii() and len(value) < _LONG:
        return not (len(value) == 1 and value.isdigit()) and value in words
    return value in text


def _texts(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _IDENTIFYING or key == "uid":
                yield from _texts(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, name)
    elif isinstance(value, str):
        text = value.strip()
        yield text.removeprefix("urn:oid:")
