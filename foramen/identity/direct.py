"""The two endpoints of every sign-in, answered without the walk through mounts, routes and middleware, which costs more
than their SQL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handle = Callable[[Request], Awaitable[Response]]


def answering(handle: Handle) -> ASGIApp:
    """Return a handler as a route has it, which raises nothing, as an ASGI application."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handle(Request(scope, receive, send))
        await response(scope, receive, send)

    return answer


class Direct:
    """ASGI application: what is named goes the short way, all else to the application with the routes.

    Parameters
    ----------
    named : (method, whole path) → application
    """

    def __init__(self, named: dict[tuple[str, str], ASGIApp], otherwise: ASGIApp) -> None:
        self._named, self._otherwise = named, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        app = self._named.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (app or self._otherwise)(scope, receive, send)
