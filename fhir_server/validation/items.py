"""The elements of a JSON resource with their types and locations: what profiles speak about. Pure.

https://hl7.org/fhir/R4/json.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_server.model.structure import primitive_types, structure_of


@dataclass(frozen=True, slots=True)
class Item:
    """One element: its JSON value, its type, its FHIRPath location.

    `more` is the ``_name`` object of a primitive (id and extensions); `value` is None when there is only that.
    """

    value: Any
    type_name: str
    path: str
    more: dict[str, Any] | None = None

    @property
    def is_primitive(self) -> bool:
        """Whether its type is primitive."""
        return self.type_name in primitive_types()

    @property
    def concrete_type(self) -> str:
        """Type name; of a contained resource its own."""
        if self.type_name == "Resource" and isinstance(self.value, dict):
            return str(self.value.get("resourceType", "Resource"))
        return self.type_name


def children(item: Item, name: str) -> list[Item]:
    """Return the elements `name` of an element, all types of a choice together."""
    if item.is_primitive:
        owner: Any = item.more
        structure = structure_of("Element")
    else:
        owner, structure = item.value, structure_of(item.concrete_type)
    if not isinstance(owner, dict):
        return []
    if structure is None:
        return []
    if name in structure.choices:
        names = [n for n in structure.choices[name].values() if n in owner or f"_{n}" in owner]
    else:
        names = [name] if name in owner or f"_{name}" in owner else []
    found: list[Item] = []
    for key in names:
        rule = structure.elements.get(key)
        type_name = rule.type_name if rule is not None else "Element"
        found += _items(owner.get(key), owner.get(f"_{key}"), type_name, f"{item.path}.{key}")
    return found


def _items(value: Any, more: Any, type_name: str, path: str) -> list[Item]:
    if isinstance(value, list) or isinstance(more, list):
        values = value if isinstance(value, list) else []
        extras = more if isinstance(more, list) else []
        count = max(len(values), len(extras))
        return [
            Item(
                values[number] if number < len(values) else None,
                type_name,
                f"{path}[{number}]",
                _object(extras[number]) if number < len(extras) else None,
            )
            for number in range(count)
        ]
    return [Item(value, type_name, path, _object(more))]


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None
