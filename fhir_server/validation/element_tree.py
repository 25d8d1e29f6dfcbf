"""A snapshot as a tree: elements with their rules, children and slices. Pure.

https://hl7.org/fhir/R4/elementdefinition.html, https://hl7.org/fhir/R4/profiling.html#slicing
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from foramen.kernel.errors import InvalidResourceError

UNBOUNDED = -1


@dataclass(frozen=True, slots=True)
class TypeRule:
    """One allowed type, the profiles its value must meet, the profiles a reference may point to."""

    code: str
    profiles: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Binding:
    """Which value set a coded value is from."""

    strength: str
    value_set: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """One FHIRPath rule."""

    key: str
    severity: str
    human: str
    expression: str


@dataclass(frozen=True, slots=True)
class Slicing:
    """How the repetitions of an element are told apart."""

    discriminators: tuple[tuple[str, str], ...]
    rules: str
    ordered: bool


@dataclass(slots=True)
class ElementNode:
    """One element of a profile.

    `name` is the JSON name, without ``[x]`` for a choice; `max` is `UNBOUNDED` for ``*``.
    """

    identity: str
    path: str
    name: str
    slice_name: str = ""
    min: int = 0
    max: int = UNBOUNDED
    types: tuple[TypeRule, ...] = ()
    fixed: Any = None
    pattern: Any = None
    min_value: Any = None
    max_value: Any = None
    max_length: int | None = None
    binding: Binding | None = None
    constraints: tuple[Constraint, ...] = ()
    content_reference: str = ""
    slicing: Slicing | None = None
    children: dict[str, ElementNode] = field(default_factory=dict)
    slices: list[ElementNode] = field(default_factory=list)

    @property
    def type_codes(self) -> frozenset[str]:
        """Codes of the allowed types; empty when the profile says nothing."""
        return frozenset(rule.code for rule in self.types)


def _choice(element: dict[str, Any], stem: str) -> Any:
    return next((value for name, value in element.items() if name.startswith(stem) and name != stem), None)


def _type_code(code: str) -> str:
    return "string" if code.startswith("http://hl7.org/fhirpath/") else code


def _node(element: dict[str, Any], identity: str, base_keys: frozenset[str]) -> ElementNode:
    path = element["path"]
    name = path.rpartition(".")[2]
    binding = element.get("binding") or {}
    slicing = element.get("slicing")
    maximum = element.get("max", "*")
    return ElementNode(
        identity=identity,
        path=path,
        name=name.removesuffix("[x]"),
        slice_name=identity.rpartition(".")[2].partition(":")[2],
        min=element.get("min", 0),
        max=UNBOUNDED if maximum == "*" else int(maximum),
        types=tuple(
            TypeRule(_type_code(kind["code"]), tuple(kind.get("profile", ())), tuple(kind.get("targetProfile", ())))
            for kind in element.get("type", ())
        ),
        fixed=_choice(element, "fixed"),
        pattern=_choice(element, "pattern"),
        min_value=_choice(element, "minValue"),
        max_value=_choice(element, "maxValue"),
        max_length=element.get("maxLength"),
        binding=Binding(binding["strength"], binding["valueSet"]) if binding.get("valueSet") else None,
        constraints=tuple(
            Constraint(c["key"], c.get("severity", "error"), c.get("human", ""), c["expression"])
            for c in element.get("constraint", ())
            if c["key"] not in base_keys and c.get("expression")
        ),
        content_reference=element.get("contentReference", "").rpartition("#")[2],
        slicing=None
        if slicing is None
        else Slicing(
            tuple((d["type"], d["path"]) for d in slicing.get("discriminator", ())),
            slicing.get("rules", "open"),
            bool(slicing.get("ordered")),
        ),
    )


def build_tree(
    elements: Iterable[dict[str, Any]], base_keys: frozenset[str]
) -> tuple[ElementNode, dict[str, ElementNode]]:
    """Build the tree of a snapshot; returns the root and every element by its id.

    Parameters
    ----------
    elements : `StructureDefinition.snapshot.element`
    base_keys : invariants of R4's own types, which every write checks already

    Raises
    ------
    InvalidResourceError
        The snapshot is not well formed: an element comes before its parent.
    """
    by_identity: dict[str, ElementNode] = {}
    root: ElementNode | None = None
    try:
        for element in elements:
            identity = element.get("id") or _identity(element, by_identity)
            node = _node(element, identity, base_keys)
            by_identity[identity] = node
            if root is None:
                root = node
                continue
            _place(node, by_identity)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _malformed() from exc
    if root is None:
        raise _malformed()
    return root, by_identity


def _identity(element: dict[str, Any], known: dict[str, ElementNode]) -> str:
    """Id of an element that has none: its path, below the newest slice that has this path's beginning."""
    owner, _, name = element["path"].rpartition(".")
    parents = [identity for identity, node in known.items() if node.path == owner]
    base = f"{parents[-1]}.{name}" if parents else str(element["path"])
    return f"{base}:{element['sliceName']}" if element.get("sliceName") else base


def _place(node: ElementNode, known: dict[str, ElementNode]) -> None:
    owner = node.identity.rpartition(".")[0]
    parent = known[owner]
    if not node.slice_name:
        parent.children[node.name] = node
        return
    sliced = parent.children.get(node.name)
    if sliced is None:  # A slice without the element it slices: the element as the type has it.
        sliced = ElementNode(f"{owner}.{node.name}", node.path, node.name)
        parent.children[node.name] = sliced
    sliced.slices.append(node)


def _malformed() -> InvalidResourceError:
    where = ("StructureDefinition.snapshot",)
    return InvalidResourceError("The snapshot is not well formed", issue_code="structure", expression=where)
