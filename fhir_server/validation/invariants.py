"""The constraints of R4's resources and data types, checked on the elements that occur.

https://hl7.org/fhir/R4/conformance-rules.html#constraints. A quick scan proves with compiled predicates that all
constraints are met; only when it cannot is the resource walked again to say where. Warnings are left out (dom-6, the
names of canonical resources, con-3).
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.expression import Expression
from fhir_server.fhirpath.node import Node, children, has_value, root_node
from fhir_server.fhirpath.predicates import Predicate, predicate_of
from fhir_server.fhirpath.type_table import ANY_RESOURCE, is_subtype, primitives, resource_types, table_of
from fhir_server.validation.contained_rules import DECIDED, remembered_ids
from fhir_server.validation.invariant_predicates import PREDICATES
from foramen.kernel.errors import Issue

_FILE = Path(__file__).with_name("r4_invariants.json")
_ELE_1 = ("ele-1", "All FHIR elements must have a @value or children")
_MAX_ISSUES = 50


class Rule:
    """One constraint: its expression, and a predicate that proves it where that is possible.

    `decided`: a function that decides it in place of the expression, where that would look at everything each time.
    """

    __slots__ = ("decided", "expression", "human", "key", "predicate", "type_name")

    def __init__(self, place: str, type_name: str, key: str, human: str, text: str) -> None:
        self.key = key
        self.human = human
        self.type_name = type_name
        self.expression = Expression(text)
        self.decided = DECIDED.get((place, key))
        self.predicate: Predicate | None = PREDICATES.get((place, key)) or predicate_of(self.expression.tree, type_name)

    def is_met(self, node: Node, resource: Node, root: Node) -> bool:
        """Whether the constraint evaluates to true; what cannot be evaluated is not met."""
        if self.decided is not None:
            return self.decided(node, root)
        try:
            return self.expression.is_true(node, resource=resource, root_resource=root)
        except FhirPathError:
            return False

    def holds(self, node: Node, resource: Node, root: Node) -> bool:
        """As `is_met`, by the predicate where that proves it; for elements of any structure."""
        try:
            if self.predicate is not None and self.predicate(node.value, resource.value):
                return True
        except (TypeError, AttributeError, KeyError, ValueError, IndexError):
            pass  # Not the structure of its type.
        return self.is_met(node, resource, root)


class _Plan:
    """What to check on elements of one type: its rules, and by JSON name how to go on.

    `children` maps to the plan of a complex type, `_ANY` for any resource, `_EXTRA` for the member beside a primitive.
    `element_rules` are rules of single elements of the type (``Organization.telecom``).
    """

    __slots__ = ("children", "element_rules", "is_resource", "rules", "type_name")

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name
        self.is_resource = is_subtype(type_name, ANY_RESOURCE)
        self.rules: tuple[Rule, ...] = ()
        self.element_rules: dict[str, tuple[Rule, ...]] = {}
        self.children: dict[str, Any] = {}


_ANY, _EXTRA = object(), object()
_PLANS: dict[str, _Plan] = {}
_UNFINISHED: dict[str, _Plan] = {}
_MAKING = threading.RLock()


@cache
def _file() -> dict[str, dict[str, list[list[str]]]]:
    table: dict[str, dict[str, list[list[str]]]] = orjson.loads(_FILE.read_bytes())
    return table


def plan_of(type_name: str) -> _Plan | None:
    """Return the plan of a type, made at its first use; None for a type that R4 does not have."""
    plan = _PLANS.get(type_name)
    if plan is not None:
        return plan
    with _MAKING:  # Other threads see a plan only once all that it leads to is made.
        plan = _PLANS.get(type_name) or _UNFINISHED.get(type_name)
        if plan is not None:
            return plan
        is_outermost = not _UNFINISHED
        try:
            plan = _make(type_name)
            if is_outermost:
                _PLANS.update(_UNFINISHED)
        finally:
            if is_outermost:
                _UNFINISHED.clear()
        return plan


def _make(type_name: str) -> _Plan | None:
    table = table_of(type_name)
    if table is None:
        return None
    plan = _Plan(type_name)
    types, elements = _file()["types"], _file()["elements"]
    if is_subtype(type_name, "DomainResource"):
        plan.rules = tuple(Rule("*", "DomainResource", *rule) for rule in types["*"])
    plan.rules += tuple(Rule(type_name, type_name, *rule) for rule in types.get(type_name, ()))
    for name, element in table.elements.items():
        for json_name, kind in element.names.items():
            rules = elements.get(f"{type_name}.{name}")
            if rules:
                plan.element_rules[json_name] = tuple(Rule(f"{type_name}.{name}", kind, *rule) for rule in rules)
            if kind in primitives():
                plan.children["_" + json_name] = _EXTRA
            else:
                plan.children[json_name] = _ANY if kind == ANY_RESOURCE else kind
    _UNFINISHED[type_name] = plan
    for json_name, kind in plan.children.items():
        if type(kind) is str:
            plan.children[json_name] = plan_of(kind)
    return plan


def is_proved(element: dict[str, Any], plan: _Plan, resource: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether all constraints of an element and of all below it are met.

    Raises
    ------
    TypeError, AttributeError, KeyError
        The element does not have the structure of its type.
    """
    if len(element) < 2 and (not element or "id" in element):
        return False
    for rule in plan.rules:
        if (rule.predicate is None or not rule.predicate(element, resource)) and not rule.is_met(
            Node(element, plan.type_name), root_node(resource), root_node(root)
        ):
            return False
    if plan.element_rules and not _are_element_rules_met(element, plan, resource, root):
        return False
    get = plan.children.get
    for name, value in element.items():
        child = get(name)
        if child is None:
            continue
        if child is _EXTRA:
            if not _is_extra_proved(element.get(name[1:]), value, resource, root):
                return False
        elif child is _ANY:
            for item in value if type(value) is list else (value,):
                inner = plan_of(item["resourceType"])
                if inner is None or not is_proved(item, inner, item, root if name == "contained" else item):
                    return False
        elif type(value) is list:
            for item in value:
                if not is_proved(item, child, resource, root):
                    return False
        elif not is_proved(value, child, resource, root):
            return False
    return True


