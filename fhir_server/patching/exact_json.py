"""JSON read and written so that every number keeps its text: 1.00 stays 1.00.

https://hl7.org/fhir/R4/json.html#primitive, https://hl7.org/fhir/R4/datatypes.html#decimal
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson

from foramen.kernel.errors import InvalidRequestError

_MAX_DIGITS = 15


class ExactNumber(Decimal):
    """A number of JSON with its text."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> ExactNumber:
        """Keep the text beside the value."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def _whole(text: str) -> int | ExactNumber:
    return ExactNumber(text) if len(text) > _MAX_DIGITS or text == "-0" else int(text)


def load(text: bytes) -> Any:
    """Parse JSON whose depth was checked.

    Raises
    ------
    InvalidRequestError
        Not JSON.
    """
    try:
        return json.loads(text, parse_float=ExactNumber, parse_int=_whole, parse_constant=_refused)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError("The body is not valid JSON in UTF-8", issue_code="structure") from exc


def _refused(_: str) -> Any:
    raise ValueError("NaN and Infinity are not JSON")


def _written(value: Any) -> orjson.Fragment:
    if isinstance(value, ExactNumber):
        return orjson.Fragment(value.text)
    raise TypeError


def dump(value: Any) -> bytes:
    """Write JSON.

    Raises
    ------
    InvalidRequestError
        Nested too deep, or a string that is no Unicode text.
    """
    try:
        return orjson.dumps(value, default=_written)
    except orjson.JSONEncodeError as exc:
        raise InvalidRequestError("The JSON is nested too deep or not valid Unicode", issue_code="too-long") from exc


def equal(left: Any, right: Any) -> bool:
    """Whether two values are equal as JSON (RFC 6902 §4.6): numbers by value, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, (dict, list)) or isinstance(right, (dict, list)):
        return False
    return bool(left == right)


def prune(value: Any, name: str = "") -> Any:
    """Take out what is left empty, as FHIR knows no empty objects and lists; returns None for an empty one.

    Parameters
    ----------
    name : the member it lies in; in a list beside primitives (``_given``) an empty object becomes null, which holds
        its place
    """
    if isinstance(value, dict):
        for key, item in list(value.items()):
            if isinstance(item, (dict, list)) and prune(item, key) is None:
                del value[key]
        return value or None
    if isinstance(value, list):
        kept = [prune(item) if isinstance(item, (dict, list)) else item for item in value]
        if not name.startswith("_"):
            kept = [new for old, new in zip(value, kept, strict=True) if new is not None or old is None]
        value[:] = kept if any(item is not None for item in kept) else []
        return value or None
    return value
