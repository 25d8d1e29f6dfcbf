"""Quantities: a decimal with a UCUM unit or a calendar duration.

http://hl7.org/fhirpath/N1/#quantity, https://hl7.org/fhir/R4/fhirpath.html#quantity
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from fhir_server.fhirpath.parser import CALENDAR_UNITS
from fhir_server.fhirpath.temporal import UCUM_DURATIONS, calendar_unit

UCUM = "http://unitsofmeasure.org"
# No traps: what cannot be computed is NaN or infinite and becomes an empty collection.
DECIMAL = Context(prec=34, traps=[])
_MAX_EXPONENT, _MAX_BITS = 400, 1400
_SIZES = {"week": 604_800_000, "day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1000, "millisecond": 1}
_CODES = {word: code for code, word in UCUM_DURATIONS.items()}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with its unit: a UCUM code, or the word of a calendar duration when `is_calendar`."""

    value: Decimal
    unit: str = "1"
    is_calendar: bool = False

    def text(self) -> str:
        """As a literal: ``1.5 'mg'`` or ``2 weeks``."""
        return f"{self.value} {self.unit}" if self.is_calendar else f"{self.value} '{self.unit}'"


def in_range(value: Decimal) -> bool:
    """Whether a decimal is finite and of a size that can be computed with."""
    return value.is_finite() and abs(value.adjusted()) <= _MAX_EXPONENT


def decimal_of(value: Any) -> Decimal | None:
    """Decimal of a JSON number; None when it is none, or not finite, or of a size nobody can mean."""
    if type(value) is Decimal:
        return value if in_range(value) else None
    if type(value) is int:
        return Decimal(value) if value.bit_length() <= _MAX_BITS else None
    if type(value) is float:
        found = Decimal(repr(value))
        return found if in_range(found) else None
    return None


def from_fhir(value: dict[str, Any]) -> Quantity | None:
    """Read a FHIR Quantity; one with a comparator or without a value has no single value."""
    number = decimal_of(value.get("value"))
    if number is None or value.get("comparator") is not None:
        return None
    code, unit = value.get("code"), value.get("unit")
    if isinstance(code, str):
        # A code of another system is no UCUM unit; the mark keeps it apart from one.
        return Quantity(number, code if value.get("system") in (UCUM, None) else f"{value['system']}|{code}")
    return Quantity(number, unit if isinstance(unit, str) else "1")


def _base(quantity: Quantity) -> tuple[Fraction, str] | None:
    """Value in base units, and these; calendar durations up to weeks count as their UCUM unit, longer ones do not."""
    unit = quantity.unit
    if quantity.is_calendar:
        word = calendar_unit(unit)
        if word not in _CODES:
            return Fraction(quantity.value) * (12 if word == "year" else 1), "calendar month"
        return Fraction(quantity.value) * Fraction(_SIZES[word], 1000), "s"
    if unit == "1":
        return Fraction(quantity.value), "1"
    from terminology import ucum

    factor = ucum.canonical(1.0, unit)
    if factor is None:
        return None
    converted = ucum.canonical(float(quantity.value), unit)
    assert converted is not None  # noqa: S101 - the same unit
    return Fraction(converted[0]).limit_denominator(10**15), converted[1]


def base_key(quantity: Quantity) -> tuple[Any, str]:
    """Key that equal quantities share."""
    base = _base(quantity)
    return base if base is not None else (quantity.value, f"unit {quantity.unit}")


def compare(left: Quantity, right: Quantity) -> int | None:
    """Return -1, 0 or 1; None when the units cannot be converted into each other."""
    if left.unit == right.unit and left.is_calendar == right.is_calendar:
        return (left.value > right.value) - (left.value < right.value)
    first, second = _base(left), _base(right)
    if first is None or second is None or first[1] != second[1]:
        return None
    difference = first[0] - second[0]
    # Conversion goes through floats: what differs in the 13th digit only is equal.
    if abs(difference) <= max(abs(first[0]), abs(second[0])) * Fraction(1, 10**12):
        return 0
    return 1 if difference > 0 else -1


def is_comparable(left: Quantity, right: Quantity) -> bool:
    """``comparable()``: whether the units can be converted into each other."""
    return compare(left, right) is not None


