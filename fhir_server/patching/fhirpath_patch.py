"""FHIRPath Patch: add, insert, delete, replace, move by FHIRPath. https://hl7.org/fhir/R4/fhirpatch.html

The paths are evaluated on a plain copy; the changes are made on the exact JSON, so that every number keeps its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from fhir_server.fhirpath.expression import FhirPathError, compile_expression
from fhir_server.fhirpath.node import Node
from fhir_server.model.structure import ElementRule, structure_of
from fhir_server.patching import members
from fhir_server.patching.exact_json import dump, load
from fhir_server.patching.faults import expression, not_applicable
from fhir_server.patching.fhirpath_parameters import Step, parse_steps, rule_of, value_of
from fhir_server.patching.members import Primitive
from foramen.kernel.errors import InteropError, PayloadTooLargeError

_ELEMENTS = re.compile(r"\s*`?[A-Za-z]\w*`?(\s*\.\s*`?[A-Za-z]\w*`?|\s*\[\s*\d+\s*\])*\s*")
_LAST_NAME = re.compile(r"(.+)\.\s*`?([A-Za-z]+)`?\s*")


@dataclass(frozen=True, slots=True)
class FhirPathPatch:
    """A parsed FHIRPath Patch."""

    steps: tuple[Step, ...]

    @property
    def asks(self) -> bool:
        """Whether a path does more than name elements: ``where(…)`` and the like find, or not, by values."""
        return any(_ELEMENTS.fullmatch(step.path.text) is None for step in self.steps)

    def apply(self, document: dict[str, Any], resource_type: str, max_bytes: int) -> Any:
        """Apply every operation in turn.

        Parameters
        ----------
        document : changed in place
        max_bytes : most bytes of JSON that the paths of all operations together may look at

        Raises
        ------
        InteropError
            422 an operation does not fit the resource, 413 too much work.
        """
        application = _Application(document, resource_type, max_bytes)
        for step in self.steps:
            application.carry_out(step)
        return document


def parse_fhirpath_patch(body: bytes, max_operations: int) -> FhirPathPatch:
    """Parse a Parameters resource whose depth was checked.

    Raises
    ------
    InvalidRequestError
        400: not a FHIRPath Patch.
    """
    data = load(body)
    return FhirPathPatch(parse_steps(data if isinstance(data, dict) else {}, max_operations))


class _Application:
    """One patch on one document."""

    def __init__(self, document: dict[str, Any], resource_type: str, max_bytes: int) -> None:
        self._document = document
        self._resource_type = resource_type
        self._left = max_bytes

    def carry_out(self, step: Step) -> None:
        match step.kind:
            case "add":
                self._add(step, step.path.text, step.name)
            case "insert":
                self._insert(step)
            case "delete":
                self._delete(step)
            case "replace":
                self._replace(step)
            case _:
                self._move(step)

    def _fault(self, step: Step, what: str, path: tuple[str | int, ...] = ()) -> InteropError:
        return not_applicable(step.place, what, expression(self._resource_type, path))

    def _nodes(self, step: Step, text: str) -> list[Node]:
        content = dump(self._document)
        self._left -= len(content)
        if self._left < 0:
            raise PayloadTooLargeError("The patch asks for too much work on so large a resource")
        try:
            return compile_expression(text).nodes(orjson.loads(content))
        except FhirPathError as exc:
            raise self._fault(step, f"has a path that cannot be evaluated: {exc.message}") from exc

    def _one(self, step: Step, text: str) -> Node:
        found = self._nodes(step, text)
        if len(found) != 1:
            raise self._fault(step, f"needs a path to exactly one element and has one to {len(found)}")
        if not found[0].path and found[0].type_name != self._resource_type:
            raise self._fault(step, "has a path to a computed value, not to an element")
        return found[0]

    def _place(self, step: Step, path: tuple[str | int, ...]) -> tuple[dict[str, Any], str, int | None]:
        """Return the object, member and index that a location means in the document."""
        container, tokens = self._document, list(path)
        while tokens:
            name = str(tokens.pop(0))
            index = tokens.pop(0) if tokens and isinstance(tokens[0], int) else None
            if not tokens:
                return container, name, index if isinstance(index, int) else None
            inner = members.below(container, name, index if isinstance(index, int) else None)
            if inner is None:
                break
            container = inner
        raise self._fault(step, "has a path to the resource itself", path)

    def _rule(self, step: Step, parent: Node, name: str, value: dict[str, Any]) -> ElementRule:
        structure = structure_of(parent.type_name) or structure_of("Element")
        rule = rule_of(structure, name, value) if structure is not None else None
        if rule is None:
            raise self._fault(step, "names an element that is not there in R4, or not of this type", parent.path)
        return rule

    def _value(self, step: Step, rule: ElementRule) -> Primitive:
        """Return the new value, a copy: the patch may be applied again when another writer was faster."""
        value, more = load(dump(value_of(step.place, step.value, rule)))
        return value, more

    def _add(self, step: Step, parent_path: str, name: str) -> None:
        parent = self._one(step, parent_path)
        rule = self._rule(step, parent, name, step.value)
        item = self._value(step, rule)
        if parent.path:
            container, own_name, index = self._place(step, parent.path)
            inner = members.below(container, own_name, index)
        else:
            inner = self._document
        if inner is None:
            raise self._fault(step, "adds where nothing can be added", parent.path)
        if rule.repeats:
            members.insert(inner, rule.name, members.size(inner, rule.name), item)
            return
        structure = structure_of(parent.type_name)
        names = structure.choices[rule.choice].values() if structure is not None and rule.choice else (rule.name,)
        if any(taken in inner or f"_{taken}" in inner for taken in names):
            raise self._fault(step, "adds an element that is there already", (*parent.path, rule.name))
        members.put(inner, rule.name, None, item)

    def _delete(self, step: Step) -> None:
        if not self._nodes(step, step.path.text):
            return  # What is not there need not be deleted.
        node = self._one(step, step.path.text)
        members.take(*self._place(step, node.path))

    def _replace(self, step: Step) -> None:
        node = self._one(step, step.path.text)
        container, name, index = self._place(step, node.path)
        if node.parent is None:
            raise self._fault(step, "replaces the resource itself")
        structure = structure_of(node.parent.type_name) or structure_of("Element")
        old = structure.elements.get(name) if structure is not None else None
        if old is None:
            raise self._fault(step, "replaces an element that R4 does not have", node.path)
        rule = self._rule(step, node.parent, old.choice or name, step.value)
        members.put(container, name, index, self._value(step, rule))
        if rule.name != name:
            members.rename(container, name, rule.name)

    def _list(self, step: Step) -> tuple[dict[str, Any], str]:
        """Return the list that the path means: all its items, and nothing else."""
        nodes = self._nodes(step, step.path.text)
        paths = [node.path for node in nodes]
        if not paths or any(len(path) < 2 or path[:-1] != paths[0][:-1] for path in paths):
            raise self._fault(step, "needs a path to one list")
        container, name, index = self._place(step, paths[0])
        if index is None or members.size(container, name) != len(paths):
            raise self._fault(step, "needs a path to one whole list", paths[0][:-1])
        return container, name

    def _insert(self, step: Step) -> None:
        index = step.numbers["index"]
        last = _LAST_NAME.fullmatch(step.path.text)
        if index == 0 and last is not None and not self._nodes(step, step.path.text):
            self._add(step, last.group(1), last.group(2))  # into a list that is still to be made
            return
        container, name = self._list(step)
        node = self._nodes(step, step.path.text)[0]
        if index > members.size(container, name) or node.parent is None:
            raise self._fault(step, "has an index outside the list", node.path[:-1])
        rule = self._rule(step, node.parent, name, step.value)
        members.insert(container, name, index, self._value(step, rule))

    def _move(self, step: Step) -> None:
        container, name = self._list(step)
        source, destination = step.numbers["source"], step.numbers["destination"]
        if max(source, destination) >= members.size(container, name):
            raise self._fault(step, "has an index outside the list")
        # All lists of one item go when it is taken, so the list is written anew.
        items = [members.take(container, name, 0) for _ in range(members.size(container, name))]
        items.insert(destination, items.pop(source))
        for place, item in enumerate(items):
            members.insert(container, name, place, item)
