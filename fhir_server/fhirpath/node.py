"""Items of a FHIRPath collection: a JSON value with its R4 type and its place, or a computed System value.

https://hl7.org/fhir/R4/fhirpath.html#types, https://hl7.org/fhir/R4/json.html#primitive
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fhir_server.fhirpath.type_table import ANY_RESOURCE, primitives, resource_types, table_of


class Node:
    """One item.

    Attributes
    ----------
    value : JSON value (dict, str, bool, int, float or Decimal), a System value (Decimal, Temporal, Quantity),
        or None for a primitive that has only extensions
    type_name : FHIR type (``Patient``, ``Patient.contact``, ``code``) or System type (``System.String``);
        "" where R4 defines no type
    extra : id and extensions of a primitive (the ``_name`` member beside it)
    """

    __slots__ = ("extra", "index", "key", "parent", "type_name", "value")

    def __init__(
        self,
        value: Any,
        type_name: str,
        parent: Node | None = None,
        key: str = "",
        index: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.value = value
        self.type_name = type_name
        self.parent = parent
        self.key = key
        self.index = index
        self.extra = extra

    @property
    def path(self) -> tuple[str | int, ...]:
        """JSON location below the root, for example ``("name", 0, "given", 1)``; computed values have ``()``."""
        steps: list[str | int] = []
        node, prefix = self, ""
        while node.parent is not None:
            if node.index is not None:
                steps.append(node.index)
            steps.append(prefix + node.key)
            node = node.parent
            # What is below a primitive stands in the member beside it.
            prefix = "" if type(node.value) is dict else "_"
        return tuple(reversed(steps))

    def __repr__(self) -> str:
        return f"Node({self.type_name}, {self.path})"


def root_node(value: Any, type_name: str | None = None) -> Node:
    """Make the node of a resource or, with its type, of any element."""
    if isinstance(value, Node):
        return value
    if type_name is None:
        type_name = type_of(value, "")
    return Node(value, type_name)


def type_of(value: Any, declared: str) -> str:
    """Type of a JSON value where the definitions say `declared` ("" or ``Resource``: the value decides)."""
    if declared and declared != ANY_RESOURCE:
        return declared
    if type(value) is dict:
        named = value.get("resourceType")
        return named if isinstance(named, str) and named in resource_types() else declared
    if type(value) is bool:
        return "boolean"
    if type(value) is int:
        return "integer"
    return "string" if type(value) is str else "decimal" if value is not None else ""


def _append(found: list[Node], parent: Node, key: str, kind: str, value: Any, extra: Any) -> None:
    if extra is None and type(value) is list and kind and kind != ANY_RESOURCE:
        for number, item in enumerate(value):
            if item is not None:
                found.append(Node(item, kind, parent, key, number))
    elif type(value) is list or type(extra) is list:
        values = value if type(value) is list else []
        extras = extra if type(extra) is list else []
        for number in range(max(len(values), len(extras))):
            item = values[number] if number < len(values) else None
            own = extras[number] if number < len(extras) else None
            if item is not None or type(own) is dict:
                own = own if type(own) is dict else None
                found.append(Node(item, type_of(item, kind), parent, key, number, own))
    elif value is not None or type(extra) is dict:
        found.append(Node(value, type_of(value, kind), parent, key, None, extra if type(extra) is dict else None))


def step(node: Node, name: str, found: list[Node]) -> bool:
    """Add the children called `name` to `found`; returns False when the type is known to have no such element."""
    value = node.value
    table = table_of(node.type_name)
    if type(value) is not dict:
        if node.extra is not None and name in ("id", "extension"):
            _append(found, node, name, "string" if name == "id" else "Extension", node.extra.get(name), None)
            return True
        return table is not None and name in table.elements
    if table is None:
        # A logical model or a type we do not know: JSON names are all there is.
        _append(found, node, name, "", value.get(name), value.get("_" + name))
        return True
    element = table.elements.get(name)
    if element is None:
        return False
    names = element.names
    for json_name, kind in names.items() if len(names) < 4 else _present(value, names):
        item, extra = value.get(json_name), value.get("_" + json_name)
        if item is not None or extra is not None:
            _append(found, node, json_name, kind, item, extra)
    return True


def _present(value: dict[str, Any], names: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key in value:
        json_name = key.removeprefix("_")
        if json_name in names and (json_name == key or json_name not in value):
            yield json_name, names[json_name]


def children(node: Node) -> list[Node]:
    """Return all children, in the order of the JSON text."""
    found: list[Node] = []
    value = node.value
    if type(value) is not dict:
        if node.extra is not None:
            for name in ("id", "extension"):
                step(node, name, found)
        return found
    table = table_of(node.type_name)
    for key in value:
        json_name = key.removeprefix("_")
        if key == "resourceType" or (json_name != key and json_name in value):
            continue
        kind = "" if table is None else table.json_types.get(json_name)
        if kind is not None:
            _append(found, node, json_name, kind, value.get(json_name), value.get("_" + json_name))
    return found


def descendants(node: Node, limit: int) -> list[Node]:
    """Return all nodes below `node`, parents first; at most `limit` + 1 of them."""
    found: list[Node] = []
    waiting = children(node)
    waiting.reverse()
    while waiting and len(found) <= limit:
        current = waiting.pop()
        found.append(current)
        if type(current.value) is dict or current.extra is not None:
            below = children(current)
            below.reverse()
            waiting += below
    return found


def has_value(node: Node) -> bool:
    """Whether the item is a primitive with a value (not only extensions)."""
    return node.value is not None and (node.type_name in primitives() or node.type_name.startswith("System."))
