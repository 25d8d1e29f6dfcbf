"""`_filter` as conditions: each test is a search parameter with an operator of its kind.

https://hl7.org/fhir/R4/search_filter.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhir_server.search.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Match,
    Not,
    StringPattern,
    StringValues,
)
from fhir_server.search.filters import Filter, Junction, Negation, Test
from fhir_server.search.modifiers import shown
from fhir_server.search.parameters import Parameter, type_parameters
from fhir_server.search.ranges import date_condition
from fhir_server.search.strings import equal_range, prefix_range
from fhir_server.search.text import parse_date
from fhir_server.search.values import normalise
from foramen.kernel.errors import InvalidRequestError

if TYPE_CHECKING:
    from fhir_server.search.parse import SearchParser

_PREFIXES = frozenset({"eq", "ne", "gt", "lt", "ge", "le", "ap", "sa", "eb"})
_ALLOWED = {
    "date": _PREFIXES | {"po"},
    "number": _PREFIXES - {"sa", "eb"},
    "quantity": _PREFIXES - {"sa", "eb"},
    "string": frozenset({"eq", "ne", "co", "sw", "ew"}),
    "uri": frozenset({"eq", "ne", "co", "sw", "ew"}),
    "token": frozenset({"eq", "ne", "ss", "sb", "in", "ni"}),
    "reference": frozenset({"eq", "ne", "re"}),
    "composite": frozenset({"eq"}),
}
_MODIFIER = {"ss": ":below", "sb": ":above", "in": ":in", "ni": ":not-in"}
"""Operators that are a modifier of the same parameter: the value subsumes (ss), is subsumed by (sb) …"""


def condition_of(tree: Filter, resource_type: str, parser: SearchParser) -> Condition:
    """Return the condition of a filter on one type.

    Raises
    ------
    InvalidRequestError
        An unknown parameter, or an operator that its kind does not have.
    """
    match tree:
        case Junction(word, filters):
            found = tuple(condition_of(item, resource_type, parser) for item in filters)
            return AllOf(found) if word == "and" else AnyOf(found)
        case Negation(inner):
            return Not(condition_of(inner, resource_type, parser))
        case Test():
            return _test(tree, resource_type, parser)


def _escaped(value: str) -> str:
    """Write a value as the other search mechanism reads it: a comma separates nothing in a filter."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _test(test: Test, resource_type: str, parser: SearchParser) -> Condition:
    if test.path.startswith("_has:") or "." in test.path or test.path.startswith("_"):
        return _elsewhere(test, resource_type, parser)
    parameter = type_parameters(resource_type).parameters.get(test.path)
    if parameter is None:
        raise InvalidRequestError(
            f"_filter names {shown(test.path)}, which {resource_type} cannot be searched by", issue_code="value"
        )
    return typed_test(parameter, test, parser)


def _elsewhere(test: Test, resource_type: str, parser: SearchParser) -> Condition:
    """Chains, `_has` and parameters of every type: the operators that the plain mechanism has."""
    table = type_parameters(resource_type).parameters
    if test.path in table:
        return typed_test(table[test.path], test, parser)
    value = _escaped(test.value)
    last = test.path.rpartition(".")[2].rpartition(":")[2]
    path = test.path[: len(test.path) - len(last)] + ("_id" if last == "id" else last)
    match test.operator:
        case "eq" | "re":
            pass
        case "ne":
            return Not(parser.condition(resource_type, path, value))
        case "pr":
            path, value = f"{path}:missing", "false" if _presence(test) else "true"
        case "co":
            path += ":contains"
        case "ss" | "sb" | "in" | "ni":
            path += _MODIFIER[test.operator]
        case "sw":
            pass
        case operator if operator in _PREFIXES:
            value = operator + value
        case _:
            raise _refused(test)
    return parser.condition(resource_type, path, value)


def _presence(test: Test) -> bool:
    if test.value not in ("true", "false"):
        raise InvalidRequestError("_filter: pr needs true or false", issue_code="value")
    return test.value == "true"


def _refused(test: Test) -> InvalidRequestError:
    return InvalidRequestError(
        f"_filter: {shown(test.path)} does not have the operator {test.operator}", issue_code="not-supported"
    )


def typed_test(parameter: Parameter, test: Test, parser: SearchParser) -> Condition:
    """Return the condition of a test on a parameter of the table."""
    operator, value = test.operator, _escaped(test.value)
    if operator == "pr" and parameter.kind != "composite":
        return parser.condition(
            parameter.resource_type, f"{parameter.code}:missing", "false" if _presence(test) else "true"
        )
    if operator not in _ALLOWED.get(parameter.kind, ()):
        raise _refused(test)
    if parameter.kind in ("string", "uri"):
        return _text_test(parameter, operator, test.value)
    if operator == "po":
        return date_condition(parameter, [parse_date(parameter.code, test.value, "po")])
    if parameter.kind in ("date", "number", "quantity"):
        return parser.typed(parameter, None, [operator + value])
    if operator in _MODIFIER:
        return parser.condition(parameter.resource_type, parameter.code + _MODIFIER[operator], value)
    if operator == "ne":
        # Some value, and none that is equal.
        present = parser.condition(parameter.resource_type, f"{parameter.code}:missing", "false")
        return AllOf((present, Not(parser.typed(parameter, None, [value]))))
    return parser.typed(parameter, None, [value])


def _text_test(parameter: Parameter, operator: str, value: str) -> Condition:
    bases = parameter.bases()
    text = normalise(value) if parameter.kind == "string" else value
    match operator:
        case "eq":
            return StringValues(bases, (equal_range(text),))
        case "sw":
            return StringValues(bases, (prefix_range(text),))
        case "co":
            return StringPattern(bases, (text,), Match.CONTAINS)
        case "ew":
            return StringPattern(bases, (text,), Match.ENDS)
    return StringPattern(bases, (text,), Match.DIFFERS)


__all__ = ["condition_of", "typed_test"]
