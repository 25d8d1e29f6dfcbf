"""Operators on collections.

http://hl7.org/fhirpath/N1/#operations
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

from fhir_server.fhirpath import quantity as quantities
from fhir_server.fhirpath import temporal as temporals
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.quantity import DECIMAL, Quantity
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.values import (
    EMPTY,
    FALSE,
    Items,
    boolean,
    equal,
    equal_collections,
    equivalent,
    key,
    make,
    order,
    single,
    system,
    truth,
    whole,
)

__all__ = ["BINARY", "LOGIC", "distinct", "signed", "truth"]


def _and(first: bool | None, second: bool | None) -> Items:
    if first is False or second is False:
        return FALSE
    return boolean(True if first and second else None)


def _or(first: bool | None, second: bool | None) -> Items:
    if first or second:
        return boolean(True)
    return boolean(False if first is False and second is False else None)


def _implies(first: bool | None, second: bool | None) -> Items:
    if first is False or second:
        return boolean(True)
    return boolean(False if first and second is False else None)


def _xor(first: bool | None, second: bool | None) -> Items:
    return boolean(None if first is None or second is None else first is not second)


# Operator → (left side that decides alone, truth table). `...` never decides.
LOGIC: dict[str, tuple[Any, Callable[[bool | None, bool | None], Items]]] = {
    "and": (False, _and),
    "or": (True, _or),
    "implies": (False, _implies),
    "xor": (..., _xor),
}


def _equals(context: Context, left: Items, right: Items) -> Items:
    context.spend(len(left))
    return boolean(equal_collections(left, right, context.spend))


def _unequal(context: Context, left: Items, right: Items) -> Items:
    context.spend(len(left))
    result = equal_collections(left, right, context.spend)
    return boolean(None if result is None else not result)


def _is_equivalent(context: Context, left: Items, right: Items) -> bool:
    if len(left) != len(right):
        return False
    context.spend(len(left) * len(left))
    rest = list(right)
    for node in left:
        match = next((number for number, other in enumerate(rest) if equivalent(node, other, context.spend)), None)
        if match is None:
            return False
        del rest[match]
    return True


def _equivalence(context: Context, left: Items, right: Items) -> Items:
    return boolean(_is_equivalent(context, left, right))


def _no_equivalence(context: Context, left: Items, right: Items) -> Items:
    return boolean(not _is_equivalent(context, left, right))


def _comparison(operator: str, accepts: Callable[[int], bool]) -> Callable[[Context, Items, Items], Items]:
    def compare(context: Context, left: Items, right: Items) -> Items:
        first, second = single(left, operator), single(right, operator)
        if first is None or second is None:
            return EMPTY
        result = order(first, second, operator)
        return boolean(None if result is None else accepts(result))

    return compare


def _in(context: Context, left: Items, right: Items) -> Items:
    node = single(left, "in")
    context.spend(len(right))
    return EMPTY if node is None else boolean(any(equal(item, node, context.spend) for item in right))


def _contains(context: Context, left: Items, right: Items) -> Items:
    return _in(context, right, left)


def distinct(context: Context, items: Items) -> Items:
    """Items without those equal to an earlier one."""
    if len(items) < 2:
        return items
    context.spend(len(items))
    seen: set[Any] = set()
    found: Items = []
    for node in items:
        name = key(node, context.spend)
        if name not in seen:
            seen.add(name)
            found.append(node)
    return found


def _union(context: Context, left: Items, right: Items) -> Items:
    return distinct(context, left + right)


def signed(items: Items, *, negative: bool) -> Items:
    """``+x`` and ``-x``."""
    node = single(items, "a sign")
    if node is None:
        return EMPTY
    value = system(node)
    if type(value) is Quantity:
        number = Decimal(value.value).copy_negate() if negative else value.value
        return make(Quantity(number, value.unit, value.is_calendar))
    if type(value) is int:
        return make(-value if negative else value)
    if type(value) is Decimal:
        return make(value.copy_negate() if negative else value)
    raise FhirPathError("a sign stands before numbers only")


def _operands(left: Items, right: Items, operator: str) -> tuple[Any, Any] | None:
    first, second = single(left, operator), single(right, operator)
    if first is None or second is None:
        return None
    pair = system(first), system(second)
    if pair[0] is None or pair[1] is None:
        raise FhirPathError(f"{operator} does not take these types")
    return pair


def _numbers(first: Any, second: Any) -> bool:
    return type(first) in (int, Decimal) and type(second) in (int, Decimal)


def _quantities(first: Any, second: Any) -> tuple[Quantity, Quantity] | None:
    if type(first) is not Quantity and type(second) is not Quantity:
        return None
    pair = [Quantity(Decimal(x)) if type(x) in (int, Decimal) else x for x in (first, second)]
    return (pair[0], pair[1]) if all(type(x) is Quantity for x in pair) else None


def _sum(sign: int) -> Callable[[Context, Items, Items], Items]:
    operator = "+" if sign == 1 else "-"

    def add(context: Context, left: Items, right: Items) -> Items:
        pair = _operands(left, right, operator)
        if pair is None:
            return EMPTY
        first, second = pair
        if type(first) is int and type(second) is int:
            return make(first + sign * second)
        if _numbers(first, second):
            return make(DECIMAL.add(Decimal(first), DECIMAL.multiply(Decimal(second), Decimal(sign))))
        if type(first) is str and type(second) is str and sign == 1:
            return context.text(first + second)
        if type(first) is Temporal and type(second) is Quantity:
            return make(_moved(first, second, sign))
        both = _quantities(first, second)
        if both is not None:
            return make(quantities.add(*both, sign))
        raise FhirPathError(f"{operator} does not take these types")

    return add


def _moved(moment: Temporal, duration: Quantity, sign: int) -> Temporal | None:
    unit = temporals.calendar_unit(duration.unit)
    if unit is None:
        raise FhirPathError("a date or time moves by calendar durations only")
    if duration.value.adjusted() > 12:
        return None
    units = int(duration.value.to_integral_value(ROUND_DOWN))
    micro = 0
    if unit in ("second", "millisecond"):
        # Above seconds the fraction is ignored (N1 §6.7.1).
        micro = int((duration.value - units) * (1_000_000 if unit == "second" else 1000))
    return temporals.add(moment, sign * units, unit, sign * micro)


def _multiply(context: Context, left: Items, right: Items) -> Items:
    pair = _operands(left, right, "*")
    if pair is None:
        return EMPTY
    first, second = pair
    if type(first) is int and type(second) is int:
        return make(first * second)
    if _numbers(first, second):
        return make(DECIMAL.multiply(Decimal(first), Decimal(second)))
    both = _quantities(first, second)
    if both is None:
        raise FhirPathError("* does not take these types")
    return make(quantities.multiply(*both))


def _divide(context: Context, left: Items, right: Items) -> Items:
    pair = _operands(left, right, "/")
    if pair is None:
        return EMPTY
    first, second = pair
    if _numbers(first, second):
        return make(DECIMAL.divide(Decimal(first), Decimal(second)) if second else None)
    both = _quantities(first, second)
    if both is None:
        raise FhirPathError("/ does not take these types")
    return make(quantities.divide(*both))


def _whole(operator: str) -> Callable[[Context, Items, Items], Items]:
    def divide(context: Context, left: Items, right: Items) -> Items:
        pair = _operands(left, right, operator)
        if pair is None:
            return EMPTY
        first, second = pair
        if not _numbers(first, second):
            raise FhirPathError(f"{operator} takes numbers")
        if not second:
            return EMPTY
        if operator == "mod":
            rest = DECIMAL.remainder(Decimal(first), Decimal(second))
            return make(int(rest) if type(first) is int and type(second) is int else rest)
        quotient = DECIMAL.divide_int(Decimal(first), Decimal(second))
        return make(whole(quotient, ROUND_DOWN))

    return divide


def _concatenate(context: Context, left: Items, right: Items) -> Items:
    parts = []
    for items in (left, right):
        node = single(items, "&")
        value = "" if node is None else system(node)
        if value is not None and type(value) is not str:
            raise FhirPathError("& takes strings")
        parts.append(value or "")
    return context.text("".join(parts))


BINARY: dict[str, Callable[[Context, Items, Items], Items]] = {
    "=": _equals,
    "!=": _unequal,
    "~": _equivalence,
    "!~": _no_equivalence,
    "<": _comparison("<", lambda result: result < 0),
    "<=": _comparison("<=", lambda result: result <= 0),
    ">": _comparison(">", lambda result: result > 0),
    ">=": _comparison(">=", lambda result: result >= 0),
    "in": _in,
    "contains": _contains,
    "|": _union,
    "+": _sum(1),
    "-": _sum(-1),
    "*": _multiply,
    "/": _divide,
    "div": _whole("div"),
    "mod": _whole("mod"),
    "&": _concatenate,
}
