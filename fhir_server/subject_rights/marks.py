"""What identifies a person in a text: full names, identifiers, telephone numbers, addresses. Pure.

It is found again from the Patient when it is needed, and never kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

_SHORTEST = 5
_SHORTEST_NAME = 2
_CJK = re.compile(r"[\u3400-\u9fff]")
PEOPLE = frozenset({"Patient", "RelatedPerson", "Person"})
"""Types that name the person, and people close to them."""


def marks_of(person: dict[str, Any]) -> set[str]:
    """Return the texts by which a Patient, RelatedPerson or Person is known; too short ones are found everywhere."""
    found = {str(item.get("value", "")) for item in _list(person, "identifier")}
    found |= {str(item.get("value", "")) for item in _list(person, "telecom")}
    for address in _list(person, "address"):
        found |= {str(address.get("text", "")), *(str(line) for line in address.get("line") or ())}
    names = {text for name in _list(person, "name") for text in _full_names(name)}
    long_enough = {text for text in found if len(text) >= _SHORTEST}
    return long_enough | {name for name in names if len(name) >= (_SHORTEST_NAME if _CJK.search(name) else _SHORTEST)}


def _list(resource: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = resource.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _full_names(name: dict[str, Any]) -> Iterable[str]:
    family, given = str(name.get("family", "")), [str(item) for item in name.get("given") or ()]
    yield str(name.get("text", "")).strip()
    if family and given:
        for one, other in ((family, "".join(given)), (family, " ".join(given)), (" ".join(given), family)):
            yield f"{one} {other}"
        yield family + "".join(given)
    elif family and not _CJK.search(family):
        yield family


def needles(texts: Iterable[str]) -> list[bytes]:
    """Return the bytes that stand for these texts in JSON: as UTF-8, and with characters escaped."""
    found = set()
    for text in texts:
        plain = orjson.dumps(text)[1:-1]
        escaped = "".join(char if char.isascii() else _escape(char) for char in plain.decode()).encode()
        found |= {plain, escaped, re.sub(rb"\\u([0-9a-f]{4})", lambda m: b"\\u" + m.group(1).upper(), escaped)}
    return sorted(item for item in found if item)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def own_needles(patient: str) -> list[bytes]:
    """Return the bytes of a reference to the Patient and of its id alone."""
    return [f"Patient/{patient}".encode(), f'"{patient}"'.encode()]


def names_anybody(text: str, marks: Iterable[str]) -> bool:
    """Whether a text of an administrator names the person."""
    folded = text.casefold()
    return any(mark.casefold() in folded for mark in marks)
