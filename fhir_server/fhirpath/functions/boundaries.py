"""Precision and boundaries; the clock.

http://hl7.org/fhirpath/#boundaries (STU, taken back to R4), http://hl7.org/fhirpath/N1/#current-date-and-time-functions
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

from fhir_server.fhirpath import quantity as quantities
from fhir_server.fhirpath import temporal as temporals
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.functions.registry import eager
from fhir_server.fhirpath.quantity import DECIMAL, Quantity
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.values import EMPTY, Items, boolean, make, single, system

_MOST_DIGITS = 31
_DEFAULT = {"Date": 8, "DateTime": 17, "Time": 9}


def _places(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _decimal_boundary(value: Decimal, places: int, *, high: bool) -> Decimal | None:
    if not 0 <= places <= _MOST_DIGITS:
        return None
    half = Decimal(5).scaleb(-_places(value) - 1)
    away = high if not value.is_signed() else not high
    size = abs(value)
    edge = DECIMAL.add(size, half) if away else DECIMAL.subtract(size, half)
    # Away from zero rounds, towards zero cuts: as the official suite has it for few digits.
    found = edge.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP if away else ROUND_DOWN, DECIMAL)
    return found.copy_negate() if value.is_signed() else found


def _boundary(value: Any, precision: int | None, *, high: bool) -> Any:
    if type(value) is int:
        value = Decimal(value)
    if type(value) is Decimal:
        return _decimal_boundary(value, 8 if precision is None else precision, high=high)
    if type(value) is Quantity:
        edge = _decimal_boundary(value.value, 8 if precision is None else precision, high=high)
        return None if edge is None else Quantity(edge, value.unit, value.is_calendar)
    if type(value) is Temporal:
        return temporals.boundary(value, _DEFAULT[value.kind] if precision is None else precision, high=high)
    raise FhirPathError("this type has no boundaries")


def _register(name: str, *, high: bool) -> None:
    @eager(name, 0, 1)
    def _run(context: Context, items: Items, precision: Items = EMPTY) -> Items:
        node, digits = single(items, f"{name}()"), single(precision, f"{name}()")
        value = None if node is None else system(node)
        number = None if digits is None else system(digits)
        if number is not None and type(number) is not int:
            raise FhirPathError(f"{name}() takes an integer")
        return EMPTY if value is None else make(_boundary(value, number, high=high))


_register("lowBoundary", high=False)
_register("highBoundary", high=True)


@eager("precision")
def _precision(context: Context, items: Items) -> Items:
    node = single(items, "precision()")
    value = None if node is None else system(node)
    if type(value) is Temporal:
        return make(value.precision)
    if type(value) is Decimal or type(value) is int:
        return make(_places(Decimal(value)))
    return EMPTY


@eager("comparable", 1)
def _comparable(context: Context, items: Items, other: Items) -> Items:
    left, right = single(items, "comparable()"), single(other, "comparable()")
    first, second = (None if node is None else system(node) for node in (left, right))
    if type(first) is not Quantity or type(second) is not Quantity:
        return EMPTY
    return boolean(quantities.is_comparable(first, second))


@eager("now")
def _now(context: Context, items: Items) -> Items:
    return make(temporals.from_datetime(context.clock(), "DateTime"))


@eager("today")
def _today(context: Context, items: Items) -> Items:
    return make(temporals.from_datetime(context.clock(), "Date"))


@eager("timeOfDay")
def _time_of_day(context: Context, items: Items) -> Items:
    return make(temporals.from_datetime(context.clock(), "Time"))
