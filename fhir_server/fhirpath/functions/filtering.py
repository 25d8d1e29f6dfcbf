"""Filtering, projection, subsetting, sorting, and control of evaluation.

http://hl7.org/fhirpath/N1/#filtering-and-projection, http://hl7.org/fhirpath/N1/#subsetting
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key

from fhir_server.fhirpath.compiler import Run, compile_tree
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.functions.registry import each, eager, lazy, special
from fhir_server.fhirpath.node import Node
from fhir_server.fhirpath.operators import truth
from fhir_server.fhirpath.syntax import Call, Unary
from fhir_server.fhirpath.values import EMPTY, Items, key, order, single, system


@lazy("where", 1)
def _where(context: Context, items: Items, criterion: Run) -> Items:
    return [node for node in each(context, items) if truth(criterion(context, [node]))]


@lazy("select", 1)
def _select(context: Context, items: Items, projection: Run) -> Items:
    found: Items = []
    for node in each(context, items):
        found += projection(context, [node])
    context.spend(len(found))
    return found


@lazy("repeat", 1)
def _repeat(context: Context, items: Items, projection: Run) -> Items:
    found: Items = []
    seen = set()
    waiting = items
    while waiting:
        context.spend(len(waiting) * 4)
        following: Items = []
        for node in each(context, waiting):
            for child in projection(context, [node]):
                name = key(child, context.spend)
                if name not in seen:
                    seen.add(name)
                    following.append(child)
        found += following
        waiting = following
    return found


@lazy("aggregate", 1, 2)
def _aggregate(context: Context, items: Items, step: Run, initial: Run | None = None) -> Items:
    outer = context.total
    context.total = EMPTY if initial is None else initial(context, items)
    try:
        for node in each(context, items):
            context.total = step(context, [node])
        return context.total
    finally:
        context.total = outer


@lazy("iif", 2, 3)
def _iif(context: Context, items: Items, criterion: Run, then: Run, otherwise: Run | None = None) -> Items:
    single(items, "iif()")
    found = criterion(context, items)
    if context.strict and found and type(found[0].value) is not bool:
        raise FhirPathError("the criterion of iif() is a boolean")
    if truth(found, "the criterion of iif()"):
        return then(context, items)
    return EMPTY if otherwise is None else otherwise(context, items)


@lazy("trace", 1, 2)
def _trace(context: Context, items: Items, name: Run, projection: Run | None = None) -> Items:
    # What is traced may be about a person: nothing is written anywhere.
    return items


@lazy("defineVariable", 1, 2)
def _define_variable(context: Context, items: Items, name: Run, value: Run | None = None) -> Items:
    node = single(name(context, items), "defineVariable()")
    if node is None or type(node.value) is not str:
        raise FhirPathError("defineVariable() takes a name")
    if node.value in ("context", "resource", "rootResource", "ucum", "sct", "loinc") or node.value in context.variables:
        raise FhirPathError("defineVariable() defines a name once")
    context.variables = {**context.variables, node.value: items if value is None else value(context, items)}
    return items


@eager("single")
def _single(context: Context, items: Items) -> Items:
    single(items, "single()")
    return items


@eager("first")
def _first(context: Context, items: Items) -> Items:
    return items[:1]


@eager("last")
def _last(context: Context, items: Items) -> Items:
    return items[-1:]


@eager("tail")
def _tail(context: Context, items: Items) -> Items:
    return items[1:]


def _number(items: Items, what: str) -> int:
    node = single(items, what)
    value = None if node is None else system(node)
    if type(value) is not int:
        raise FhirPathError(f"{what} takes an integer")
    return value


@eager("skip", 1)
def _skip(context: Context, items: Items, count: Items) -> Items:
    return items[max(_number(count, "skip()"), 0) :]


@eager("take", 1)
def _take(context: Context, items: Items, count: Items) -> Items:
    return items[: max(_number(count, "take()"), 0)]


@special("sort", 0, 16)
def _sort(call: Call, depth: int) -> Callable[[Context, Items, Items], Items]:
    keys: list[tuple[Run | None, int]] = [
        (compile_tree(tree.operand, depth), -1)
        if isinstance(tree, Unary) and tree.operator == "-"
        else (compile_tree(tree, depth), 1)
        for tree in call.arguments
    ] or [(None, 1)]

    def run(context: Context, items: Items, this: Items) -> Items:
        context.spend(len(items) * max(len(items).bit_length(), 1))
        rows = [
            (node, [single([node] if part is None else part(context, [node]), "sort()") for part, _ in keys])
            for node in each(context, items)
        ]

        def compare(left: tuple[Node, list[Node | None]], right: tuple[Node, list[Node | None]]) -> int:
            for first, second, (_, direction) in zip(left[1], right[1], keys, strict=True):
                if first is None or second is None:
                    # What has no value comes first, in both directions.
                    found = (first is not None) - (second is not None)
                else:
                    found = (order(first, second, "sort()") or 0) * direction
                if found:
                    return found
            return 0

        return [node for node, _ in sorted(rows, key=cmp_to_key(compare))]

    return run
