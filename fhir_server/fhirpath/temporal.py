"""Dates, times and their precision: FHIRPath Date, DateTime and Time.

http://hl7.org/fhirpath/N1/#comparison (precision), http://hl7.org/fhirpath/N1/#datetime-arithmetic
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache

_TEXT = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?)?(?P<t>T)?"
    r"(?:(?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?)?)?(?P<zone>Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_TIME = re.compile(r"T?(?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?)?", re.ASCII)
_MICRO = 1_000_000
_DAY = 86_400 * _MICRO
# A DateTime without an offset lies somewhere in -12:00 … +14:00.
_EARLIER, _LATER = 14 * 3600 * _MICRO, 12 * 3600 * _MICRO
_DIGITS = {"Date": (4, 6, 8), "DateTime": (4, 6, 8, 10, 12, 14), "Time": (2, 4, 6)}
_MAX_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Temporal:
    """A Date, DateTime or Time as precise as it was written.

    Attributes
    ----------
    parts : year, month, day, hour, minute, microseconds of the minute (Time: from hour on), as many as were given
    offset : minutes east of UTC, None when not given
    digits : number of digits of the fraction of the second
    """

    kind: str
    parts: tuple[int, ...]
    offset: int | None = None
    digits: int = 0

    @property
    def precision(self) -> int:
        """Number of digits, as ``precision()`` counts them."""
        return _DIGITS[self.kind][len(self.parts) - 1] + self.digits

    def text(self) -> str:
        """ISO 8601 text, without the @ (and without the T of a Time)."""
        count = 0 if self.kind == "Time" else 3
        day = "-".join([f"{self.parts[0]:04}", *(f"{part:02}" for part in self.parts[1:count])]) if count else ""
        clock = [f"{part:02}" for part in self.parts[count : count + 2]]
        if len(self.parts) == count + 3:
            second, micro = divmod(self.parts[-1], _MICRO)
            fraction = f".{micro:06}000000"[: 1 + self.digits] if self.digits else ""
            clock.append(f"{second:02}{fraction}")
        if not clock:
            return day
        zone = ""
        if self.offset is not None:
            sign, minutes = "-" if self.offset < 0 else "+", abs(self.offset)
            zone = f"{sign}{minutes // 60:02}:{minutes % 60:02}" if minutes else "Z"
        return (f"{day}T" if day else "") + ":".join(clock) + zone

    def interval(self) -> tuple[int, int]:
        """First and last microsecond that the value may mean (of the day for Time), at its offset or as if in UTC."""
        parts = self.parts
        if self.kind == "Time":
            start, length = 0, _DAY
        else:
            year = parts[0]
            month = parts[1] if len(parts) > 1 else 1
            day = parts[2] if len(parts) > 2 else 1
            start = date(year, month, day).toordinal() * _DAY - (self.offset or 0) * 60 * _MICRO
            days = (365 + calendar.isleap(year), calendar.monthrange(year, month)[1], 1)[min(len(parts), 3) - 1]
            length = days * _DAY
            parts = parts[3:]
        for part, unit in zip(parts, (3600 * _MICRO, 60 * _MICRO, 1), strict=False):
            start += part * unit
            length = unit
        return start, start + length - 1


def _offset(zone: str | None) -> int | None:
    if zone is None:
        return None
    if zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    return -minutes if zone[0] == "-" else minutes


@lru_cache(maxsize=4096)
def parse_temporal(text: str, kind: str) -> Temporal | None:
    """Read ISO 8601 text as a Date, DateTime or Time; None when it is none."""
    match = (_TIME if kind == "Time" else _TEXT).fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    group = match.groupdict()
    if kind == "Date" and (group["t"] or group["hour"] or group["zone"]):
        return None
    if group.get("hour") and not group.get("t") and kind == "DateTime":
        return None
    if kind == "DateTime" and group["zone"] and not group["hour"]:
        return None
    names = ("hour", "minute") if kind == "Time" else ("year", "month", "day", "hour", "minute")
    parts = [int(group[name]) for name in names if group[name] is not None]
    fraction = (group["fraction"] or "")[:6]
    if group["second"] is not None:
        parts.append(int(group["second"]) * _MICRO + int(fraction.ljust(6, "0") or 0))
    clock = parts if kind == "Time" else parts[3:]
    try:
        if kind != "Time":
            date(parts[0], parts[1] if len(parts) > 1 else 1, parts[2] if len(parts) > 2 else 1)
    except ValueError:
        return None
    # 24:00 is not allowed; a leap second is.
    if any(part >= limit for part, limit in zip(clock, (24, 60, 61 * _MICRO), strict=False)):
        return None
    return Temporal(kind, tuple(parts), _offset(group.get("zone")), len(fraction))


def parse_literal(text: str) -> Temporal | None:
    """Read a literal with its @."""
    if text.startswith("@T"):
        return parse_temporal(text[2:], "Time")
    return parse_temporal(text[1:], "DateTime" if "T" in text else "Date")


def from_datetime(at: datetime, kind: str) -> Temporal:
    """`now()`, `today()` or `timeOfDay()` of a clock."""
    clock = (at.hour, at.minute, at.second * _MICRO + at.microsecond // 1000 * 1000)
    if kind == "Time":
        return Temporal("Time", clock, None, 3)
    day = (at.year, at.month, at.day)
    if kind == "Date":
        return Temporal("Date", day)
    shift = at.utcoffset()
    return Temporal("DateTime", day + clock, None if shift is None else int(shift.total_seconds()) // 60, 3)


def compare(left: Temporal, right: Temporal) -> int | None:
    """Return -1, 0 or 1; None when their precisions (or a missing offset) leave it open."""
    if (left.kind == "Time") != (right.kind == "Time"):
        return None
    (low, high), (other_low, other_high) = left.interval(), right.interval()
    if left.kind != "Time":
        if left.offset is None and right.offset is not None:
            low, high = low - _EARLIER, high + _LATER
        elif right.offset is None and left.offset is not None:
            other_low, other_high = other_low - _EARLIER, other_high + _LATER
    if high < other_low:
        return -1
    if low > other_high:
        return 1
    same_zone = (left.offset is None) == (right.offset is None)
    return 0 if same_zone and len(left.parts) == len(right.parts) and low == other_low else None


def is_comparable_kind(left: Temporal, right: Temporal) -> bool:
    """Whether both are points in time, or both times of day."""
    return (left.kind == "Time") == (right.kind == "Time")


_CALENDAR = {"year": 12, "month": 1}
_EXACT = {
    "week": 7 * _DAY,
    "day": _DAY,
    "hour": 3600 * _MICRO,
    "minute": 60 * _MICRO,
    "second": _MICRO,
    "millisecond": 1000,
}
UCUM_DURATIONS = {"wk": "week", "d": "day", "h": "hour", "min": "minute", "s": "second", "ms": "millisecond"}


def calendar_unit(unit: str) -> str | None:
    """Name of a calendar duration, by its word or its UCUM code; None for any other ('a' and 'mo' are others)."""
    word = unit.removesuffix("s") if len(unit) > 2 else unit
    return word if word in _CALENDAR or word in _EXACT else UCUM_DURATIONS.get(unit)


def add(moment: Temporal, amount: int, unit: str, micro: int = 0) -> Temporal | None:
    """Add a calendar duration; None when the result is out of range.

    Parameters
    ----------
    amount : whole units of `unit` (a singular word of `calendar_unit`)
    micro : microseconds on top, for fractions of seconds
    """
    if moment.kind == "Time":
        return _add_to_time(moment, amount, unit, micro)
    try:
        if unit in _CALENDAR:
            return _add_months(moment, amount * _CALENDAR[unit])
        return _add_exact(moment, amount * _EXACT[unit] + micro)
    except (ValueError, OverflowError):
        return None


def _add_months(moment: Temporal, months: int) -> Temporal:
    parts = list(moment.parts)
    if len(parts) == 1:
        parts[0] += int(months / 12)
        date(parts[0], 1, 1)
        return replace(moment, parts=tuple(parts))
    year, month = divmod(parts[0] * 12 + parts[1] - 1 + months, 12)
    date(year, month + 1, 1)
    parts[:2] = [year, month + 1]
    if len(parts) > 2:
        parts[2] = min(parts[2], calendar.monthrange(year, month + 1)[1])
    return replace(moment, parts=tuple(parts))


def _add_exact(moment: Temporal, micro: int) -> Temporal:
    count = len(moment.parts)
    if count < 3:
        # A coarser value moves by whole units of its own precision: months of 30, years of 365 days.
        return _add_months(moment, int(micro / _DAY / 30) if count == 2 else int(micro / _DAY / 365) * 12)
    start, _ = replace(moment, offset=None).interval()
    # Only whole units of the value's own precision move it: a day is not moved by 7 hours.
    unit = (_DAY, 3600 * _MICRO, 60 * _MICRO, 1)[min(count, 6) - 3]
    start += (abs(micro) // unit * unit) * (1 if micro >= 0 else -1)
    days, rest = divmod(start, _DAY)
    day = date.fromordinal(days)
    hour, rest = divmod(rest, 3600 * _MICRO)
    minute, rest = divmod(rest, 60 * _MICRO)
    digits = moment.digits if rest % _MICRO == 0 or moment.digits >= 3 else 3
    return replace(moment, parts=(day.year, day.month, day.day, hour, minute, rest)[:count], digits=digits)


def _add_to_time(moment: Temporal, amount: int, unit: str, micro: int) -> Temporal | None:
    if unit not in ("hour", "minute", "second", "millisecond"):
        return None
    start, _ = moment.interval()
    hour, rest = divmod((start + amount * _EXACT[unit] + micro) % _DAY, 3600 * _MICRO)
    minute, rest = divmod(rest, 60 * _MICRO)
    digits = moment.digits if rest % _MICRO == 0 or moment.digits >= 3 else 3
    return replace(moment, parts=(hour, minute, rest)[: len(moment.parts)], digits=digits)


def boundary(moment: Temporal, precision: int, *, high: bool) -> Temporal | None:
    """``lowBoundary(precision)`` and ``highBoundary(precision)``; None for a precision the type does not have."""
    counts = _DIGITS[moment.kind]
    finest = counts[-1]
    if precision not in counts and precision != finest + 3:
        return None
    parts = list(moment.parts)
    if moment.kind == "DateTime" and len(parts) == 4:
        parts.append(0)  # FHIR has no hour without minutes: 08 stands for 08:00.
    while len(parts) < len(counts):
        parts.append(_bound(moment.kind, parts, high))
    if moment.kind != "Date" and high and len(moment.parts) == len(counts):
        parts[-1] += 10 ** (6 - moment.digits) - 1 if moment.digits < 3 else 0
    count = counts.index(min(precision, finest)) + 1
    digits = 3 if precision > finest else 0
    if count == len(counts) and moment.kind != "Date":
        scale = 1000 if digits else _MICRO
        parts[-1] = parts[-1] // scale * scale
    offset = moment.offset
    if moment.kind == "DateTime":
        offset = None if count <= 3 else offset if offset is not None else (-720 if high else 840)
    return Temporal(moment.kind, tuple(parts[:count]), offset, digits)


def _bound(kind: str, parts: list[int], high: bool) -> int:
    position = len(parts) + (3 if kind == "Time" else 0)
    if not high:
        return 1 if position < 3 else 0
    if position == 2:
        return calendar.monthrange(parts[0], parts[1])[1]
    return {1: 12, 3: 23, 4: 59}.get(position, 60 * _MICRO - 1)
