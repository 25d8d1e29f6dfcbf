"""Browser apps of other origins may call: CORS, as SMART asks of the servers it launches apps against.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#considerations-for-cross-origin-resource-sharing-cors-support;
https://fetch.spec.whatwg.org/#http-cors-protocol. Tokens travel in a header, never in cookies: any origin may ask.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EXPOSED = (
    *("Accept-Ranges", "Content-Length", "Content-Location", "Content-Range", "ETag", "Retry-After", "Warning"),
    *("WWW-Authenticate", "X-Total-Count"),
)
MARKS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", ", ".join(_EXPOSED).encode()),
]
_PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "accept, authorization, content-type, if-none-match, if-range, range, traceparent",
    "Access-Control-Max-Age": "600",
}


class CrossOrigin:
    """ASGI middleware: answers preflights, which carry no token and show nothing, and marks every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and any(
            name == b"access-control-request-method" for name, _ in scope["headers"]
        ):
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *MARKS]}
            await send(message)

        await self._app(scope, receive, marked)
