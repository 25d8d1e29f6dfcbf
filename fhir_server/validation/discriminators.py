"""Which slice does a repetition belong to: discriminators by value, pattern, exists, type and profile. Pure.

https://hl7.org/fhir/R4/profiling.html#discriminator. Paths: ``$this``, element names, ``extension('url')``,
``resolve()`` and ``ofType(X)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fhir_server.model.references import parse_reference
from fhir_server.model.structure import concrete_resources
from fhir_server.validation.element_tree import ElementNode
from fhir_server.validation.items import Item, children
from fhir_server.validation.patterns import contains, equals
from fhir_server.validation.profile import R4, Profile

_STEP = re.compile(
    r"(?P<this>\$this)|extension\('(?P<extension>[^']+)'\)|(?P<resolve>resolve\(\))|ofType\((?P<of>\w+)\)|(?P<name>\w+)"
)


class UndecidedError(Exception):
    """The discriminator cannot be evaluated here."""


class Discriminator:
    """Assigns items to slices.

    Parameters
    ----------
    profiles : loaded profiles by canonical
    resolve : gives the resource a Reference names, when it is at hand (contained, or in the same Bundle)
    conforms : whether an item meets a profile
    """

    def __init__(
        self,
        profiles: Mapping[str, Profile | None],
        resolve: Callable[[str], Item | None],
        conforms: Callable[[Item, str], bool],
    ) -> None:
        self._profiles = profiles
        self._resolve = resolve
        self._conforms = conforms
        self._targets = {u: name for p in profiles.values() if p is not None for u, name in p.targets.items()}

    def matches(self, item: Item, sliced: ElementNode, piece: ElementNode) -> bool:
        """Whether an item belongs to a slice.

        Raises
        ------
        UndecidedError
            A discriminator has a form that is not supported.
        """
        if sliced.slicing is None or not sliced.slicing.discriminators:
            raise UndecidedError
        return all(self._matches(item, piece, kind, path) for kind, path in sliced.slicing.discriminators)

    def _matches(self, item: Item, piece: ElementNode, kind: str, path: str) -> bool:
        steps = _steps(path)
        items = self._items([item], steps)
        definitions = self._definitions(piece, steps)
        if kind == "type":
            return self._has_type(items, item, definitions)
        if not definitions:
            raise UndecidedError
        if kind == "exists":
            return all(not items if d.max == 0 else bool(items) if d.min > 0 else True for d in definitions)
        if kind == "profile":
            urls = [url for d in definitions for rule in d.types for url in (*rule.profiles, *rule.targets)]
            if not urls:
                raise UndecidedError
            return any(self._conforms(found, url) for found in items for url in urls)
        fits = [fit for definition in definitions if (fit := self._fits(definition, items)) is not None]
        if not fits:
            raise UndecidedError
        return any(fits)

    def _items(self, items: list[Item], steps: list[tuple[str, str]]) -> list[Item]:
        for kind, text in steps:
            if kind == "name":
                items = [found for item in items for found in children(item, text)]
            elif kind == "extension":
                items = [
                    found
                    for item in items
                    for found in children(item, "extension")
                    if isinstance(found.value, dict) and found.value.get("url") == text
                ]
            elif kind == "resolve":
                items = [found for item in items for found in self._resolved(item)]
            elif kind == "of":
                items = [item for item in items if item.concrete_type == text]
        return items

    def _resolved(self, item: Item) -> list[Item]:
        if not isinstance(item.value, dict):
            return []
        reference = item.value.get("reference")
        found = self._resolve(reference) if isinstance(reference, str) else None
        if found is not None:
            return [found]
        target = reference_type(item.value)
        # The resource is elsewhere: its type is all that is known of it.
        return [Item({"resourceType": target}, "Resource", item.path)] if target else []

    def _definitions(self, node: ElementNode, steps: list[tuple[str, str]]) -> list[ElementNode]:
        """What the slice says of the elements at the path: the element itself, and slices of it."""
        found = [node]
        for kind, text in steps:
            if kind == "name":
                children_found = [child for item in found if (child := self._child(item, text)) is not None]
                found = [part for child in children_found for part in (child, *child.slices)]
            elif kind == "extension":
                bases = [base for item in found if (base := item.children.get("extension")) is not None]
                found = [part for base in bases for part in base.slices if _extension_url(part) == text]
            elif kind == "resolve":
                found = [self._target_root(item) for item in found]
        return found

    def _target_root(self, node: ElementNode) -> ElementNode:
        targets = [url for rule in node.types for url in rule.targets]
        profile = self._profiles.get(targets[0]) if len(targets) == 1 else None
        return profile.root if profile is not None else node

    def _child(self, node: ElementNode, name: str) -> ElementNode | None:
        own = node.children.get(name)
        if own is not None:
            return own
        urls = [url for rule in node.types for url in rule.profiles]
        if len(urls) != 1:
            return None
        profile = self._profiles.get(urls[0])
        if profile is not None:
            return profile.root.children.get(name)
        # An extension whose definition is not at hand still has its URL.
        return ElementNode(f"{node.identity}.url", "Extension.url", "url", fixed=urls[0]) if name == "url" else None

    def _fits(self, node: ElementNode, items: list[Item]) -> bool | None:
        """Whether some item has the values a definition fixes; None when it fixes none."""
        if node.fixed is not None:
            return any(equals(item.value, node.fixed) for item in items)
        if node.pattern is not None:
            return any(contains(item.value, node.pattern) for item in items)
        parts = [
            part
            for child in node.children.values()
            for part in (child, *(piece for piece in child.slices if piece.min > 0))
            if self._fits(part, []) is not None
        ]
        if not parts:
            return None
        return any(all(self._fits(part, children(item, part.name)) for part in parts) for item in items)

    def _has_type(self, items: list[Item], item: Item, definitions: list[ElementNode]) -> bool:
        codes: set[str] = set()
        for definition in definitions:
            if "." not in definition.identity:
                codes.add(definition.path)  # The root of a profile: its type.
            elif definition.type_codes == {"Reference"} and items and items[0] is not item:
                codes |= {self.target_type(url) for rule in definition.types for url in rule.targets}
            else:
                codes |= definition.type_codes
        if not codes:
            raise UndecidedError
        return any(found.concrete_type in codes for found in items)

    def target_type(self, url: str) -> str:
        """Resource type of a profile that a reference may point to; empty when the profile is not known."""
        name = url.partition("|")[0].removeprefix(R4)
        if name in concrete_resources() or name == "Resource":
            return name
        profile = self._profiles.get(url)
        return profile.type_name if profile is not None else self._targets.get(url, "")


def _steps(path: str) -> list[tuple[str, str]]:
    steps, position = [], 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise UndecidedError
        kind = str(match.lastgroup)
        if kind != "this":
            steps.append((kind, match[kind]))
        position = match.end()
        if path[position : position + 1] == ".":
            position += 1
        elif position < len(path):
            raise UndecidedError
    return steps


def _extension_url(piece: ElementNode) -> str:
    for rule in piece.types:
        if rule.profiles:
            return rule.profiles[0].partition("|")[0]
    url = piece.children.get("url")
    return str(url.fixed) if url is not None else ""


def reference_type(reference: dict[str, Any]) -> str:
    """Type that a Reference tells of its target: by its URL or its `type`; empty when it tells none."""
    text = reference.get("reference")
    if isinstance(text, str) and not text.startswith(("#", "urn:")):
        parsed = parse_reference("/".join(text.partition("/_history/")[0].rsplit("/", 2)[-2:]))
        if parsed is not None and parsed[0] in concrete_resources():
            return parsed[0]
    kind = reference.get("type")
    return kind if isinstance(kind, str) and kind in concrete_resources() else ""
