"""Split search values: escapes, prefixes, numbers with their implied precision.

https://hl7.org/fhir/R4/search.html §3.1.1.4.0.1 (escaping), #prefix, #number
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from fhir_server.search.conditions import Range
from fhir_server.search.dates import date_range
from foramen.kernel.errors import InvalidRequestError

_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
_MAX_DIGITS = 40


def split(text: str, separator: str) -> list[str]:
    """Split at a separator that no backslash escapes; escapes stay for `unescape`."""
    if "\\" not in text:
        return text.split(separator)
    parts, current, escaped = [], "", False
    for character in text:
        if escaped:
            current += "\\" + character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == separator:
            parts.append(current)
            current = ""
        else:
            current += character
    parts.append(current + "\\" if escaped else current)
    return parts


def unescape(text: str) -> str:
    r"""Resolve ``\,``, ``\|``, ``\$`` and ``\\``."""
    return re.sub(r"\\([,|$\\])", r"\1", text) if "\\" in text else text


def prefixed(text: str) -> tuple[str, str]:
    """Return (prefix, rest); the prefix is ``eq`` when none is written."""
    match = _PREFIXED.fullmatch(text)
    assert match is not None  # noqa: S101 - the pattern matches every text
    return match.group(1) or "eq", match.group(2)


def _bad(parameter: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The value of {parameter} is not a {what}", issue_code="value", expression=(f"http.{parameter}",)
    )


def parse_date(parameter: str, text: str, prefix: str = "") -> Range:
    """Parse ``[prefix]date``; with a `prefix` of the caller's, the text has none."""
    prefix, rest = (prefix, text) if prefix else prefixed(text)
    # A plus sign in an unescaped query string arrives as a blank.
    found = date_range(re.sub(r" (?=\d{2}:\d{2}$)", "+", rest))
    if found is None:
        raise _bad(parameter, "date")
    low, high = found
    if prefix == "ap":
        now = int(datetime.now(UTC).timestamp() * 1_000_000)
        gap = abs(now - low) // 10
        low, high = low - gap, high + gap
    return Range(prefix, low, high)


def parse_number(parameter: str, text: str) -> Range:
    """Parse ``[prefix]number``: 100 means [99.5, 100.5) under eq, ne and ap, and itself under the others."""
    prefix, rest = prefixed(text)
    try:
        number = Decimal(rest)
    except InvalidOperation as exc:
        raise _bad(parameter, "number") from exc
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or len(rest) > _MAX_DIGITS or abs(number.adjusted()) > 300:
        raise _bad(parameter, "number")
    if prefix not in ("eq", "ne", "ap"):
        return Range(prefix, float(number), float(number))
    half = Decimal(5).scaleb(exponent - 1)
    if prefix == "ap":
        half = max(half, abs(number) / 10)
    return Range(prefix, float(number - half), float(number + half))
