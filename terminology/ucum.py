"""UCUM units: is a code a unit, and what is a quantity in base units. Pure, exact, cached.

https://ucum.org/ucum (§2 grammar, §4 tables). The table is the unmodified `content/ucum-essence.xml` (see SOURCES.md).
Arithmetic is exact (fractions of the decimal digits as written), so 5 mm and 0.5 cm become the same number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from xml.etree import ElementTree as ET

_TABLE = Path(__file__).with_name("content") / "ucum-essence.xml"
_NAMESPACE = {"u": "http://unitsofmeasure.org/ucum-essence"}
_MAX_LENGTH = 120
_MAX_NESTING = 8
_MAX_EXPONENT = 60
_TOKEN = re.compile(
    r"(?P<annotation>\{[!-z|~]*\})"  # ASCII without braces (§2.5.2)
    r"|(?P<operator>[./()])"
    r"|(?P<ten>10[*^])(?P<power>[+-]?\d+)?"
    r"|(?P<factor>\d+)(?![A-Za-z\[%'])"
    r"|(?P<unit>(?:[A-Za-z%'_*^]|\[[^\[\]\s{}]+\])+)(?P<exponent>[+-]?\d+)?"
)


class _NotAUnitError(ValueError):
    """The text is not a UCUM unit."""


@dataclass(frozen=True, slots=True)
class _Special:
    """A unit on a scale with a function (§2.1.5, table 2): `to_base` maps a value to the proper unit."""

    to_base: Callable[[float], float]
    scale: Fraction


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as a factor and exponents of base units."""

    factor: Fraction
    dimension: tuple[tuple[str, int], ...]
    special: _Special | None = None

    @property
    def code(self) -> str:
        """UCUM code of the base units, for example ``g.m-3``; ``1`` without dimension."""
        return ".".join(base if power == 1 else f"{base}{power}" for base, power in self.dimension) or "1"


_ONE = Unit(Fraction(1), ())


def _root_of_ten(value: float) -> float:
    return float(10**value)


_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "Cel": lambda value: value + 273.15,
    # The table gives the size of one degree (5 K/9, 5 K/4); the offset belongs to the function.
    "degF": lambda value: value + 459.67,
    "degRe": lambda value: value + 218.52,
    "tanTimes100": lambda value: math.atan(value / 100),
    "100tan": lambda value: math.atan(value / 100),
    "pH": lambda value: _root_of_ten(-value),
    "ln": math.exp,
    "lg": _root_of_ten,
    "lgTimes2": lambda value: _root_of_ten(value / 2),
    "ld": lambda value: float(2**value),
    "sqrt": lambda value: value * value,
    # Homeopathic potencies (retired): powers of their base.
    "hpX": lambda value: _root_of_ten(-value),
    "hpC": lambda value: float(100**-value),
    "hpM": lambda value: float(1000**-value),
    "hpQ": lambda value: float(50000**-value),
}


@dataclass(frozen=True, slots=True)
class _Definition:
    metric: bool
    value: str
    unit: str
    function: str = ""
    is_base: bool = False


@cache
def _tables() -> tuple[dict[str, _Definition], dict[str, Fraction], dict[str, str]]:
    root = ET.parse(_TABLE).getroot()  # noqa: S314 - our own file
    units: dict[str, _Definition] = {}
    names: dict[str, str] = {}
    prefixes: dict[str, Fraction] = {}
    for item in root.iterfind("u:prefix", _NAMESPACE):
        value = item.find("u:value", _NAMESPACE)
        assert value is not None  # noqa: S101 - the table is complete
        prefixes[item.attrib["Code"]] = Fraction(value.attrib["value"])
    for item in root.iterfind("u:base-unit", _NAMESPACE):
        units[item.attrib["Code"]] = _Definition(True, "1", "", is_base=True)
        names[item.attrib["Code"]] = item.findtext("u:name", "", _NAMESPACE)
    for item in root.iterfind("u:unit", _NAMESPACE):
        code, value = item.attrib["Code"], item.find("u:value", _NAMESPACE)
        assert value is not None  # noqa: S101 - the table is complete
        metric = item.get("isMetric") == "yes"
        function = value.find("u:function", _NAMESPACE)
        names[code] = item.findtext("u:name", "", _NAMESPACE)
        if function is not None:
            # "%[slope]" is written with the unit deg, of which its function knows nothing: it yields radians.
            proper = "rad" if function.attrib["name"] == "100tan" else function.attrib["Unit"]
            units[code] = _Definition(metric, function.attrib["value"], proper, function.attrib["name"])
        elif item.get("isArbitrary") == "yes" and value.attrib["Unit"] == "1":
            units[code] = _Definition(metric, "1", "", is_base=True)  # §2.4.3: not commensurable with any other
        else:
            units[code] = _Definition(metric, value.attrib["value"], value.attrib["Unit"])
    return units, prefixes, names


@lru_cache(maxsize=1024)
def _atom(code: str) -> Unit:
    definition = _tables()[0][code]
    if definition.is_base:
        return Unit(Fraction(1), ((code, 1),))
    proper = _parse(definition.unit)
    factor = Fraction(definition.value) * proper.factor
    if not definition.function:
        return Unit(factor, proper.dimension)
    return Unit(factor, proper.dimension, _Special(_FUNCTIONS[definition.function], Fraction(1)))


