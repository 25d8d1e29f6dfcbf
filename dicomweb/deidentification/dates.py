"""Dates moved by whole days, in the forms DICOM has: DA, DT, and times left as they are.

DICOM PS3.5 §6.2 (DA, DT, TM), PS3.15 E.3.6 (Retain Longitudinal Temporal Information with Modified Dates).
"""

from __future__ import annotations

import re
from datetime import date, timedelta

_DAY = re.compile(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)")  # ACR-NEMA wrote 1993.08.22
_INSTANT = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d{2,6}(?:\.\d{1,6})?)?([+-]\d{4})?")
_TIME = re.compile(r"\d{2}(?::?\d{2}(?::?\d{2}(?:\.\d{1,6})?)?)?")


def _moved(year: str, month: str | None, day: str | None, days: int) -> str | None:
    """Move a date of any precision from its middle; None when there is no such day."""
    try:
        moved = date(int(year), int(month or 7), int(day or (15 if month else 1))) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    text = f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
    return text[: 8 if day else 6 if month else 4]


def moved_date(text: str, days: int) -> str | None:
    """Move a DA value; None: it is no date, and goes."""
    match = _DAY.fullmatch(text.strip())
    return None if match is None else _moved(match[1], match[2], match[3], days)


def moved_instant(text: str, days: int) -> str | None:
    """Move a DT value, its time of day, zone and precision left; None: it is none."""
    match = _INSTANT.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, time, zone = match.groups()
    moved = _moved(year, month, day, days)
    return None if moved is None else moved + (time or "" if day else "") + (zone or "")


def kept_time(text: str) -> str | None:
    """Return a TM value as it is; None: it is no time (and could be anything)."""
    return text.strip() if _TIME.fullmatch(text.strip()) else None