def is_equivalent(left: Quantity, right: Quantity) -> bool:
    """``~``: equal at the precision of the less precise value."""
    if left.unit == right.unit:
        return equivalent_decimals(left.value, right.value)
    first, second = _base(left), _base(right)
    if first is None or second is None or first[1] != second[1]:
        return False
    one = _base(Quantity(Decimal(1), left.unit, left.is_calendar))
    assert one is not None  # noqa: S101 - the same unit
    if one[0] == 0:
        return first[0] == second[0]
    # Both in the unit of each side; the coarser side decides.
    other = _base(Quantity(Decimal(1), right.unit, right.is_calendar))
    assert other is not None  # noqa: S101 - the same unit
    step = max(_step(left.value) * one[0], _step(right.value) * (other[0] or 1))
    return abs(first[0] - second[0]) * 2 < step or first[0] == second[0]


def _step(value: Decimal) -> Fraction:
    exponent = value.as_tuple().exponent
    return Fraction(10) ** (exponent if isinstance(exponent, int) else 0)


def equivalent_decimals(left: Decimal, right: Decimal) -> bool:
    """``~`` of decimals: both rounded to the precision of the less precise one."""
    places = min(_places(left), _places(right))
    step = Decimal(1).scaleb(-places)
    return left.quantize(step, context=DECIMAL) == right.quantize(step, context=DECIMAL) or left == right


def _places(value: Decimal) -> int:
    exponent = value.normalize(DECIMAL).as_tuple().exponent
    return min(max(-exponent, 0), 28) if isinstance(exponent, int) else 0


def multiply(left: Quantity, right: Quantity) -> Quantity | None:
    """Product with the product of the units."""
    return _combine(DECIMAL.multiply(left.value, right.value), left, right, ".")


def divide(left: Quantity, right: Quantity) -> Quantity | None:
    """Quotient with the quotient of the units; None for a divisor of zero."""
    return _combine(DECIMAL.divide(left.value, right.value), left, right, "/") if right.value else None


def _combine(value: Decimal, left: Quantity, right: Quantity, operator: str) -> Quantity:
    first, second = _code(left), _code(right)
    if second == "1":
        return Quantity(value, first)
    if operator == "/" and first == second:
        return Quantity(value)
    if operator == "." and first == "1":
        return Quantity(value, second)
    return Quantity(value, f"({first}){operator}({second})")


def _code(quantity: Quantity) -> str:
    if not quantity.is_calendar:
        return quantity.unit
    word = calendar_unit(quantity.unit) or quantity.unit
    return _CODES.get(word, {"year": "a", "month": "mo"}.get(word, word))


def add(left: Quantity, right: Quantity, sign: int) -> Quantity | None:
    """Sum (or difference, `sign` -1) in the unit of the left side; None when the units do not fit."""
    if left.unit == right.unit:
        return Quantity(
            DECIMAL.add(left.value, DECIMAL.multiply(right.value, Decimal(sign))), left.unit, left.is_calendar
        )
    first, second = _base(left), _base(right)
    one = _base(Quantity(Decimal(1), left.unit, left.is_calendar))
    if first is None or second is None or one is None or first[1] != second[1] or not one[0]:
        return None
    moved = (first[0] + sign * second[0]) / one[0]
    value = DECIMAL.divide(Decimal(moved.numerator), Decimal(moved.denominator))
    return Quantity(value.normalize(DECIMAL), left.unit, left.is_calendar)


def parse_quantity(text: str) -> Quantity | None:
    """Read ``1.5 'mg'``, ``2 weeks`` or ``3``; None when it is none of these."""
    number, _, unit = text.strip().partition(" ")
    unit = unit.strip()
    if not is_number(number):
        return None
    value = Decimal(number)
    if not unit:
        return Quantity(value)
    if len(unit) > 2 and unit[0] == unit[-1] == "'":
        return Quantity(value, unit[1:-1])
    return Quantity(value, unit, is_calendar=True) if unit in CALENDAR_UNITS else None


def is_number(text: str) -> bool:
    """Whether a text is an integer or decimal, with or without a sign."""
    body = text[1:] if text[:1] in ("+", "-") else text
    whole, dot, fraction = body.partition(".")
    digits = whole + fraction
    return len(body) < 64 and digits.isascii() and digits.isdecimal() and bool(whole) and bool(fraction) == bool(dot)
