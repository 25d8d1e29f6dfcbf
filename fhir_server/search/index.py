"""Extract the index values of a resource: one walk over its elements along a tree built from the typed paths.

The walk costs what the resource holds, not what the type could be searched by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fhir_server.access.compartments import patient_compartment
from fhir_server.access.security_context import BINARY, marker, security_context
from fhir_server.model.references import normalise_reference
from fhir_server.search import composites
from fhir_server.search.custom import CustomExtractor
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import (
    Parameter,
    TypeParameters,
    path_base,
    patient_base,
    patient_code_base,
    r4_parameters,
    registry,
    resource_types,
    type_base,
    type_parameters,
)
from fhir_server.search.remembering import add_remembered, is_repetitive, new_number
from fhir_server.search.values import IndexValues, Leaf, leaf_for

_STEP = re.compile(r"([A-Za-z0-9]+)((?:\[[^\]]*\])*)(?:\.|$)")
_FILTER = re.compile(r"\[([^\]=]*)(?:=([^\]]*))?\]")


@dataclass(slots=True)
class Node:
    """One element of the tree: what to do with its values and where to go on."""

    children: dict[str, Node] = field(default_factory=dict)
    leaves: list[tuple[Leaf, int]] = field(default_factory=list)
    filters: list[tuple[str, str, Node]] = field(default_factory=list)

    def visit(self, item: Any, out: IndexValues) -> None:
        """Take the values of one element."""
        for leaf, bits in self.leaves:
            leaf(item, out)
            out.present |= bits
        if self.children and type(item) is dict:
            self.walk(item, out)
        for name, expected, node in self.filters:
            value = item.get(name) if type(item) is dict else None
            if value == expected or (
                type(value) is list and any(part.get("url") == expected for part in value if type(part) is dict)
            ):
                node.visit(item, out)

    def walk(self, element: dict[str, Any], out: IndexValues) -> None:
        """Go through the elements that lead somewhere."""
        children = self.children
        for name, value in element.items():
            node = children.get(name)
            if node is None:
                continue
            if type(value) is list:
                for item in value:
                    if item is not None:
                        node.visit(item, out)
            elif value is not None:
                node.visit(value, out)

    def below(self, path: str) -> Node:
        """Return the node at `path`, growing the tree."""
        node = self
        for name, filters in _STEP.findall(path):
            node = node.children.setdefault(name, Node())
            for key, expected in _FILTER.findall(filters):
                if expected == "":  # [0]: only the first entry of a Bundle is meant, and it is visited first.
                    continue
                found = next((n for k, v, n in node.filters if (k, v) == (key, expected)), None)
                if found is None:
                    found = Node()
                    node.filters.append((key, expected, found))
                node = found
        return node


class Extractor:
    """Finds the index values of resources of one type."""

    def __init__(self, parameters: TypeParameters, own_url: str) -> None:
        self._type = parameters.resource_type
        self._root = Node()
        self._remembered: dict[str, int] = {}
        self._bases = type_base(self._type), patient_base(self._type), patient_code_base(self._type)
        self._composites = composites.group_extractors(parameters, own_url)
        self._custom = [CustomExtractor(item, own_url) for item in parameters.parameters.values() if item.is_custom]
        self._own_url = own_url
        self._grow(parameters)

    def _grow(self, parameters: TypeParameters) -> None:
        members = {
            path
            for code in patient_compartment().get(self._type, [])
            if (found := parameters.parameters.get(code)) is not None
            for path in found.paths
        }
        bits: dict[tuple[str, str], int] = {}
        for item in parameters.parameters.values():
            for path in item.paths if not item.is_custom else ():
                bits[(item.kind, path)] = bits.get((item.kind, path), 0) | (1 << item.bit)
        main = parameters.main_date.paths if parameters.main_date else ()
        code = parameters.parameters.get("code")
        code_paths = code.paths if code is not None and code.kind == "token" and members else ()
        differing: set[str] = set()
        for kind, table in parameters.paths.items():
            for identity, leaves in table.items():
                for path, data_type in leaves:
                    leaf = leaf_for(
                        kind,
                        data_type,
                        path_base(self._type, kind, identity),
                        own_url=self._own_url,
                        is_main_date=kind == "date" and identity in main,
                        is_code=kind == "token" and identity in code_paths,
                        in_compartment=kind == "reference" and identity in members,
                        is_existence=identity.endswith("#true"),
                    )
                    self._root.below(path).leaves.append((leaf, bits[(kind, identity)]))
                    if not is_repetitive(kind, data_type):
                        differing.add(_STEP.findall(path)[0][0])
        self._remembered = {name: new_number() for name in self._root.children if name not in differing}

    def _walk(self, data: dict[str, Any], out: IndexValues) -> None:
        """As `Node.walk` over the whole resource; what comes again and again is not looked at again."""
        children, remembered = self._root.children, self._remembered
        for name, value in data.items():
            node = children.get(name)
            if node is None or value is None:
                continue
            number = remembered.get(name)
            if number is not None:
                add_remembered(number, value, out, node.visit)
            elif type(value) is list:
                for item in value:
                    if item is not None:
                        node.visit(item, out)
            else:
                node.visit(value, out)

    def extract(self, data: dict[str, Any], logical_id: str) -> IndexValues:
        """Return all index values of one resource."""
        out = IndexValues()
        all_of_type, compartment, patient_code = self._bases
        out.postings.add(all_of_type)
        self._walk(data, out)
        if self._type == "Patient":
            out.patients.add(f"Patient/{logical_id}")
        elif self._type == "AuditEvent" and len(out.patients) > 1:
            out.patients.clear()  # In one patient's record it would tell of the others.
        elif self._type == BINARY and (named := security_context(data, self._own_url, resource_types())) is not None:
            out.patients.add(named[1])
            out.postings.add(compartment ^ marker(named[0]))
        for patient in out.patients:
            key = hash64(patient)
            out.postings.add(compartment ^ key)
            for code in out.codes:
                out.postings.add(patient_code ^ key ^ code)
        for group in self._composites:
            group.extract(data, out)
        for custom in self._custom:
            custom.extract(data, out)
        return out


def extractor(resource_type: str, own_url: str) -> Extractor:
    """Return the extractor of a type under the registry in force (built at first use)."""
    active = registry()
    if not active.has_custom(resource_type):
        return _r4_extractor(resource_type, own_url)
    found: Extractor | None = active.cache.get((resource_type, own_url))
    if found is None:
        found = active.cache[resource_type, own_url] = Extractor(active.parameters(resource_type), own_url)
    return found


@lru_cache(maxsize=256)
def _r4_extractor(resource_type: str, own_url: str) -> Extractor:
    return Extractor(r4_parameters(resource_type), own_url)


def references_of(data: dict[str, Any], parameter: Parameter, own_url: str) -> list[str]:
    """Return the references under one reference parameter, for `_include`."""
    found: list[str] = []

    def collect(item: Any, _: IndexValues) -> None:
        if isinstance(item, dict):
            reference = item.get("reference")
            if isinstance(reference, str):
                found.append(normalise_reference(reference, own_url))
        elif isinstance(item, str):
            found.append(normalise_reference(item, own_url))

    if parameter.is_custom:
        for _, item in CustomExtractor(parameter, own_url).values(data):
            collect(item, IndexValues())
        return found
    root = Node()
    table = type_parameters(parameter.resource_type).paths["reference"]
    for identity in parameter.paths:
        for path, _ in table[identity]:
            root.below(path).leaves.append((collect, 0))
    root.walk(data, IndexValues())
    return found
