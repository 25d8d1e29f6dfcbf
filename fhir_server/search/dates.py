"""Dates as ranges of microseconds since 1970, UTC: a date of any precision is the interval it covers.

https://hl7.org/fhir/R4/search.html#date. A value without a zone is read as UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

BEGINNING = -(2**62) + 1
END = 2**62
MISSING = -(2**62)
"""Lower bound of a resource that has no date at all; below every real one."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(
    r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?)?)?", re.ASCII
)
_DAY = 86_400_000_000
_SECOND = 1_000_000
_USUAL = ("-", "-", "T", ":", ":", "Z")


def _microseconds(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * _SECOND + delta.microseconds


def date_range(text: str) -> tuple[int, int] | None:
    """Return the half-open range [low, high) that a FHIR date, dateTime or instant covers; None when it is none."""
    if len(text) == 20 and (text[4], text[7], text[10], text[13], text[16], text[19]) == _USUAL:
        try:  # YYYY-MM-DDThh:mm:ssZ, what most systems write
            low = int(datetime.fromisoformat(text).timestamp()) * _SECOND
        except ValueError:  # Among others second 60.
            pass
        else:
            return low, low + _SECOND
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        start = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        if hour is None:
            return _calendar_range(start, month, day)
        width = 60 * _SECOND if second is None else _SECOND
        seconds = min(int(second or 0), 59)  # A leap second (60) counts as the last second of its minute.
        start += timedelta(hours=int(hour), minutes=int(minute), seconds=seconds)
        if int(hour) > 23 or int(minute) > 59:
            return None
        if zone and zone != "Z":
            sign = -1 if zone[0] == "+" else 1
            start += sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        low = _microseconds(start)
    except (ValueError, OverflowError):
        return None
    if fraction:
        digits = fraction[1:7]
        low += int(digits.ljust(6, "0"))
        width = 10 ** (6 - len(digits))
    return low, low + width


def _calendar_range(start: datetime, month: str | None, day: str | None) -> tuple[int, int]:
    low = _microseconds(start)
    if day is not None:
        return low, low + _DAY
    if month is not None:
        days = ((start.replace(day=28) + timedelta(days=4)).replace(day=1) - start).days if start.month < 12 else 31
        return low, low + days * _DAY
    leap = start.year % 4 == 0 and (start.year % 100 != 0 or start.year % 400 == 0)
    return low, low + (366 if leap else 365) * _DAY


def period_range(period: dict[str, object]) -> tuple[int, int] | None:
    """Range of a Period; an open end reaches for ever."""
    start, end = period.get("start"), period.get("end")
    low = date_range(start) if isinstance(start, str) else None
    high = date_range(end) if isinstance(end, str) else None
    if low is None and high is None:
        return None
    return (low[0] if low else BEGINNING, high[1] if high else END)
