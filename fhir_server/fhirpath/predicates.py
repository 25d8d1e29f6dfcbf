"""Constraints as plain Python: FHIRPath criteria → the source of a Boolean expression over the JSON of one element.

http://hl7.org/fhirpath/N1/#boolean-logic. For writes, where interpreting every constraint would cost more than
everything else. A predicate that is true proves that the constraint is met; one that is false proves nothing, and the
interpreter decides. So a part that is not understood here only costs time.

Each criterion becomes two sources, one that proves it true and one that proves it false, because FHIRPath has a third
value (empty) that neither may take for its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from fhir_server.fhirpath.syntax import Binary, Call, Literal, Member, Name, Tree, Variable
from fhir_server.fhirpath.type_table import (
    ANY_RESOURCE,
    SYSTEM_OF,
    ElementType,
    primitives,
    resource_types,
    table_of,
)

Predicate = Callable[[dict[str, Any], dict[str, Any]], bool]
_NEVER = "False"
_COMPARE = {"=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_KINDS: dict[type, tuple[str, ...]] = {str: ("String",), bool: ("Boolean",), int: ("Integer", "Decimal")}
_UCUM = "http://unitsofmeasure.org"


class _Truth(NamedTuple):
    """Source that proves a criterion true, and source that proves it false."""

    true: str
    false: str

    @property
    def is_definite(self) -> bool:
        """Whether the criterion is never empty: what is not true is false."""
        return self.false == _negated(self.true) or self.true == _negated(self.false)


_UNKNOWN = _Truth(_NEVER, _NEVER)


def _negated(source: str) -> str:
    return f"(not {source})"


def _definite(source: str) -> _Truth:
    return _Truth(source, _negated(source))


def _either(first: str, second: str) -> str:
    parts = [part for part in (first, second) if part != _NEVER]
    return f"({' or '.join(parts)})" if len(parts) == 2 else parts[0] if parts else _NEVER


def _both(first: str, second: str) -> str:
    return _NEVER if _NEVER in (first, second) else f"({first} and {second})"


@dataclass(frozen=True)
class _Scope:
    """An element in the source: the Python variable that holds it and its type."""

    variable: str
    type_name: str

    def element(self, name: str) -> ElementType | None:
        """Look an element up in the type."""
        kind = "DomainResource" if self.type_name == ANY_RESOURCE else self.type_name
        table = table_of(kind)
        return None if table is None else table.elements.get(name)


class _Translator:
    """Translates one constraint of the type `scope`; the source's variables are e, the element, and r, %resource."""

    def __init__(self, scope: _Scope) -> None:
        self.constants: dict[str, frozenset[str]] = {}
        self._root = scope.type_name.partition(".")[0]
        self._count = 0

    def _constant_set(self, members: frozenset[str]) -> str:
        name = next((name for name, known in self.constants.items() if known == members), f"K{len(self.constants)}")
        self.constants[name] = members
        return name

    def truth(self, tree: Tree, scope: _Scope) -> _Truth:
        """Translate a criterion."""
        if isinstance(tree, Binary):
            return self._binary(tree, scope)
        if isinstance(tree, Call) and tree.base is not None:
            if tree.name == "not" and not tree.arguments:
                inner = self.truth(tree.base, scope)
                return _Truth(inner.false, inner.true)
            if tree.name in ("exists", "empty", "all"):
                return self._existence(tree, scope)
            if tree.name == "hasValue":
                return self._has_value(tree.base, scope)
            if tree.name == "isDistinct" and isinstance(tree.base, Call) and tree.base.name == "select":
                return self._is_distinct(tree.base, scope)
            if tree.name in ("startsWith", "contains"):
                return self._text_test(tree, scope)
        return _UNKNOWN

    def _binary(self, tree: Binary, scope: _Scope) -> _Truth:
        if tree.operator in ("and", "or", "implies", "xor"):
            left, right = self.truth(tree.left, scope), self.truth(tree.right, scope)
            if tree.operator == "and":
                return _Truth(_both(left.true, right.true), _either(left.false, right.false))
            if tree.operator == "or":
                return _Truth(_either(left.true, right.true), _both(left.false, right.false))
            if tree.operator == "implies":
                return _Truth(_either(left.false, right.true), _both(left.true, right.false))
            return _Truth(
                _either(_both(left.true, right.false), _both(left.false, right.true)),
                _either(_both(left.true, right.true), _both(left.false, right.false)),
            )
        if tree.operator in _COMPARE:
            return self._comparison(tree, scope)
        return self._membership(tree, scope) if tree.operator == "in" else _UNKNOWN

    def _comparison(self, tree: Binary, scope: _Scope) -> _Truth:
        left, right = self._number(tree.left, scope), self._number(tree.right, scope)
        if left is not None and right is not None:
            return _definite(f"({left} {_COMPARE[tree.operator]} {right})")
        constant = _constant(tree.right)
        if constant is not None:
            return self._value_comparison(tree, scope, constant)
        first, second = self.truth(tree.left, scope), self.truth(tree.right, scope)
        if first.is_definite and second.is_definite and tree.operator in ("=", "!="):
            same = _definite(f"(bool({first.true}) is bool({second.true}))")
            return same if tree.operator == "=" else _Truth(same.false, same.true)
        return _UNKNOWN

    def _value_comparison(self, tree: Binary, scope: _Scope, constant: Any) -> _Truth:
        place = self._single_primitive(tree.left, scope)
        ordered = tree.operator not in ("=", "!=")
        if place is None or (ordered and type(constant) is not int):
            return _UNKNOWN
        holder, key, kind = place
        if SYSTEM_OF[kind] not in _KINDS[type(constant)]:
            return _UNKNOWN
        present = f"{key!r} in {holder}"
        return _Truth(
            f"({present} and {holder}[{key!r}] {_COMPARE[tree.operator]} {constant!r})",
            f"({present} and {holder}[{key!r}] {_COMPARE[_OPPOSITE[tree.operator]]} {constant!r})",
        )

    def _membership(self, tree: Binary, scope: _Scope) -> _Truth:
        place, members = self._single_primitive(tree.left, scope), _strings(tree.right)
        if place is None or members is None:
            return _UNKNOWN
        holder, key, _ = place
        inside = f"{holder}[{key!r}] in {self._constant_set(members)}"
        return _Truth(f"({key!r} in {holder} and {inside})", f"({key!r} in {holder} and not {inside})")

    def _existence(self, tree: Call, scope: _Scope) -> _Truth:
        base = tree.base
        criterion = tree.arguments[0] if tree.arguments else None
        if criterion is None and isinstance(base, Call) and base.name == "where":
            criterion, base = base.arguments[0], base.base
        steps = _steps(base)
        if steps is None:
            return _UNKNOWN
        if criterion is None:
            source = self._present(steps, scope)
            if source is None:
                return _UNKNOWN
            return _definite(source) if tree.name == "exists" else _Truth(_negated(source), source)
        return self._quantified(tree.name, steps, criterion, scope)

    def _quantified(self, name: str, steps: list[str], criterion: Tree, scope: _Scope) -> _Truth:
        """``path.exists(c)``, ``path.where(c).empty()``, ``path.all(c)``."""
        start = self._start(steps, scope)
        if start is None:
            return _UNKNOWN
        inner = self._variable()
        loop = self._loop(steps, start, inner)
        if loop is None:
            return _UNKNOWN
        clauses, target = loop
        truth = self.truth(criterion, _Scope(inner, target))
        some = _NEVER if truth.true == _NEVER else f"any({truth.true} {clauses})"
        every_true = f"all({truth.true} {clauses})"
        # Whatever the criterion, nothing is in an empty path.
        none = f"all({truth.false} {clauses})"
        if name == "all":
            return _Truth(every_true, _NEVER)
        return _Truth(some, none) if name == "exists" else _Truth(none, some)

    def _is_distinct(self, select: Call, scope: _Scope) -> _Truth:
        """``path.select(name).isDistinct()`` for strings."""
        steps = _steps(select.base)
        start = self._start(steps, scope) if steps else None
        inner = self._variable()
        loop = self._loop(steps, start, inner) if steps and start is not None else None
        place = self._single_primitive(select.arguments[0], _Scope(inner, loop[1])) if loop is not None else None
        if loop is None or place is None or SYSTEM_OF[place[2]] != "String":
            return _UNKNOWN
        values = f"[{inner}[{place[1]!r}] {loop[0]} if {place[1]!r} in {inner}]"
        whole = f"all({'_' + place[1]!r} not in {inner} {loop[0]})"
        return _Truth(f"({whole} and (lambda values: len(values) == len(set(values)))({values}))", _NEVER)

    def _has_value(self, base: Tree, scope: _Scope) -> _Truth:
        place = self._single_primitive(base, scope)
        return _UNKNOWN if place is None else _definite(f"({place[1]!r} in {place[0]})")

    def _text_test(self, tree: Call, scope: _Scope) -> _Truth:
        place = self._single_primitive(tree.base, scope)
        constant = _constant(tree.arguments[0])
        if place is None or type(constant) is not str or SYSTEM_OF[place[2]] != "String":
            return _UNKNOWN
        text = f"{place[0]}[{place[1]!r}]"
        test = f"{text}.startswith({constant!r})" if tree.name == "startsWith" else f"{constant!r} in {text}"
        return _Truth(f"({place[1]!r} in {place[0]} and {test})", f"({place[1]!r} in {place[0]} and not {test})")

    def _number(self, tree: Tree, scope: _Scope) -> str | None:
        """Source of a sum of counts, or of a whole number beside one."""
        if isinstance(tree, Literal) and tree.kind == "number" and "." not in tree.text:
            return tree.text
        if isinstance(tree, Binary) and tree.operator == "+":
            left, right = self._number(tree.left, scope), self._number(tree.right, scope)
            return None if left is None or right is None else f"({left} + {right})"
        if not (isinstance(tree, Call) and tree.name == "count" and tree.base is not None):
            return None
        steps = _steps(tree.base)
        element = scope.element(steps[0]) if steps is not None and len(steps) == 1 else None
        if steps is None or element is None:
            return None
        if not element.repeats:
            present = self._present(steps, scope)
            return None if present is None else f"int({present})"
        key, kind = next(iter(element.names.items()))
        if kind in primitives():
            return f"max(len({scope.variable}.get({key!r}, ())), len({scope.variable}.get({'_' + key!r}, ())))"
        return f"len({scope.variable}.get({key!r}, ()))"

    def _variable(self) -> str:
        self._count += 1
        return f"x{self._count}"

    def _start(self, steps: list[str], scope: _Scope) -> _Scope | None:
        """Scope a path starts in; a leading %resource or type name is taken off the steps."""
        if steps[0] == "%resource":
            del steps[0]
            return _Scope("r", self._root) if self._root in resource_types() else None
        if len(steps) > 1 and steps[0] == scope.type_name:
            del steps[0]
        return scope if steps and not steps[0].startswith("%") else None

    def _loop(self, steps: list[str], scope: _Scope, last: str) -> tuple[str, str] | None:
        """``for`` clauses over all elements on a path of complex types, and the type of the last variable."""
        clauses = []
        for position, step in enumerate(steps):
            element = scope.element(step)
            if element is None or len(element.names) != 1:
                return None
            key, kind = next(iter(element.names.items()))
            if kind in primitives():
                return None
            variable = last if position == len(steps) - 1 else self._variable()
            source = f"{scope.variable}.get({key!r}, ())"
            if not element.repeats:
                source = f"([{scope.variable}[{key!r}]] if {key!r} in {scope.variable} else ())"
            clauses.append(f"for {variable} in {source}")
            scope = _Scope(variable, kind)
        return " ".join(clauses), scope.type_name

    def _present(self, steps: list[str], scope: _Scope) -> str | None:
        """Source of "there is something at this path"."""
        start = self._start(steps, scope)
        if start is None or not steps:
            return None
        if len(steps) == 1:
            element = start.element(steps[0])
            return None if element is None else self._presence(element, start.variable)
        inner = self._variable()
        loop = self._loop(steps[:-1], start, inner)
        element = _Scope(inner, loop[1]).element(steps[-1]) if loop is not None else None
        return None if loop is None or element is None else f"any({self._presence(element, inner)} {loop[0]})"

    def _presence(self, element: ElementType, variable: str) -> str:
        keys = [*element.names, *("_" + key for key, kind in element.names.items() if kind in primitives())]
        if len(keys) <= 2:
            return "(" + " or ".join(f"{key!r} in {variable}" for key in keys) + ")"
        return f"(not {variable}.keys().isdisjoint({self._constant_set(frozenset(keys))}))"

    def _single_primitive(self, tree: Tree | None, scope: _Scope) -> tuple[str, str, str] | None:
        """(variable, JSON name, type) of a path with at most one primitive value."""
        steps = _steps(tree)
        start = self._start(steps, scope) if steps else None
        if steps is None or start is None or len(steps) != 1:
            return None
        element = start.element(steps[0])
        if element is None or element.repeats or len(element.names) != 1:
            return None
        key, kind = next(iter(element.names.items()))
        return (start.variable, key, kind) if kind in primitives() else None