def _are_element_rules_met(
    element: dict[str, Any], plan: _Plan, resource: dict[str, Any], root: dict[str, Any]
) -> bool:
    for name, rules in plan.element_rules.items():
        value = element.get(name)
        if value is not None:
            for item in value if type(value) is list else (value,):
                node = Node(item, rules[0].type_name)
                for rule in rules:
                    proved = rule.predicate is not None and rule.predicate(item, resource)
                    if not proved and not rule.is_met(node, root_node(resource), root_node(root)):
                        return False
    return True


def _is_extra_proved(value: Any, extra: Any, resource: dict[str, Any], root: dict[str, Any]) -> bool:
    """What stands beside a primitive: extensions, or an id beside a value (ele-1)."""
    plan = plan_of("Extension")
    if type(extra) is list:
        values = value if value is not None else [None] * len(extra)
        return all(
            item is None or _is_extra_proved(own, item, resource, root) for own, item in zip(values, extra, strict=True)
        )
    extensions = extra.get("extension")
    if extensions is None:
        return value is not None
    assert plan is not None  # noqa: S101 - Extension is a type of R4
    return all(is_proved(extension, plan, resource, root) for extension in extensions)


def invariant_issues(data: dict[str, Any], resource_type: str) -> list[Issue]:
    """Return one issue (code ``invariant``) for each constraint of severity error that is not met, with its place.

    Parameters
    ----------
    data : a resource whose structure has been checked
    resource_type : its type; contained resources and those in a Bundle or Parameters are checked too
    """
    plan = plan_of(resource_type)
    if plan is None:
        return []
    with remembered_ids():
        try:
            if is_proved(data, plan, data, data):
                return []
        except (TypeError, AttributeError, KeyError, ValueError):
            pass  # not the structure of its type: the walk below copes, the structure's own check reports
        issues: list[Issue] = []
        root = root_node(data, resource_type)
        _walk(root, resource_type, root, root, issues)
        return issues


def _walk(node: Node, path: str, resource: Node, root: Node, issues: list[Issue]) -> None:
    plan = plan_of(node.type_name)
    if type(node.value) is dict and plan is not None:
        for rule in plan.rules:
            if not rule.holds(node, resource, root):
                _report(issues, rule.key, rule.human, path)
    below = children(node)
    is_element = not (plan is not None and plan.is_resource)
    if is_element and not has_value(node) and all(child.key == "id" for child in below):
        _report(issues, *_ELE_1, path)
    for child in below:
        if len(issues) >= _MAX_ISSUES:
            return
        place = f"{path}.{child.key}" if child.index is None else f"{path}.{child.key}[{child.index}]"
        for rule in plan.element_rules.get(child.key, ()) if plan is not None else ():
            if not rule.holds(child, resource, root):
                _report(issues, rule.key, rule.human, place)
        if child.type_name in resource_types():
            _walk(child, place, child, root if child.key == "contained" else child, issues)
        elif type(child.value) is dict or child.extra is not None or child.value is None:
            _walk(child, place, resource, root, issues)


def _report(issues: list[Issue], key: str, human: str, path: str) -> None:
    if len(issues) < _MAX_ISSUES:
        issues.append(Issue("invariant", f"{key}: {human}", (path,)))
