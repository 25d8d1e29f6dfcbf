"""Read OAuth parameters from a query or a form: once each, text only, small.

RFC 6749 §3.1, §3.2: a parameter must not be included more than once.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl

from starlette.requests import Request

from foramen.kernel.errors import InvalidRequestError, UnsupportedMediaTypeError
from foramen.kernel.http_edge import read_body

MAX_FORM_BYTES = 64 * 1024
_MAX_FIELDS = 64
_CONTROL, _CONTROL_IN_LINES = re.compile(r"[\x00-\x1f]"), re.compile(r"[\x00-\x09\x0b-\x1f]")
_FORM = "application/x-www-form-urlencoded"


def parse(encoded: str, most: int = _MAX_FIELDS, lines: Collection[str] = ()) -> dict[str, str]:
    """Parse url-encoded parameters; empty values count as absent (RFC 6749 §3.1).

    Parameters
    ----------
    most : parameters there may be
    lines : names of those that may have several lines; these come back with a line feed between them

    Raises
    ------
    InvalidRequestError
        A parameter is repeated, or holds something that is not text.
    """
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, errors="strict", max_num_fields=most)
    except ValueError as exc:
        raise InvalidRequestError("The parameters cannot be decoded") from exc
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)):
        raise InvalidRequestError("A parameter is repeated")
    pairs = [(name, text.replace("\r\n", "\n") if name in lines else text) for name, text in pairs]
    if any(
        _CONTROL.search(name) or (_CONTROL_IN_LINES if name in lines else _CONTROL).search(text) for name, text in pairs
    ):
        raise InvalidRequestError("A parameter holds a control character")
    return {name: value for name, value in pairs if value}


async def form_parameters(request: Request, most: int = _MAX_FIELDS, lines: Collection[str] = ()) -> dict[str, str]:
    """Read the parameters of a form body, up to so many; `lines` as in `parse`.

    Raises
    ------
    UnsupportedMediaTypeError
        The body is not a form.
    InvalidRequestError
        The body cannot be decoded.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaTypeError(f"The body must be {_FORM}", issue_code="not-supported")
    body = await read_body(request, MAX_FORM_BYTES)
    try:
        return parse(body.decode("ascii"), most, lines)
    except UnicodeDecodeError as exc:
        raise InvalidRequestError("The body is not url-encoded") from exc


def query_parameters(request: Request) -> dict[str, str]:
    """Read the parameters of the query."""
    return parse(request.url.query)


def client_address(request: Request) -> str | None:
    """Address of the peer, for the audit."""
    return request.client.host if request.client else None
