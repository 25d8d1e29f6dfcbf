"""The conditions of rules: a small expression language over facts with three truth values (stage 5).

Strong Kleene logic: a rule whose facts are unknown is neither true nor false, and says which facts it lacks.
The grammar is a subset of Python expressions (https://docs.python.org/3/reference/expressions.html), never executed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class OneOf:
    """A fact known only in part: its value is one of these, for example a herniation whose type was not told."""

    values: frozenset[Scalar]


FactValue = Scalar | frozenset[str] | OneOf
Facts = Mapping[str, FactValue]


class ConditionError(ValueError):
    """A condition that cannot be read; raised when rules are loaded, never while they are evaluated."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Outcome of a condition: True, False or None (unknown), with the facts whose absence keeps it open."""

    value: bool | None
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Operand:
    """Possible values of one side of a comparison; None where nothing is known."""

    values: frozenset[FactValue] | None
    facts: frozenset[str] = frozenset()


_Condition = Callable[[Facts], Truth]
_Term = Callable[[Facts], _Operand]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that has been read and checked."""

    text: str
    facts: frozenset[str]
    _evaluate: _Condition

    def evaluate(self, facts: Facts) -> Truth:
        """Decide the condition on what is known."""
        return self._evaluate(facts)


def parse_condition(text: str, known_facts: Iterable[str]) -> Condition:
    """Read a condition.

    Parameters
    ----------
    text : for example ``F01 in {'normal', 'bulge'} and exam.motor >= 4``; ``unknown(side)`` asks whether a fact is open
    known_facts : names that may be used; anything else is a spelling mistake

    Raises
    ------
    ConditionError
        Syntax outside the grammar, or a fact that nobody defines.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as exc:
        raise ConditionError(f"{text!r} is not an expression") from exc
    used: set[str] = set()
    evaluate = _condition(tree, frozenset(known_facts), used)
    return Condition(text, frozenset(used), evaluate)


def _condition(node: ast.expr, known: frozenset[str], used: set[str]) -> _Condition:
    match node:
        case ast.BoolOp(op=ast.And()):
            return _conjunction([_condition(item, known, used) for item in node.values])
        case ast.BoolOp(op=ast.Or()):
            return _negation(_conjunction([_negation(_condition(item, known, used)) for item in node.values]))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _negation(_condition(operand, known, used))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return _comparison(_COMPARISONS[type(op)], _term(left, known, used), _term(right, known, used))
        case ast.Call(func=ast.Name(id="unknown"), args=[argument], keywords=[]):
            return _is_unknown(_fact_name(argument, known, used))
        case ast.Constant(value=bool() as constant):
            return lambda _: Truth(constant)
        case ast.Name() | ast.Attribute():
            return _comparison(operator.eq, _term(node, known, used), lambda _: _Operand(frozenset((True,))))
    raise ConditionError(f"{ast.unparse(node)!r} is not allowed in a condition")


def _term(node: ast.expr, known: frozenset[str], used: set[str]) -> _Term:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            return lambda _: _Operand(frozenset((constant,)))
        case ast.Set(elts=elements) if all(isinstance(item, ast.Constant) for item in elements):
            members: frozenset[Any] = frozenset(item.value for item in elements if isinstance(item, ast.Constant))
            return lambda _: _Operand(frozenset((members,)))
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            return _arithmetic(_ARITHMETIC[type(op)], _term(node.left, known, used), _term(node.right, known, used))
        case ast.Name() | ast.Attribute():
            return _lookup(_fact_name(node, known, used))
    raise ConditionError(f"{ast.unparse(node)!r} is not a value")


def _fact_name(node: ast.expr, known: frozenset[str], used: set[str]) -> str:
    name = ast.unparse(node)
    if not isinstance(node, ast.Name | ast.Attribute) or name not in known:
        raise ConditionError(f"{name!r} is not a known fact")
    used.add(name)
    return name


def _lookup(name: str) -> _Term:
    def term(facts: Facts) -> _Operand:
        value = facts.get(name)
        if value is None:
            return _Operand(None, frozenset((name,)))
        values = frozenset(value.values) if isinstance(value, OneOf) else frozenset((value,))
        return _Operand(values, frozenset((name,)))

    return term


def _arithmetic(function: Callable[[float, float], float], left: _Term, right: _Term) -> _Term:
    def term(facts: Facts) -> _Operand:
        a, b = left(facts), right(facts)
        if a.values is None or b.values is None:
            return _Operand(None, _unknown_facts(a) | _unknown_facts(b))
        return _Operand(frozenset(function(x, y) for x in a.values for y in b.values), a.facts | b.facts)  # type: ignore[arg-type]

    return term


def _unknown_facts(operand: _Operand) -> frozenset[str]:
    return operand.facts if operand.values is None or len(operand.values) > 1 else frozenset()


def _comparison(function: Callable[[Any, Any], bool], left: _Term, right: _Term) -> _Condition:
    def condition(facts: Facts) -> Truth:
        a, b = left(facts), right(facts)
        if a.values is None or b.values is None:
            return Truth(None, _unknown_facts(a) | _unknown_facts(b))
        outcomes = {function(x, y) for x in a.values for y in b.values}
        if len(outcomes) == 1:
            return Truth(outcomes.pop())
        return Truth(None, _unknown_facts(a) | _unknown_facts(b))

    return condition


def _negation(inner: _Condition) -> _Condition:
    def condition(facts: Facts) -> Truth:
        truth = inner(facts)
        return truth if truth.value is None else Truth(not truth.value)

    return condition


def _conjunction(parts: list[_Condition]) -> _Condition:
    def condition(facts: Facts) -> Truth:
        truths = [part(facts) for part in parts]
        if any(truth.value is False for truth in truths):
            return Truth(False)
        missing = frozenset().union(*(truth.missing for truth in truths if truth.value is None))
        return Truth(None, missing) if missing else Truth(True)

    return condition


def _is_unknown(name: str) -> _Condition:
    def condition(facts: Facts) -> Truth:
        return Truth(facts.get(name) is None)

    return condition
