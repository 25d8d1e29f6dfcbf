"""Check a resource against compiled profiles. Pure: what must be asked elsewhere (codes) is collected, not asked.

https://hl7.org/fhir/R4/profiling.html, https://hl7.org/fhir/R4/validation.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.expression import compile_expression
from fhir_server.validation.discriminators import Discriminator, UndecidedError, reference_type
from fhir_server.validation.element_tree import UNBOUNDED, Binding, ElementNode, TypeRule
from fhir_server.validation.items import Item, children
from fhir_server.validation.patterns import contains, equals, in_range
from fhir_server.validation.profile import R4, Profile
from foramen.kernel.errors import InvalidResourceError, Issue

_MAX_DEPTH = 40
_MAX_ISSUES = 200
_MAX_WORK = 300_000
"""Elements checked for one resource, those of nested profiles counted again each time."""


@dataclass(frozen=True, slots=True)
class CodeCheck:
    """A coded value whose value set must be asked: codings as (system, code), all of one element."""

    binding: Binding
    codings: tuple[tuple[str | None, str], ...]
    path: str


class Conformance:
    """One resource against profiles; `issues` and `codes` grow with every `check`."""

    def __init__(self, data: dict[str, Any], profiles: Mapping[str, Profile | None]) -> None:
        self._data = data
        self._profiles = profiles
        self._discriminator = Discriminator(profiles, self._resolve, self._conforms)
        self._depth = 0
        self._work = [0]
        self.issues: list[Issue] = []
        self.codes: list[CodeCheck] = []

    def check(self, profile: Profile) -> None:
        """Check the whole resource against one profile."""
        resource_type = str(self._data.get("resourceType"))
        if profile.type_name != resource_type:
            self._say("structure", "The profile is of another resource type", resource_type)
            return
        self._profile(Item(self._data, "Resource", resource_type), profile)

    def _profile(self, item: Item, profile: Profile) -> None:
        if self._depth > _MAX_DEPTH:
            self._say("too-costly", "Too deep to be checked against its profiles", item.path, "information")
            return
        self._depth += 1
        self._element(item, profile.root, profile, nested=True)
        self._depth -= 1

    def _element(self, item: Item, node: ElementNode, profile: Profile, *, nested: bool = False) -> None:
        """Check an element against its definition, and then what is in it."""
        self._work[0] += 1
        if self._work[0] > _MAX_WORK:
            raise InvalidResourceError("Checking it against its profiles is too costly", issue_code="too-costly")
        if len(self.issues) >= _MAX_ISSUES:
            return
        if not nested:
            self._type(item, node)
        self._value(item, node)
        self._constraints(item, node)
        source = node
        if node.content_reference and not node.children:
            source = profile.by_identity.get(node.content_reference, node)
        for child in source.children.values():
            self._group(item, child, profile)

    def _group(self, owner: Item, node: ElementNode, profile: Profile) -> None:
        items = children(owner, node.name)
        path = f"{owner.path}.{node.name}"
        self._count(len(items), node, path, "")
        if node.slices:
            self._sliced(items, node, profile, path)
        for item in items:
            self._element(item, node, profile)

    def _count(self, count: int, node: ElementNode, path: str, which: str) -> None:
        if count < node.min:
            self._say("required", f"At least {node.min} {which}needed, there are {count}", path)
        if node.max != UNBOUNDED and count > node.max:
            self._say("structure", f"At most {node.max} {which}allowed, there are {count}", path)

    def _sliced(self, items: list[Item], node: ElementNode, profile: Profile, path: str) -> None:
        counts = dict.fromkeys((piece.identity for piece in node.slices), 0)
        rules = node.slicing.rules if node.slicing is not None else "open"
        order: list[int] = []
        undecided: set[str] = set()
        for item in items:
            piece = self._slice_of(item, node, undecided)
            if piece is None:
                if rules == "closed" and not undecided:
                    self._say("structure", "This belongs to none of the slices, and there may be no others", item.path)
                order.append(len(node.slices))
                continue
            counts[piece.identity] += 1
            order.append(node.slices.index(piece))
            self._element(item, piece, profile)
        in_order = order == sorted(order)
        last_is_open = (
            rules == "openAtEnd" and len(node.slices) in order[: len([o for o in order if o < len(node.slices)])]
        )
        if (node.slicing is not None and node.slicing.ordered and not in_order) or last_is_open:
            self._say("structure", "The slices are not in the order of the profile", path)
        for piece in node.slices:
            if piece.slice_name not in undecided:
                self._count(counts[piece.identity], piece, path, f"of slice {piece.slice_name} ")

    def _slice_of(self, item: Item, node: ElementNode, undecided: set[str]) -> ElementNode | None:
        for piece in node.slices:
            if "/" in piece.slice_name:
                undecided.add(piece.slice_name)
                continue  # A slice of a slice: not supported (docs/api/validation.md).
            try:
                if self._discriminator.matches(item, node, piece):
                    return piece
            except UndecidedError:
                undecided.add(piece.slice_name)
                text = f"Whether this belongs to slice {piece.slice_name} cannot be decided; it was not checked"
                self._say("not-supported", text, item.path, "information")
        return None

    def _type(self, item: Item, node: ElementNode) -> None:
        if not node.types:
            return
        rules = [rule for rule in node.types if _allows(rule, item)]
        if not rules:
            allowed = ", ".join(sorted(rule.code for rule in node.types))
            self._say("structure", f"The type must be {allowed}", item.path)
            return
        urls = [url for rule in rules for url in rule.profiles]
        if urls and not any(not rule.profiles for rule in rules):
            self._nested(item, urls)
        targets = [url for rule in rules for url in rule.targets]
        if targets and isinstance(item.value, dict):
            self._target(item, targets)

    def _nested(self, item: Item, urls: list[str]) -> None:
        known = [profile for url in urls if (profile := self._profiles.get(url)) is not None]
        if not known:
            if item.type_name != "Extension":  # Its definition says nothing that could be broken here.
                self._say(
                    "not-supported", "Its profile is not known here; it was not checked", item.path, "information"
                )
            return
        if len(known) == 1:
            self._profile(item, known[0])
        elif not any(self._conforms(item, profile.url) for profile in known):
            self._say("structure", "It meets none of the profiles allowed here", item.path)

    def _target(self, item: Item, targets: list[str]) -> None:
        text = item.value.get("reference")
        found = self._resolve(text) if isinstance(text, str) else None
        kind = found.concrete_type if found is not None else reference_type(item.value)
        allowed = {self._discriminator.target_type(url) for url in targets}
        if kind and "" not in allowed and "Resource" not in allowed and kind not in allowed:
            self._say(
                "value", f"This reference may only point to {', '.join(sorted(allowed))}", f"{item.path}.reference"
            )

    def _value(self, item: Item, node: ElementNode) -> None:
        value = item.value
        if value is None:
            return
        if node.fixed is not None and not equals(value, node.fixed):
            self._say("value", "The value must be the one that the profile fixes", item.path)
        if node.pattern is not None and not contains(value, node.pattern):
            self._say("value", "The value must have everything the profile's pattern has", item.path)
        if node.max_length is not None and isinstance(value, str) and len(value) > node.max_length:
            self._say("too-long", f"At most {node.max_length} characters are allowed", item.path)
        if not in_range(value, node.min_value, node.max_value):
            self._say("value", "The value is outside the range that the profile allows", item.path)
        if node.binding is not None and node.binding.strength in ("required", "extensible"):
            codings = _codings(item)
            if codings or (isinstance(value, dict) and "text" in value and node.binding.strength == "required"):
                self.codes.append(CodeCheck(node.binding, codings, item.path))

    def _constraints(self, item: Item, node: ElementNode) -> None:
        for constraint in node.constraints:
            if item.value is None:
                continue
            try:
                type_name = item.concrete_type
                good = compile_expression(constraint.expression).is_true(
                    item.value, type_name=type_name, resource=self._data
                )
            except FhirPathError:
                text = f"{constraint.key} could not be evaluated; it was not checked"
                self._say("not-supported", text, item.path, "information")
                continue
            if not good:
                self._say("invariant", f"{constraint.key}: {constraint.human}", item.path, constraint.severity)

    def _conforms(self, item: Item, url: str) -> bool:
        profile = self._profiles.get(url)
        if profile is None:
            return self._discriminator.target_type(url) == item.concrete_type
        if profile.type_name not in (item.concrete_type, "Resource"):
            return False
        inner = Conformance(self._data, self._profiles)
        inner._depth = self._depth
        inner._work = self._work
        inner._profile(item, profile)
        return not any(issue.severity == "error" for issue in inner.issues)

    def _resolve(self, reference: str) -> Item | None:
        resource_type = str(self._data.get("resourceType"))
        if reference.startswith("#"):
            for number, contained in enumerate(self._data.get("contained") or ()):
                if isinstance(contained, dict) and contained.get("id") == reference[1:]:
                    return Item(contained, "Resource", f"{resource_type}.contained[{number}]")
        elif resource_type == "Bundle":
            for number, entry in enumerate(self._data.get("entry") or ()):
                full_url = str(entry.get("fullUrl", ""))
                if (
                    full_url
                    and isinstance(entry.get("resource"), dict)
                    and (full_url == reference or full_url.endswith(f"/{reference}"))
                ):
                    return Item(entry["resource"], "Resource", f"Bundle.entry[{number}].resource")
        return None

    def _say(self, code: str, text: str, path: str, severity: str = "error") -> None:
        self.issues.append(Issue(code, text, (path,), severity))


def _allows(rule: TypeRule, item: Item) -> bool:
    kind = item.concrete_type
    if rule.code in ("Resource", "DomainResource", "Element", "BackboneElement") or "." in kind:
        return True
    return rule.code in (kind, item.type_name) or rule.code.removeprefix(R4) == kind


def _codings(item: Item) -> tuple[tuple[str | None, str], ...]:
    value = item.value
    if isinstance(value, str):
        return ((None, value),)
    if not isinstance(value, dict):
        return ()
    found = value.get("coding", []) if "coding" in value else [value]
    return tuple((c.get("system"), c["code"]) for c in found if isinstance(c, dict) and isinstance(c.get("code"), str))
