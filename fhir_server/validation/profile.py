"""A compiled profile: the tree of its snapshot and what else must be loaded to check it.

https://hl7.org/fhir/R4/structuredefinition.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fhir_server.validation.element_tree import ElementNode, build_tree

R4 = "http://hl7.org/fhir/StructureDefinition/"


@dataclass(slots=True)
class Profile:
    """One StructureDefinition, ready to check.

    `nested` are the profiles its elements' values must meet; `targets` maps the profiles that references may point to
    to resource types.
    """

    url: str
    type_name: str
    is_constraint: bool
    root: ElementNode
    by_identity: dict[str, ElementNode]
    nested: frozenset[str] = frozenset()
    targets: dict[str, str] = field(default_factory=dict)


def compile_profile(
    structure: dict[str, Any], base_keys: frozenset[str], r4_binding: Callable[[str], str | None] = lambda _: None
) -> Profile:
    """Compile a StructureDefinition that has a snapshot.

    Parameters
    ----------
    base_keys : invariants of R4's own types, which every write is checked against already
    r4_binding : value set that R4 requires at a path; the same binding in the profile need not be asked again

    Raises
    ------
    InvalidResourceError
        The snapshot is not well formed.
    """
    root, by_identity = build_tree(structure["snapshot"]["element"], base_keys)
    for node in by_identity.values():
        if node.binding is not None and node.binding.strength == "required":
            value_set = node.binding.value_set.partition("|")[0]
            owner = by_identity.get(node.identity.rpartition(".")[0])
            codes = [] if owner is None else [f"{rule.code}.{node.name}" for rule in owner.types]
            if value_set in [r4_binding(path) for path in (node.path, *codes)]:
                node.binding = None
    rules = [rule for node in by_identity.values() for rule in node.types]
    return Profile(
        url=structure["url"],
        type_name=structure["type"],
        is_constraint=structure.get("derivation") == "constraint",
        root=root,
        by_identity=by_identity,
        nested=frozenset(url for rule in rules for url in rule.profiles),
        targets=dict.fromkeys((url for rule in rules for url in rule.targets), ""),
    )
