"""How a function is registered, and how its call is compiled.

http://hl7.org/fhirpath/N1/#functions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fhir_server.fhirpath.compiler import Run, compile_tree
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.node import Node
from fhir_server.fhirpath.syntax import Call
from fhir_server.fhirpath.values import Items

Compile = Callable[[Call, int], Callable[[Context, Items, Items], Items]]


@dataclass(frozen=True, slots=True)
class _Function:
    least: int
    most: int
    compile: Compile


_FUNCTIONS: dict[str, _Function] = {}


def names() -> frozenset[str]:
    """Names of all functions."""
    return frozenset(_FUNCTIONS)


def eager(name: str, least: int = 0, most: int | None = None) -> Callable[[Callable[..., Items]], Callable[..., Items]]:
    """Register ``f(context, items, *arguments)``; the arguments are collections, evaluated outside."""

    def register(function: Callable[..., Items]) -> Callable[..., Items]:
        def compiled(call: Call, depth: int) -> Callable[[Context, Items, Items], Items]:
            arguments = [compile_tree(tree, depth) for tree in call.arguments]
            if not arguments:
                return lambda context, items, this: function(context, items)
            if len(arguments) == 1:
                only = arguments[0]
                return lambda context, items, this: function(context, items, only(context, this))
            return lambda context, items, this: function(context, items, *[run(context, this) for run in arguments])

        _FUNCTIONS[name] = _Function(least, least if most is None else most, compiled)
        return function

    return register


def lazy(name: str, least: int = 0, most: int | None = None) -> Callable[[Callable[..., Items]], Callable[..., Items]]:
    """Register ``f(context, items, *runs)``; the function evaluates the arguments itself, for each item."""

    def register(function: Callable[..., Items]) -> Callable[..., Items]:
        def compiled(call: Call, depth: int) -> Callable[[Context, Items, Items], Items]:
            runs = [compile_tree(tree, depth) for tree in call.arguments]
            return lambda context, items, this: function(context, items, *runs)

        _FUNCTIONS[name] = _Function(least, least if most is None else most, compiled)
        return function

    return register


def special(name: str, least: int = 0, most: int | None = None) -> Callable[[Any], Any]:
    """Register a compiler ``f(call, depth) → g(context, items, this)``, for arguments that are no expressions."""

    def register(compile_it: Any) -> Any:
        _FUNCTIONS[name] = _Function(least, least if most is None else most, compile_it)
        return compile_it

    return register


def each(context: Context, items: Items) -> Iterator[Node]:
    """Iterate with ``$index`` set; variables defined inside stay inside."""
    outer_index, outer_variables = context.index, context.variables
    context.spend(len(items) * 4)
    try:
        for number, node in enumerate(items):
            context.index = number
            context.variables = outer_variables
            yield node
    finally:
        context.index, context.variables = outer_index, outer_variables


def compile_call(call: Call, depth: int) -> Run:
    """Compile ``base.function(arguments)``; without a base the function works on ``$this``."""
    function = _FUNCTIONS.get(call.name)
    if function is None:
        raise FhirPathError(f"there is no function {call.name[:60]}()", call.position)
    if not function.least <= len(call.arguments) <= function.most:
        raise FhirPathError(f"{call.name}() takes another number of arguments", call.position)
    apply = function.compile(call, depth)
    if call.base is None:
        return lambda context, this: apply(context, this, this)
    base = compile_tree(call.base, depth)
    return lambda context, this: apply(context, base(context, this), this)
