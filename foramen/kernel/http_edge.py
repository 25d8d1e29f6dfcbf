"""The HTTP edge every service shares: trace id, bearer token to AccessContext, limits on bodies.

RFC 6750; W3C Trace Context (traceparent).
"""

from __future__ import annotations

import re

from starlette.requests import Request

from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import PayloadTooLargeError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.tokens import TokenVerifier, bearer_token

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")


def trace_id_of(request: Request) -> str:
    """Take the trace id of an incoming `traceparent`, or make one."""
    match = _TRACEPARENT.match(request.headers.get("traceparent", ""))
    return match.group(1) if match else new_trace_id()


def authenticate(request: Request, verifier: TokenVerifier) -> AccessContext:
    """Return the access context of a request.

    Raises
    ------
    NotAuthenticatedError
        No token or one that is not valid.
    """
    return verifier.verify(bearer_token(request.headers.get("authorization")))


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read the whole body, stopping as soon as it passes the limit.

    Raises
    ------
    PayloadTooLargeError
        More than `limit_bytes` were announced or sent.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise PayloadTooLargeError(f"The body is larger than {limit_bytes} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise PayloadTooLargeError(f"The body is larger than {limit_bytes} bytes")
    return bytes(body)
