"""The HTTP edge every service shares: trace id, bearer token to AccessContext, limits on bodies.

RFC 6750; W3C Trace Context (traceparent).
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.tokens import TokenVerifier, bearer_token

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")


def header(request: Request, name: bytes) -> str | None:
    """Return a header by its lower-case name; cheaper than the mapping when few are asked for."""
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def trace_id_of(request: Request) -> str:
    """Take the trace id of an incoming `traceparent`, or make one."""
    sent = header(request, b"traceparent")
    match = _TRACEPARENT.match(sent) if sent else None
    return match.group(1) if match else new_trace_id()


def authenticate(request: Request, verifier: TokenVerifier) -> AccessContext:
    """Return the access context of a request.

    Raises
    ------
    NotAuthenticatedError
        No token or one that is not valid.
    """
    return verifier.verify(bearer_token(header(request, b"authorization")))


class ReadyResponse(Response):
    """An answer whose header lines are ready, lengths included: nothing is looked up or encoded again."""

    def __init__(self, body: bytes, headers: list[tuple[bytes, bytes]], status_code: int = 200) -> None:
        self.status_code = status_code
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), *headers]


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read the whole body, stopping as soon as it passes the limit.

    Raises
    ------
    PayloadTooLargeError
        More than `limit_bytes` were announced or sent.
    InvalidRequestError
        Less than announced was sent.
    """
    announced = header(request, b"content-length") or ""
    if announced.isdigit() and int(announced) > limit_bytes:
        raise PayloadTooLargeError(f"The body is larger than {limit_bytes} bytes")
    parts: list[bytes] = []
    length = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":  # Nobody may read it, but the audit shall tell whose fault it was.
            raise InvalidRequestError("The body is cut off", issue_code="incomplete")
        part = message.get("body", b"")
        length += len(part)
        if length > limit_bytes:
            raise PayloadTooLargeError(f"The body is larger than {limit_bytes} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
