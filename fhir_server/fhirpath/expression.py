"""Compile FHIRPath once, evaluate it often.

http://hl7.org/fhirpath/N1, https://hl7.org/fhir/R4/fhirpath.html. Pure: no I/O, and the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from fhir_server.fhirpath.compiler import compile_tree
from fhir_server.fhirpath.context import ConformsTo, Context, MemberOf, Resolve
from fhir_server.fhirpath.errors import FhirPathCostError, FhirPathError
from fhir_server.fhirpath.node import Node, root_node
from fhir_server.fhirpath.parser import parse
from fhir_server.fhirpath.quantity import Quantity
from fhir_server.fhirpath.strictness import check_strictness
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.values import Items, make, truth

__all__ = ["Expression", "FhirPathError", "Node", "compile_expression"]


class Expression:
    """A compiled expression; safe to share between threads."""

    __slots__ = ("_run", "strict", "text", "tree")

    def __init__(self, text: str, *, strict: bool = False) -> None:
        self.text = text
        self.strict = strict
        self.tree = parse(text)
        if strict:
            check_strictness(self.tree)
        self._run = compile_tree(self.tree)

    def nodes(
        self,
        root: dict[str, Any] | Node | Any,
        *,
        type_name: str | None = None,
        resource: dict[str, Any] | Node | None = None,
        root_resource: dict[str, Any] | Node | None = None,
        variables: Mapping[str, Any] | None = None,
        resolve: Resolve | None = None,
        member_of: MemberOf | None = None,
        conforms_to: ConformsTo | None = None,
        now: datetime | None = None,
    ) -> list[Node]:
        """Evaluate to nodes, which know their type and JSON location.

        Parameters
        ----------
        root : what the expression starts from, also ``%context``: a resource, any element (then `type_name` says its
            type), or a node of an earlier evaluation
        resource, root_resource : ``%resource``, the resource that `root` is part of (default: `root`), and
            ``%rootResource``, the one around a contained resource (default: `resource`)
        variables : name → JSON value, list of these, or nodes; strings, numbers and booleans become System values
        resolve : gives the resource of a reference that is not contained, or None. Without it ``resolve()`` finds
            contained resources only
        member_of, conforms_to : answer ``memberOf()`` and ``conformsTo()``; None is unknown
        now : the clock of ``now()``, ``today()`` and ``timeOfDay()`` (default: the time of the evaluation)

        Raises
        ------
        FhirPathError
            The expression does not fit the data (several items where one is allowed, types without order, …).
        FhirPathCostError
            A limit of work, length or depth is reached.
        """
        node = root_node(root, type_name)
        own = node if resource is None else root_node(resource)
        context = Context(
            node,
            own,
            own if root_resource is None else root_node(root_resource),
            {name: _items(value) for name, value in variables.items()} if variables else {},
            resolve,
            member_of,
            conforms_to,
            now,
            self.strict,
        )
        try:
            return list(self._run(context, [node]))
        except RecursionError:
            raise FhirPathCostError("the data or the expression is too deep") from None

    def evaluate(self, root: dict[str, Any] | Node | Any, **options: Any) -> list[Any]:
        """Evaluate to JSON values: dict, str, bool, int, float or Decimal. Options as for `nodes`.

        Primitives that have only extensions are left out; a computed date becomes its text, a computed Quantity a
        FHIR Quantity.
        """
        return [plain(node) for node in self.nodes(root, **options) if node.value is not None]

    def is_true(self, root: dict[str, Any] | Node | Any, **options: Any) -> bool:
        """Whether the result is true, as a constraint must be (an empty result is not). Options as for `nodes`."""
        return truth(self.nodes(root, **options), "a constraint") is True


def plain(node: Node) -> Any:
    """JSON value of a node."""
    value = node.value
    if type(value) is Temporal:
        return value.text()
    if type(value) is Quantity:
        if value.is_calendar:
            return {"value": value.value, "unit": value.unit}
        return {"value": value.value, "unit": value.unit, "system": "http://unitsofmeasure.org", "code": value.unit}
    return value


def _items(value: Any) -> Items:
    if isinstance(value, list | tuple):
        return [node for item in value for node in _items(item)]
    if isinstance(value, Node):
        return [value]
    if isinstance(value, float):
        return [Node(value, "decimal")]
    return [root_node(value)] if isinstance(value, dict) else make(value)


@lru_cache(maxsize=4096)
def compile_expression(text: str, *, strict: bool = False) -> Expression:
    """Compile an expression; the last 4,096 are kept.

    Parameters
    ----------
    strict : refuse what N1 calls semantic errors: elements that the type does not have, order where there is none,
        ``as`` on several items. The R4 search parameters need it off.

    Raises
    ------
    FhirPathError
        400 ``invalid``: not FHIRPath; says the position.
    """
    return Expression(text, strict=strict)
