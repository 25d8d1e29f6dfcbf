"""Composite parameters: pairs of values that stand in the same element, such as code$value.

https://hl7.org/fhir/R4/search.html#composite
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import CompositeGroup, TypeParameters
from fhir_server.search.values import IndexValues, Leaf, leaf_for

EXACT = ("token", "reference", "uri", "string")
"""Kinds whose values are compared whole, so that a pair of them is one hash; a range kind must come last."""


_SINGLE = frozenset({("Observation", "code"), ("Observation", "value")})
"""(type, path) of elements that occur at most once in a resource: parts over them stand together by themselves."""


def single_parts(parameters: TypeParameters, kinds: tuple[str, ...], group: CompositeGroup) -> tuple[str, ...] | None:
    """Return the paths of a group's parts when each is a single element of the resource, else None.

    Such a pair needs no index of its own: it is the conjunction of its parts. Observation.code with its value is the
    most frequent composite of all, and would cost every measurement nine entries.
    """
    if group.base:
        return None
    found = []
    for kind, part in zip(kinds, group.parts, strict=True):
        table = parameters.paths.get(kind, {})
        names = (name for name, leaves in table.items() if {tuple(leaf) for leaf in leaves}.issuperset(part))
        name = next((name for name in names if (parameters.resource_type, name) in _SINGLE), None)
        if name is None:
            return None
        found.append(name)
    return tuple(found)


def group_base(resource_type: str, group: CompositeGroup) -> int:
    """Index base of a group; parameters that share it (code-…, combo-code-…) share its values."""
    parts = "$".join(",".join(path for path, _ in part) for part in group.parts)
    return hash64(f"{resource_type}:composite:{group.base}:{parts}")


def _items(element: Any, path: str) -> Iterator[Any]:
    name, _, rest = path.partition(".")
    value = element.get(name) if isinstance(element, dict) else None
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        if rest:
            yield from _items(item, rest)
        else:
            yield item


def rotate(value: int) -> int:
    """Rotate a signed 64-bit hash by one bit, so that a pair (a, b) differs from (b, a)."""
    bits = value & 0xFFFF_FFFF_FFFF_FFFF
    bits = ((bits << 1) | (bits >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
    return bits - (1 << 64) if bits >> 63 else bits


class GroupExtractor:
    """Finds the pairs of one group."""

    def __init__(self, resource_type: str, group: CompositeGroup, kinds: tuple[str, ...], own_url: str) -> None:
        self._base = group_base(resource_type, group)
        self._path = group.base
        # Without one of these elements there can be no pair.
        last = {path.lstrip("/").partition(".")[0] for path, _ in group.parts[-1]}
        self._needed = frozenset({group.base.partition(".")[0]} if group.base else last)
        self._last_kind = kinds[-1]
        # Two numbers at the end (start and end of a sequence window) stand in one entry as its low and high.
        self._numbers = kinds[-2:] == ("number", "number")
        self._parts = [
            [(path, _leaf(kind, data_type, own_url)) for path, data_type in part]
            for part, kind in zip(group.parts, kinds, strict=True)
        ]

    def _part(self, root: dict[str, Any], element: Any, leaves: list[tuple[str, Leaf]]) -> IndexValues | None:
        out: IndexValues | None = None
        for path, leaf in leaves:
            for item in _items(root, path[1:]) if path[0] == "/" else _items(element, path):
                if out is None:
                    out = IndexValues()
                leaf(item, out)
        return out

    def extract(self, data: dict[str, Any], out: IndexValues) -> None:
        """Add the pairs of one resource to the index."""
        if self._needed.isdisjoint(data):
            return
        for element in _items(data, self._path) if self._path else (data,):
            last = self._part(data, element, self._parts[-1])
            if last is None:
                continue
            heads = {self._base}
            for leaves in self._parts[: -2 if self._numbers else -1]:
                part = self._part(data, element, leaves)
                heads = {rotate(head) ^ value for head in heads for value in part.postings} if part else set()
            first = self._part(data, element, self._parts[-2]) if self._numbers else None
            for head in heads:
                self._add(rotate(head), first, last, out)

    def _add(self, head: int, first: IndexValues | None, last: IndexValues, out: IndexValues) -> None:
        if self._numbers:
            out.numbers |= {
                (head, low, high) for _, low, _ in (first.numbers if first else ()) for _, _, high in last.numbers
            }
            return
        out.postings |= {head ^ value for value in last.postings}
        out.dates |= {(head ^ key, low, high) for key, low, high in last.dates}
        out.numbers |= {(head ^ key, low, high) for key, low, high in last.numbers}
        if self._last_kind == "string":
            out.strings |= {(head ^ key, text) for key, text in last.strings}


def _leaf(kind: str, data_type: str, own_url: str) -> Leaf:
    return leaf_for(
        kind,
        data_type,
        0,
        own_url=own_url,
        is_main_date=False,
        is_code=False,
        in_compartment=False,
        is_existence=False,
    )


def group_extractors(parameters: TypeParameters, own_url: str) -> list[GroupExtractor]:
    """Return one extractor for each distinct group of a type's composites."""
    found: dict[int, GroupExtractor] = {}
    for item in parameters.parameters.values():
        for group in item.groups:
            if single_parts(parameters, item.part_kinds, group) is not None:
                continue
            base = group_base(parameters.resource_type, group)
            if base not in found:
                found[base] = GroupExtractor(parameters.resource_type, group, item.part_kinds, own_url)
    return list(found.values())
