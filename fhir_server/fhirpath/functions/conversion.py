"""Conversion between System types.

http://hl7.org/fhirpath/N1/#conversion
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.functions.registry import eager
from fhir_server.fhirpath.quantity import Quantity, is_number, parse_quantity
from fhir_server.fhirpath.temporal import Temporal, parse_temporal
from fhir_server.fhirpath.values import EMPTY, FALSE, Items, boolean, make, single, system

_TRUE = {"true", "t", "yes", "y", "1", "1.0"}
_FALSE = {"false", "f", "no", "n", "0", "0.0"}


def _boolean(value: Any) -> bool | None:
    if type(value) is bool:
        return value
    if type(value) in (int, Decimal):
        return True if value == 1 else False if value == 0 else None
    if type(value) is str:
        return True if value.lower() in _TRUE else False if value.lower() in _FALSE else None
    return None


def _integer(value: Any) -> int | None:
    if type(value) in (bool, int):
        return int(value)
    if type(value) is str and "." not in value and is_number(value):
        return int(value)
    return None


def _decimal(value: Any) -> Decimal | None:
    if type(value) in (bool, int):
        return Decimal(int(value))
    if type(value) is Decimal:
        return value
    return Decimal(value) if type(value) is str and is_number(value) else None


def _string(value: Any) -> str | None:
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, Temporal | Quantity):
        return value.text()
    if type(value) is Decimal and -40 < value.adjusted() < 40:
        return f"{value:f}"
    return None if value is None else str(value)


def _date(value: Any) -> Temporal | None:
    if type(value) is Temporal and value.kind != "Time":
        return Temporal("Date", value.parts[:3])
    if type(value) is not str:
        return None
    found = parse_temporal(value, "Date") or parse_temporal(value, "DateTime")
    return None if found is None else Temporal("Date", found.parts[:3])


def _date_time(value: Any) -> Temporal | None:
    if type(value) is Temporal and value.kind != "Time":
        return Temporal("DateTime", value.parts, value.offset, value.digits)
    return parse_temporal(value, "DateTime") if type(value) is str else None


def _time(value: Any) -> Temporal | None:
    if type(value) is Temporal and value.kind == "Time":
        return value
    return parse_temporal(value, "Time") if type(value) is str else None


def _quantity(value: Any) -> Quantity | None:
    if type(value) is Quantity:
        return value
    if type(value) in (bool, int, Decimal):
        return Quantity(Decimal(value))
    return parse_quantity(value) if type(value) is str else None


def _register(name: str, convert: Callable[[Any], Any]) -> None:
    @eager(f"to{name}", 0, 1 if name == "Quantity" else 0)
    def _to(context: Context, items: Items, unit: Items = EMPTY) -> Items:
        node = single(items, f"to{name}()")
        return EMPTY if node is None else make(convert(system(node)))

    @eager(f"convertsTo{name}", 0, 1 if name == "Quantity" else 0)
    def _converts(context: Context, items: Items, unit: Items = EMPTY) -> Items:
        node = single(items, f"convertsTo{name}()")
        if node is None:
            return EMPTY
        return boolean(bool(make(convert(system(node))))) if system(node) is not None else FALSE


for _name, _convert in (
    ("Boolean", _boolean),
    ("Integer", _integer),
    ("Decimal", _decimal),
    ("String", _string),
    ("Date", _date),
    ("DateTime", _date_time),
    ("Time", _time),
    ("Quantity", _quantity),
):
    _register(_name, _convert)
