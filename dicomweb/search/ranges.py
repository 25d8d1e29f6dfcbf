"""Range matching of dates, times and date-times, alone and combined (PS3.4 §C.2.2.2.5). Pure."""

from __future__ import annotations

import re

from foramen.kernel.errors import InvalidRequestError

_SHAPES = {
    "DA": re.compile(r"\d{8}", re.ASCII),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", re.ASCII),
    "DT": re.compile(r"\d{4}(\d{2}){0,5}(\.\d{1,6})?([+-]\d{4})?", re.ASCII),
}
_LONGEST = 22
DATE_TIME_PAIRS = {
    "00080020": "00080030",  # Study
    "00080021": "00080031",  # Series
    "00080022": "00080032",  # Acquisition
    "00080023": "00080033",  # Content
    "00100030": "00100032",  # Birth
    "00400244": "00400245",  # Performed Procedure Step Start
    "00400250": "00400251",  # Performed Procedure Step End
    "00080012": "00080013",  # Instance Creation
}
"""Dates and the times that belong to them: ranges of both are one range of points in time."""


def is_range(value: str, vr: str) -> bool:
    """Whether a value names a range and not one point."""
    return "-" in value if vr != "DT" else _SHAPES["DT"].fullmatch(value) is None


def bounds(value: str, vr: str, name: str) -> tuple[str, str]:
    """Return the lowest and the highest text that lie in "from-to", "from-", "-to" or one value.

    A bound covers the whole of what it names: 1015 the minute, 2026 (of a DT) the year. Offsets of a DT are left out
    of the comparison.

    Raises
    ------
    InvalidRequestError
        Malformed.
    """
    value = value.replace(":", "") if vr == "TM" else value
    shape = _SHAPES[vr]
    if shape.fullmatch(value):
        low, high = value, value
    else:
        cuts = [match.start() for match in re.finditer("-", value)]
        split = next(((value[:cut], value[cut + 1 :]) for cut in cuts if _both(shape, value, cut)), None)
        if split is None:
            raise InvalidRequestError("A date or time range is malformed", expression=[name])
        low, high = split
    if vr == "DT":
        low, high = (re.sub(r"[+-]\d{4}$", "", part) for part in (low, high))
    return low, (high or "9") + "9" * (_LONGEST - len(high))


def _both(shape: re.Pattern[str], value: str, cut: int) -> bool:
    parts = value[:cut], value[cut + 1 :]
    return any(parts) and all(part == "" or shape.fullmatch(part) for part in parts)
