"""dom-3 and ref-1 decided with one walk of the resource, where their expressions would take one for each element.

https://hl7.org/fhir/R4/domainresource.html#invs, https://hl7.org/fhir/R4/references.html#Reference. Each gives the
answer of its FHIRPath expression (see `fhir_server.generate.invariants`); a test holds them against each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fhir_server.fhirpath.node import Node, children

Decided = Callable[[Node, Node], bool]
_URIS = frozenset(("canonical", "uri", "url"))


class _Remembered(threading.local):
    """The resource whose contained ids were asked for last, on this thread and within one validation."""

    is_within: bool = False
    container: dict[str, Any] | None = None
    ids: frozenset[str] = frozenset()


_remembered = _Remembered()


@contextmanager
def remembered_ids() -> Iterator[None]:
    """Within, no resource changes: the ids of what one contains are collected once."""
    _remembered.is_within = True
    try:
        yield
    finally:
        _remembered.is_within = False
        _remembered.container = None


def _contained_ids(container: Any) -> frozenset[str]:
    if type(container) is not dict:
        return frozenset()
    if _remembered.container is container:
        return _remembered.ids
    contained = container.get("contained")
    items = contained if type(contained) is list else [contained]
    ids = frozenset(item["id"] for item in items if type(item) is dict and type(item.get("id")) is str)
    if _remembered.is_within:
        _remembered.container, _remembered.ids = container, ids
    return ids


def points_inside(reference: Node, root: Node) -> bool:
    """ref-1: ``#id`` is the id of a resource that the root contains; ``#`` is the root."""
    value = reference.value
    text = value.get("reference") if type(value) is dict else None
    if type(text) is not str:
        return text is None and not (type(value) is dict and "_reference" in value)
    return not text.startswith("#") or text == "#" or text[1:] in _contained_ids(root.value)


def contained_are_referenced(resource: Node, root: Node) -> bool:
    """dom-3: each contained resource that has an id is referred to, or refers to its container."""
    inside = [child for child in children(resource) if child.key == "contained"]
    if not inside:
        return True
    references, _ = _targets(resource)
    for inner in inside:
        own = inner.value.get("id") if type(inner.value) is dict else None
        if own is None or (type(own) is str and f"#{own}" in references):
            continue
        if not _targets(inner)[1]:
            return False
    return True


def _targets(top: Node) -> tuple[set[str], bool]:
    """Return the fragments that elements below refer to, and whether one of them refers to the container (``#``)."""
    found: set[str] = set()
    to_container = False
    waiting = children(top)
    while waiting:
        node = waiting.pop()
        value = node.value
        if type(value) is str and value[:1] == "#":
            is_reference = node.key == "reference"
            if is_reference or node.type_name in _URIS:
                found.add(value)
                to_container = to_container or (value == "#" and (is_reference or node.type_name == "canonical"))
        if type(value) is dict or node.extra is not None:
            waiting += children(node)
    return found, to_container


DECIDED: dict[tuple[str, str], Decided] = {
    ("*", "dom-3"): contained_are_referenced,
    ("Reference", "ref-1"): points_inside,
}
"""By (type, key) of the constraint."""
