"""Nested names of `_elements` (``name.family``): parts of an element, each with its bytes as stored.

R4 speaks of base elements only; a nested name asks for less. https://hl7.org/fhir/R4/search.html#elements
"""

from __future__ import annotations

import msgspec

from fhir_server.model.resource import compose, raw_members

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_KEPT = frozenset({"id", "extension", "modifierExtension", "resourceType"})
"""What stays in every part: without it the rest could be read wrongly."""
Tree = dict[str, "Tree"]


def top_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the elements of the resource that the names lie in."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names))


def tree_of(names: tuple[str, ...]) -> Tree:
    """Return the names as a tree; an empty branch means the whole element."""
    root: Tree = {}
    whole = set(names)
    for name in names:
        parts = name.split(".")
        if any(".".join(parts[:count]) in whole for count in range(1, len(parts))):
            continue  # An element around it is asked for as a whole.
        node = root
        for part in parts:
            node = node.setdefault(part, {})
    return root


def trim(content: bytes, names: tuple[str, ...]) -> bytes:
    """Return a resource, cut down to its wanted elements, with only the wanted parts of these."""
    if not any("." in name for name in names):
        return content
    members = raw_members(content)
    for name, below in tree_of(names).items():
        if below and name in members:
            members[name] = _cut(members[name], below)
    return compose(members)


def _cut(value: bytes, tree: Tree) -> bytes:
    value = value.strip()
    if value[:1] == b"[":
        return b"[" + b",".join(_cut(bytes(item), tree) for item in _ITEMS.decode(value)) + b"]"
    if value[:1] != b"{":
        return value
    members = raw_members(value)
    kept = {}
    for name, part in members.items():
        below = tree.get(name.removeprefix("_"))
        if name in _KEPT:
            kept[name] = part
        elif below is not None:
            kept[name] = _cut(part, below) if below else part
    return compose(kept)