def _steps(tree: Tree | None) -> list[str] | None:
    """Names of a plain path; ``%resource`` may lead it, and trace() changes nothing."""
    if isinstance(tree, Name):
        return [tree.name]
    if isinstance(tree, Variable):
        return ["%resource"] if tree.name == "resource" else None
    if isinstance(tree, Member):
        steps = _steps(tree.base)
        return None if steps is None else [*steps, tree.name]
    return _steps(tree.base) if isinstance(tree, Call) and tree.name == "trace" else None


def _constant(tree: Tree) -> Any:
    if isinstance(tree, Variable) and tree.name == "ucum":
        return _UCUM
    if not isinstance(tree, Literal):
        return None
    if tree.kind == "string":
        return tree.text
    if tree.kind == "boolean":
        return tree.text == "true"
    return int(tree.text) if tree.kind == "number" and "." not in tree.text else None


def _strings(tree: Tree) -> frozenset[str] | None:
    if isinstance(tree, Literal) and tree.kind == "string":
        return frozenset((tree.text,))
    if isinstance(tree, Binary) and tree.operator == "|":
        left, right = _strings(tree.left), _strings(tree.right)
        return None if left is None or right is None else left | right
    return None


def predicate_of(tree: Tree, type_name: str) -> Predicate | None:
    """Compile a constraint of `type_name` to ``predicate(element, resource)``; None when nothing is understood.

    The element must have the structure that R4 demands (no nulls where objects belong); otherwise the predicate may
    raise TypeError, AttributeError or KeyError.
    """
    scope = _Scope("e", type_name)
    translator = _Translator(scope)
    source = translator.truth(tree, scope).true
    if source == _NEVER:
        return None
    # The source consists of names from R4's definitions, literals and our own operators: nothing of a request.
    predicate: Predicate = eval(f"lambda e, r: {source}", dict(translator.constants))  # noqa: S307
    return predicate
