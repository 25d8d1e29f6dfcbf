"""Send a request of a trial to this server itself, over HTTP as any app would, and keep request and answer."""

from __future__ import annotations

from typing import Any

import httpx
import orjson

from foramen.identity.database import utc_now
from foramen.identity.environment import Environment
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.settings import Settings
from foramen.launcher.steps import HttpRequest
from foramen.launcher.trials import Exchange

_TIMEOUT_S = 20
_MOST_BYTES = 24 * 1024
_SHOWN = ("content-type", "location", "www-authenticate", "cache-control", "pragma", "retry-after", "etag")


def internal_url(settings: Settings, url: str) -> str:
    """Return where our own processes reach a published URL of ours.

    Raises
    ------
    InvalidRequestError
        The URL is not ours: the launcher asks no other server.
    """
    if not url.startswith(f"{settings.origin}/"):
        raise InvalidRequestError("The launcher sends requests to this server only")
    return f"{settings.internal_origin}{url.removeprefix(settings.origin)}"


async def send(env: Environment, step: str, request: HttpRequest, *, faulty: bool = False) -> Exchange:
    """Send a request, never with the person's cookies; redirects are shown, not followed.

    No answer is an exchange too, with status 0: that is not the same as an answer that refuses.
    """
    exchange = recorded(step, request, faulty=faulty)
    async with httpx.AsyncClient(
        timeout=_TIMEOUT_S, transport=env.transport, trust_env=False, follow_redirects=False
    ) as http:
        try:
            async with http.stream(
                request.method,
                internal_url(env.settings, request.url),
                headers=request.headers,
                content=request.body,
            ) as response:
                body = await _beginning(response)
        except httpx.HTTPError as error:
            exchange.answer = type(error).__name__
            return exchange
    exchange.status = response.status_code
    exchange.answer_headers = {name: response.headers[name] for name in _SHOWN if name in response.headers}
    exchange.answer = body
    return exchange


def recorded(step: str, request: HttpRequest, *, sender: str = "server", faulty: bool = False) -> Exchange:
    """Return the exchange of a request whose answer is not there yet."""
    at = utc_now().isoformat(timespec="milliseconds")
    return Exchange(
        step,
        request.method,
        request.url,
        dict(request.headers),
        dict(request.form) if request.form is not None else None,
        sender=sender,
        faulty=faulty,
        at=at,
    )


async def _beginning(response: httpx.Response) -> str:
    """Read at most so much of an answer; what is cut off is said."""
    parts, length = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        length += len(part)
        if length > _MOST_BYTES:
            return b"".join(parts)[:_MOST_BYTES].decode("utf-8", "replace") + "\n…"
    return b"".join(parts).decode("utf-8", "replace")


def json_of(exchange: Exchange) -> dict[str, Any]:
    """Return the answer as a JSON object; an empty one when it is none."""
    try:
        content = orjson.loads(exchange.answer)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