def _simple_unit(text: str) -> Unit:
    units, prefixes, _ = _tables()
    if text in units:
        return _atom(text)
    for length in (1, 2):
        prefix, rest = prefixes.get(text[:length]), text[length:]
        if prefix is not None and rest in units and units[rest].metric:
            unit = _atom(rest)
            if unit.special is not None:
                return Unit(unit.factor, unit.dimension, _Special(unit.special.to_base, unit.special.scale * prefix))
            return Unit(unit.factor * prefix, unit.dimension)
    raise _NotAUnitError


def _power(unit: Unit, exponent: int) -> Unit:
    if exponent == 1:
        return unit
    if unit.special is not None or not 0 < abs(exponent) <= _MAX_EXPONENT:
        raise _NotAUnitError
    return Unit(unit.factor**exponent, tuple((base, power * exponent) for base, power in unit.dimension))


def _product(left: Unit, right: Unit, sign: int) -> Unit:
    if left is _ONE and sign == 1:
        return right
    if right is _ONE:
        return left
    if left.special is not None or right.special is not None:
        raise _NotAUnitError  # §2.1.5: special units take part in no products
    powers = dict(left.dimension)
    for base, power in right.dimension:
        powers[base] = powers.get(base, 0) + sign * power
    factor = left.factor * right.factor if sign == 1 else left.factor / right.factor
    return Unit(factor, tuple(sorted((base, power) for base, power in powers.items() if power)))


class _Parser:
    """Recursive descent over §2.2's grammar."""

    def __init__(self, text: str) -> None:
        self._tokens: list[re.Match[str]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NotAUnitError
            self._tokens.append(match)
            position = match.end()
        self._next = 0

    def parse(self) -> Unit:
        unit = self._term(0)
        if self._next != len(self._tokens):
            raise _NotAUnitError
        return unit

    def _peek(self, kind: str) -> str | None:
        if self._next >= len(self._tokens):
            return None
        return self._tokens[self._next].group(kind)

    def _term(self, nesting: int) -> Unit:
        if nesting > _MAX_NESTING:
            raise _NotAUnitError
        if self._peek("operator") == "/":
            self._next += 1
            unit = _product(_ONE, self._component(nesting), -1)
        else:
            unit = self._component(nesting)
        while (operator := self._peek("operator")) in (".", "/"):
            self._next += 1
            unit = _product(unit, self._component(nesting), 1 if operator == "." else -1)
        return unit

    def _component(self, nesting: int) -> Unit:
        if self._next >= len(self._tokens):
            raise _NotAUnitError
        match = self._tokens[self._next]
        self._next += 1
        if match["annotation"]:
            return _ONE
        if match["operator"]:
            if match["operator"] != "(":
                raise _NotAUnitError
            unit = self._term(nesting + 1)
            if self._peek("operator") != ")":
                raise _NotAUnitError
            self._next += 1
        else:
            unit = self._quantity(match)
        # After parentheses only the official list of examples has it: U/(10.g){feces}.
        if self._peek("annotation"):
            self._next += 1
        return unit

    @staticmethod
    def _quantity(match: re.Match[str]) -> Unit:
        if match["ten"]:
            return _power(Unit(Fraction(10), ()), int(match["power"] or 1))
        if match["factor"]:
            factor = int(match["factor"])
            if factor == 0:
                raise _NotAUnitError
            return Unit(Fraction(factor), ())
        return _power(_simple_unit(match["unit"]), int(match["exponent"] or 1))


@lru_cache(maxsize=4096)
def _parse(code: str) -> Unit:
    return _Parser(code).parse()


@lru_cache(maxsize=4096)
def parse(code: str) -> Unit | None:
    """Return the unit of a case-sensitive UCUM code, or None when it is none."""
    if not 0 < len(code) <= _MAX_LENGTH or not code.isascii():
        return None
    try:
        return _parse(code)
    except _NotAUnitError:
        return None


def canonical(value: float, code: str) -> tuple[float, str] | None:
    """Convert a quantity to base units.

    Parameters
    ----------
    value : number, as written in the resource
    code : case-sensitive UCUM code

    Returns
    -------
    (value in base units, UCUM code of the base units), for example ``(0.005, "m")`` for 5 mm and ``(310.15, "K")`` for
    37 Cel; None when the code is not a UCUM unit or the result is not a finite number. Annotations have no meaning
    (``{score}`` is ``1``); arbitrary units such as ``[iU]`` are dimensions of their own; a mole is a number (§4.3).

    Source: UCUM §2.4, §4.
    """
    unit = parse(code)
    if unit is None:
        return None
    try:
        if unit.special is not None:
            result = unit.special.to_base(float(value * unit.special.scale)) * float(unit.factor)
        else:
            # Whole numbers of any length: one rounding, at the end.
            numerator, denominator = Decimal(str(value)).as_integer_ratio()
            result = (numerator * unit.factor.numerator) / (denominator * unit.factor.denominator)
    except (OverflowError, ValueError, ZeroDivisionError):
        return None
    return (result, unit.code) if math.isfinite(result) else None


def is_comparable(left: str, right: str) -> bool:
    """Whether both codes are units of the same dimension."""
    first, second = parse(left), parse(right)
    return first is not None and second is not None and first.dimension == second.dimension


def display(code: str) -> str | None:
    """Return a name for people (the unit's own where the table has one, else the code), or None for no unit."""
    return None if parse(code) is None else (_tables()[2].get(code) or code)
