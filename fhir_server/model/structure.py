"""The elements of every R4 type, in order: name, type, whether it repeats. Read from `r4_structure.json`.

https://hl7.org/fhir/R4/elementdefinition.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

_FILE = Path(__file__).with_name("r4_structure.json")


@dataclass(frozen=True, slots=True)
class ElementRule:
    """One element as JSON names it; `choice` is the stem of a choice (``value`` of ``valueQuantity``), else empty."""

    name: str
    type_name: str
    position: int
    repeats: bool
    is_attribute: bool
    is_primitive: bool
    choice: str = ""


@dataclass(frozen=True, slots=True)
class TypeStructure:
    """Elements of one type by JSON name, and the names of each choice by type."""

    name: str
    elements: dict[str, ElementRule]
    choices: dict[str, dict[str, str]] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    table: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    return table


@lru_cache(maxsize=1)
def primitive_types() -> frozenset[str]:
    """Names of the primitive types."""
    return frozenset(_table()["primitives"])


@lru_cache(maxsize=1)
def concrete_resources() -> frozenset[str]:
    """Names of the resource types."""
    return frozenset(_table()["resources"])


@lru_cache(maxsize=1024)
def structure_of(type_name: str) -> TypeStructure | None:
    """Return the elements of a resource, data type or backbone element (``Patient.contact``), or None."""
    text = _table()["types"].get(type_name)
    if text is None:
        return None
    primitives = primitive_types()
    elements: dict[str, ElementRule] = {}
    choices: dict[str, dict[str, str]] = {}
    for part in text.split(" "):
        kinds, repeats, is_attribute = part.rstrip("*@"), "*" in part, part.endswith("@")
        choice, is_choice, names = kinds.rpartition("[x]=")
        for name, kind in _names(choice if is_choice else "", names):
            rule = ElementRule(name, kind, len(elements), repeats, is_attribute, kind in primitives, choice)
            elements[name] = rule
            if is_choice:
                choices.setdefault(choice, {})[kind] = name
    return TypeStructure(type_name, elements, choices)


def _names(choice: str, text: str) -> list[tuple[str, str]]:
    if choice and text == "all":
        return [(choice + suffix, kind) for suffix, kind in _table()["all"]]
    pairs = [item.partition(":") for item in text.split("|")]
    return [(name, kind) for name, _, kind in pairs]
