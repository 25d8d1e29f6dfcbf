"""`Patient?age=…`: whole years today, by the date of birth; deceased patients are left out, as its definition says.

http://hl7.org/fhir/SearchParameter/patient-extensions-Patient-age (defined without an expression: it moves with time)
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from fhir_server.search.conditions import AllOf, AnyPosting, Condition, Not, Range, RangeValues
from fhir_server.search.parameters import r4_parameters
from fhir_server.search.values import token_hashes
from foramen.kernel.errors import InvalidRequestError

_MOST = 200
_PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le")


def age_condition(value: str, today: date) -> Condition:
    """Return what the date of birth must fulfil; a partial one must lie wholly inside.

    Parameters
    ----------
    value : whole years with an optional prefix, e.g. ``ge65``
    today : the day on which the age is meant (UTC)

    Raises
    ------
    InvalidRequestError
        Not whole years from 0 to 200, or a prefix without a meaning here (sa, eb, ap).
    """
    prefix, digits = (value[:2], value[2:]) if value[:1].isalpha() else ("eq", value)
    if prefix not in _PREFIXES or not digits.isascii() or not digits.isdigit() or int(digits or "0") > _MOST:
        raise InvalidRequestError("age needs whole years with eq, ne, gt, lt, ge or le", issue_code="value")
    years = int(digits)
    oldest, youngest = _day_after(_birthday(today, years + 1)), _day_after(_birthday(today, years))
    found: Condition
    match prefix:
        case "eq" | "ne":
            found = _born(Range("eq", oldest, youngest))
        case "gt":
            found = _born(Range("eb", oldest, oldest))
        case "ge":
            found = _born(Range("eb", youngest, youngest))
        case "lt":
            found = _born(Range("sa", youngest, youngest))
        case _:
            found = _born(Range("sa", oldest, oldest))
    table = r4_parameters("Patient").parameters
    if prefix == "ne":
        anything = _born(Range("sa", float(-(2**62)), float(-(2**62))))
        found = AllOf((anything, Not(found)))
    yes = token_hashes(None, "true")[0]
    alive = AnyPosting(tuple(base ^ yes for base in table["deceased"].bases()), negated=True)
    return AllOf((found, alive))


def _born(found: Range) -> Condition:
    birth = r4_parameters("Patient").parameters["birthdate"]
    return RangeValues("date_value", ((birth.bases(), found),))


def _birthday(today: date, years: int) -> date:
    """Return the last day of birth on which one is that old; born on 29 February one has one's birthday on 1 March."""
    try:
        return today.replace(year=today.year - years)
    except ValueError:
        return date(today.year - years, 2, 28)


def _day_after(day: date) -> float:
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    return float((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
