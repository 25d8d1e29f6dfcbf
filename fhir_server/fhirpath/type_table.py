"""The types of R4: which elements they have, under which JSON names, and what they are kinds of.

https://hl7.org/fhir/R4/datatypes.html, https://hl7.org/fhir/R4/fhirpath.html#types
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

_FILE = Path(__file__).parents[1] / "model" / "r4_structure.json"
_BASES = {
    **dict.fromkeys(("code", "id", "markdown"), "string"),
    **dict.fromkeys(("url", "canonical", "uuid", "oid"), "uri"),
    **dict.fromkeys(("unsignedInt", "positiveInt"), "integer"),
    **dict.fromkeys(("Age", "Count", "Distance", "Duration", "MoneyQuantity", "SimpleQuantity"), "Quantity"),
    **dict.fromkeys(("Dosage", "Timing", "ElementDefinition"), "BackboneElement"),
    **dict.fromkeys(("MarketingStatus", "Population", "ProdCharacteristic", "ProductShelfLife"), "BackboneElement"),
    "SubstanceAmount": "BackboneElement",
    **dict.fromkeys(("Bundle", "Binary", "Parameters", "DomainResource"), "Resource"),
    "BackboneElement": "Element",
}
SYSTEM_OF = {
    "boolean": "Boolean",
    **dict.fromkeys(("integer", "unsignedInt", "positiveInt"), "Integer"),
    "decimal": "Decimal",
    "date": "Date",
    **dict.fromkeys(("dateTime", "instant"), "DateTime"),
    "time": "Time",
    **dict.fromkeys(("string", "code", "id", "markdown", "uri", "url", "canonical", "uuid", "oid"), "String"),
    **dict.fromkeys(("base64Binary", "xhtml"), "String"),
    **dict.fromkeys(
        ("Quantity", "Age", "Count", "Distance", "Duration", "MoneyQuantity", "SimpleQuantity"), "Quantity"
    ),
    **{f"System.{name}": name for name in ("Boolean", "Integer", "Decimal", "String", "Date", "DateTime", "Time")},
    "System.Quantity": "Quantity",
}
SYSTEM_TYPES = frozenset(("Any", "Boolean", "Integer", "Decimal", "String", "Date", "DateTime", "Time", "Quantity"))
ANY_RESOURCE = "Resource"


class ElementType(NamedTuple):
    """One element: JSON name → type (several for a choice) and whether it repeats."""

    names: dict[str, str]
    repeats: bool


class TypeTable(NamedTuple):
    """One type: elements by FHIRPath name, types by JSON name."""

    elements: dict[str, ElementType]
    json_types: dict[str, str]


@cache
def _file() -> dict[str, Any]:
    table: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    return table


@cache
def primitives() -> frozenset[str]:
    """Names of the primitive types."""
    return frozenset(_file()["primitives"])


@cache
def resource_types() -> frozenset[str]:
    """Names of the resource types that can be instantiated."""
    return frozenset(_file()["resources"])


@cache
def _table(type_name: str) -> TypeTable:
    source = _file()
    elements: dict[str, ElementType] = {}
    for part in source["types"][type_name].split():
        is_choice = "[x]=" in part
        stem, _, kinds = part.partition("=") if is_choice else (part, "", part)
        kinds = kinds.rstrip("@")
        repeats = kinds.endswith("*")
        kinds = kinds.rstrip("*")
        if kinds == "all":
            base = stem.removesuffix("[x]")
            names = {base + suffix: kind for suffix, kind in source["all"]}
        else:
            names = dict(item.split(":") for item in kinds.split("|"))
        name = stem.removesuffix("[x]") if is_choice else next(iter(names))
        elements[name] = ElementType(names, repeats)
    if "id" in elements and is_subtype(type_name, ANY_RESOURCE):
        elements["id"] = ElementType({"id": "id"}, False)
    if type_name == "Extension":
        elements["url"] = ElementType({"url": "uri"}, False)
    json_types = {json_name: kind for element in elements.values() for json_name, kind in element.names.items()}
    return TypeTable(elements, json_types)


_TABLES: dict[str, TypeTable] = {}


def table_of(type_name: str) -> TypeTable | None:
    """Return the table of a complex type or resource (for a primitive that of Element), None for any other name."""
    table = _TABLES.get(type_name)
    return _known_table(type_name) if table is None else table


def _known_table(type_name: str) -> TypeTable | None:
    source = "Quantity" if type_name in ("SimpleQuantity", "MoneyQuantity") else type_name
    source = "Element" if type_name in primitives() else source
    if source not in _file()["types"]:
        return None
    _TABLES[type_name] = _table(source)
    return _TABLES[type_name]


def is_known(name: str) -> bool:
    """Whether `name` is a FHIR type that an expression may name."""
    return name in _file()["types"] or name in primitives() or name in _BASES


def base_of(type_name: str) -> str | None:
    """Type that `type_name` specialises; None for the roots and for unknown names."""
    base = _BASES.get(type_name)
    if base is not None:
        return base
    if type_name in resource_types():
        return "DomainResource"
    if "." in type_name and not type_name.startswith("System."):
        root = type_name.partition(".")[0]
        return "BackboneElement" if root in resource_types() else "Element"
    if type_name in ("Element", "Resource") or type_name.startswith("System."):
        return None
    return "Element" if type_name else None


@lru_cache(maxsize=4096)
def is_subtype(type_name: str, ancestor: str) -> bool:
    """Whether a type is `ancestor` or a kind of it."""
    current: str | None = type_name
    while current is not None:
        if current == ancestor:
            return True
        current = base_of(current)
    return False
