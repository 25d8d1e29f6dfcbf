"""Syntax tree → closures: each takes the evaluation and its context items (``$this``) and gives a collection.

http://hl7.org/fhirpath/N1/#expressions. Collections are lists that nobody changes after they are returned.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from fhir_server.fhirpath import operators
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.node import Node, step
from fhir_server.fhirpath.quantity import Quantity
from fhir_server.fhirpath.syntax import (
    Binary,
    Call,
    Empty,
    Index,
    Literal,
    Member,
    Name,
    Special,
    Tree,
    TypeTest,
    Unary,
    Variable,
)
from fhir_server.fhirpath.temporal import parse_literal
from fhir_server.fhirpath.type_table import is_known, is_subtype
from fhir_server.fhirpath.type_tests import check_type, type_test
from fhir_server.fhirpath.values import EMPTY, Items, make, single

Run = Callable[[Context, Items], Items]
# Each level costs up to five Python frames when it runs; Python allows 1,000 in all.
MAX_DEPTH = 120


def compile_tree(tree: Tree, depth: int = 0) -> Run:
    """Compile any part of an expression.

    Raises
    ------
    FhirPathError
        An unknown function or type, a wrong number of arguments, an expression that is too deep.
    """
    if depth > MAX_DEPTH:
        raise FhirPathError("the expression is too deep", tree.position)
    run = _COMPILERS[type(tree)](tree, depth + 1)
    return _once(run) if isinstance(tree, Call | Member) and _is_fixed(tree) else run


def _is_fixed(tree: Tree) -> bool:
    """Whether a path starts at the resource and so has one value in an evaluation: ``%resource.descendants().url``."""
    part: Tree | None = tree
    while isinstance(part, Member) or (isinstance(part, Call) and not part.arguments):
        part = part.base
    return isinstance(part, Variable) and part.name in ("resource", "rootResource", "context")


def _once(run: Run) -> Run:
    """Evaluate at the first use only: criteria run for each item of a collection."""

    def remembered(context: Context, this: Items) -> Items:
        items = context.memo.get(name)
        if items is None:
            items = context.memo[name] = run(context, this)
        return items

    name = id(remembered)
    return remembered


def _empty(tree: Empty, depth: int) -> Run:
    return lambda context, this: EMPTY


def _literal(tree: Literal, depth: int) -> Run:
    items: Items
    if tree.kind == "boolean":
        items = make(tree.text == "true")
    elif tree.kind == "number":
        items = make(Decimal(tree.text) if "." in tree.text else int(tree.text))
        if not items:
            raise FhirPathError("the number is out of range", tree.position)
    elif tree.kind == "quantity":
        items = make(Quantity(Decimal(tree.text), tree.unit, tree.is_calendar))
    elif tree.kind == "temporal":
        items = make(parse_literal(tree.text))
        if not items:
            raise FhirPathError("there is no such date or time", tree.position)
    else:
        items = make(tree.text)
    return lambda context, this: items


def members(context: Context, items: Items, name: str, position: int) -> Items:
    """Children called `name` of all items.

    Raises
    ------
    FhirPathError
        In strict mode: none of the items' types has such an element.
    """
    found: Items = []
    known = False
    for node in items:
        known = step(node, name, found) or known
    if not known and items and context.strict and not any(_is_open(node) for node in items):
        raise FhirPathError(f"there is no element {name[:60]}", position)
    context.spend(len(found) + 1)
    return found


def _is_open(node: Node) -> bool:
    return node.type_name == ""


def _name(tree: Name, depth: int) -> Run:
    name, position = tree.name, tree.position
    if not name[:1].isupper():
        return lambda context, this: members(context, this, name, position)

    def run(context: Context, this: Items) -> Items:
        matching = [node for node in this if is_subtype(node.type_name, name)]
        if len(matching) == len(this):
            return this
        if context.strict and is_known(name):
            raise FhirPathError(f"the context is no {name}", position)
        return matching or members(context, this, name, position)

    return run


def _member(tree: Member, depth: int) -> Run:
    base, name, position = compile_tree(tree.base, depth), tree.name, tree.position
    return lambda context, this: members(context, base(context, this), name, position)


def _index(tree: Index, depth: int) -> Run:
    base, index = compile_tree(tree.base, depth), compile_tree(tree.index, depth)

    def run(context: Context, this: Items) -> Items:
        items = base(context, this)
        number = single(index(context, this), "an index")
        if number is None:
            return EMPTY
        if type(number.value) is not int:
            raise FhirPathError("an index is an integer", tree.position)
        return items[number.value : number.value + 1] if number.value >= 0 else EMPTY

    return run


def _call(tree: Call, depth: int) -> Run:
    from fhir_server.fhirpath.functions import compile_call

    return compile_call(tree, depth)


def _unary(tree: Unary, depth: int) -> Run:
    operand, negative = compile_tree(tree.operand, depth), tree.operator == "-"
    return lambda context, this: operators.signed(operand(context, this), negative=negative)


def _binary(tree: Binary, depth: int) -> Run:
    left, right = compile_tree(tree.left, depth), compile_tree(tree.right, depth)
    lazy = operators.LOGIC.get(tree.operator)
    if lazy is not None:
        known, connect = lazy

        def logic(context: Context, this: Items) -> Items:
            first = operators.truth(left(context, this), tree.operator)
            if first is known:
                return connect(first, None)
            return connect(first, operators.truth(right(context, this), tree.operator))

        return logic
    apply = operators.BINARY[tree.operator]
    return lambda context, this: apply(context, left(context, this), right(context, this))


def _type_test(tree: TypeTest, depth: int) -> Run:
    operand = compile_tree(tree.operand, depth)
    check_type(tree.namespace, tree.name, tree.position)
    apply = type_test(tree.operator, tree.namespace, tree.name)
    return lambda context, this: apply(context, operand(context, this))


def _special(tree: Special, depth: int) -> Run:
    if tree.name == "$this":
        return lambda context, this: this
    if tree.name == "$index":
        return lambda context, this: make(context.index)

    def total(context: Context, this: Items) -> Items:
        if context.total is None:
            raise FhirPathError("$total has a meaning in aggregate() only", tree.position)
        return context.total

    return total


def _variable(tree: Variable, depth: int) -> Run:
    return lambda context, this: context.variable(tree.name, tree.position)


_COMPILERS: dict[type[Tree], Callable[..., Run]] = {
    Empty: _empty,
    Literal: _literal,
    Name: _name,
    Member: _member,
    Index: _index,
    Call: _call,
    Unary: _unary,
    Binary: _binary,
    TypeTest: _type_test,
    Special: _special,
    Variable: _variable,
}
