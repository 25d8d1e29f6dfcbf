"""Opaque next links: where a page ended, as the values of its sort keys, so that writes in between move nothing.

https://hl7.org/fhir/R4/http.html#paging
"""

from __future__ import annotations

import base64
import binascii

import orjson

from foramen.kernel.errors import InvalidRequestError

_MAX_KEYS = 12


def encode(keys: list[object]) -> str:
    """Write a cursor."""
    return base64.urlsafe_b64encode(orjson.dumps(keys)).decode().rstrip("=")


def decode(text: str) -> tuple[object, ...]:
    """Read a cursor.

    Raises
    ------
    InvalidRequestError
        Not one that this server made.
    """
    try:
        keys = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, orjson.JSONDecodeError, ValueError) as exc:
        raise InvalidRequestError("The page link is damaged", issue_code="value") from exc
    if not isinstance(keys, list) or not 0 < len(keys) <= _MAX_KEYS:
        raise InvalidRequestError("The page link is damaged", issue_code="value")
    if not all(isinstance(key, str | int | float) and not isinstance(key, bool) for key in keys):
        raise InvalidRequestError("The page link is damaged", issue_code="value")
    return tuple(keys)
