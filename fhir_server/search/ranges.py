"""Dates, numbers and quantities as conditions: what is compared by range.

https://hl7.org/fhir/R4/search.html#date, #number, #quantity; units: https://ucum.org
"""

from __future__ import annotations

from fhir_server.search.conditions import Condition, MainDate, Range, RangeValues
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import Parameter, type_parameters
from fhir_server.search.text import parse_date, parse_number, split, unescape
from fhir_server.search.values import UCUM, canonical_range
from foramen.kernel.errors import InvalidRequestError


def date_condition(parameter: Parameter, ranges: list[Range]) -> Condition:
    """Return the condition of a date parameter; the type's main date lies in every posting."""
    main = type_parameters(parameter.resource_type).main_date
    if main is not None and main.paths == parameter.paths:
        return MainDate(tuple(ranges))
    return RangeValues("date_value", tuple((parameter.bases(), found) for found in ranges))


def dates(parameter: Parameter, values: list[str]) -> list[Range]:
    """Parse the values of a date parameter."""
    return [parse_date(parameter.code, value) for value in values]


def number_condition(parameter: Parameter, values: list[str]) -> Condition:
    """Return the condition of a number parameter."""
    bases = parameter.bases()
    return RangeValues("number_value", tuple((bases, parse_number(parameter.code, value)) for value in values))


def quantity_condition(parameter: Parameter, values: list[str]) -> Condition:
    """Return the condition of a quantity parameter."""
    alternatives = []
    for value in values:
        unit, found = quantity_value(parameter.code, value)
        alternatives.append((tuple(base ^ unit for base in parameter.bases()), found))
    return RangeValues("number_value", tuple(alternatives))


def quantity_value(code: str, text: str) -> tuple[int, Range]:
    """Return (unit hash, range) of ``number``, ``number|system|code`` or ``number||code``.

    A UCUM quantity is compared in base units, so that ``5|http://unitsofmeasure.org|mm`` finds 0.5 cm.

    Raises
    ------
    InvalidRequestError
        Neither form.
    """
    parts = [unescape(part) for part in split(text, "|")]
    if len(parts) not in (1, 3):
        raise InvalidRequestError(f"{code} needs number or number|system|code", issue_code="value")
    found = parse_number(code, parts[0])
    if len(parts) == 1 or not parts[2]:
        return 0, found
    system, unit = parts[1], parts[2]
    base = canonical_range(found.low, found.high, unit) if system == UCUM else None
    if base is not None:
        return base[0], Range(_turned(found.prefix, found, base, unit), base[1], base[2])
    return hash64(f"{system}|{unit}"), found


_TURNED = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge", "sa": "eb", "eb": "sa"}


def _turned(prefix: str, found: Range, base: tuple[int, float, float], unit: str) -> str:
    """Prefix in base units: a scale such as pH runs the other way."""
    if prefix not in _TURNED:
        return prefix
    above = canonical_range(found.low + 1, found.low + 1, unit)
    return _TURNED[prefix] if above is not None and above[1] < base[1] else prefix
