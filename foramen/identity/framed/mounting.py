"""Routes of an app of plain pages, mounted beside the authorization server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from foramen.identity.endpoints.authorize import redirect
from foramen.identity.forwarded import Forwarded, parse_proxies
from foramen.kernel.settings import Settings

PageHandler = Callable[[Request], Awaitable[Response]]


def app_of(
    pages: Mapping[str, tuple[PageHandler, list[str]]],
    absent: Callable[[Request], Response],
    settings: Settings,
    *,
    unknown: tuple[int, ...] = (404,),
) -> Starlette:
    """Build the app.

    Parameters
    ----------
    pages : path below the app → handler and methods
    absent : the page for an address that is none
    unknown : statuses of Starlette that it stands for
    """

    async def nowhere(request: Request, _: Exception) -> Response:
        return absent(request)

    return Starlette(
        routes=[Route(path, handle, methods=methods) for path, (handle, methods) in pages.items()],
        middleware=[Middleware(Forwarded, parse_proxies(settings.trusted_proxies))],
        exception_handlers=dict.fromkeys(unknown, nowhere),
    )


def mounted(mount: str, app: Starlette) -> list[BaseRoute]:
    """Return the routes to mount: the app, and its address without the slash at the end."""

    async def with_slash(_: Request) -> Response:
        return redirect(f"{mount}/")

    return [Route(mount, with_slash), Mount(mount, app)]
