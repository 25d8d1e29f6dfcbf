"""Mathematics.

http://hl7.org/fhirpath/N1/#math
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import Any

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.functions.registry import eager
from fhir_server.fhirpath.quantity import DECIMAL, Quantity
from fhir_server.fhirpath.values import EMPTY, Items, make, rounded, single, system, whole


def _number(items: Items, what: str) -> int | Decimal | None:
    node = single(items, what)
    value = None if node is None else system(node)
    if value is None:
        if node is not None and node.value is not None:
            raise FhirPathError(f"{what} takes a number")
        return None
    if type(value) is int or type(value) is Decimal:
        return value
    raise FhirPathError(f"{what} takes a number")


@eager("abs")
def _abs(context: Context, items: Items) -> Items:
    node = single(items, "abs()")
    value: Any = None if node is None else system(node)
    if type(value) is Quantity:
        return make(Quantity(value.value.copy_abs(), value.unit, value.is_calendar))
    number = _number(items, "abs()")
    return make(number.copy_abs() if isinstance(number, Decimal) else None if number is None else abs(number))


def _to_integer(name: str, rounding: str) -> None:
    @eager(name)
    def _run(context: Context, items: Items) -> Items:
        number = _number(items, f"{name}()")
        return EMPTY if number is None else make(whole(Decimal(number), rounding))


_to_integer("ceiling", ROUND_CEILING)
_to_integer("floor", ROUND_FLOOR)
_to_integer("truncate", ROUND_DOWN)


def _real(name: str, compute: Callable[[Decimal], Decimal]) -> None:
    @eager(name)
    def _run(context: Context, items: Items) -> Items:
        number = _number(items, f"{name}()")
        return EMPTY if number is None else make(compute(Decimal(number)))


_real("exp", DECIMAL.exp)
_real("ln", DECIMAL.ln)
_real("sqrt", DECIMAL.sqrt)


@eager("log", 1)
def _log(context: Context, items: Items, base: Items) -> Items:
    number, root = _number(items, "log()"), _number(base, "log()")
    if number is None or root is None:
        return EMPTY
    found = DECIMAL.divide(DECIMAL.ln(Decimal(number)), DECIMAL.ln(Decimal(root)))
    return make(rounded(found, 28) if found.is_finite() else None)


@eager("power", 1)
def _power(context: Context, items: Items, exponent: Items) -> Items:
    number, power = _number(items, "power()"), _number(exponent, "power()")
    if number is None or power is None:
        return EMPTY
    found = DECIMAL.power(Decimal(number), Decimal(power))
    if not found.is_finite():
        return EMPTY
    if type(number) is int and type(power) is int and power >= 0:
        return make(whole(found, ROUND_DOWN))
    return make(found)


@eager("round", 0, 1)
def _round(context: Context, items: Items, precision: Items = EMPTY) -> Items:
    number, places = _number(items, "round()"), _number(precision, "round()")
    if number is None:
        return EMPTY
    if places is not None and (type(places) is not int or not 0 <= places <= 28):
        raise FhirPathError("round() takes a precision from 0 to 28")
    return make(rounded(Decimal(number), int(places or 0)))
