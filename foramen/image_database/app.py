"""Composition root of the image database, mounted at `/apps/images` beside the authorization server.

It has no state and no database of its own: images and record are reached over HTTP with the person's rights (ADR 0037).
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from foramen.identity.app import IdentityService
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import Environment
from foramen.identity.forwarded import Forwarded, parse_proxies
from foramen.image_database.guard import handler
from foramen.image_database.layout import message_page
from foramen.image_database.page import MOUNT
from foramen.image_database.routes import PAGES
from foramen.kernel.settings import Settings


def build(env: Callable[[], Environment], settings: Settings) -> Starlette:
    """Build the app on the environment of an identity service."""

    async def absent(request: Request, _: Exception) -> Response:
        return message_page(env(), request, 404, "not_found")

    return Starlette(
        routes=[Route(page.path, handler(env, page, PAGES), methods=list(page.methods)) for page in PAGES],
        middleware=[Middleware(Forwarded, parse_proxies(settings.trusted_proxies))],
        exception_handlers={404: absent, 405: absent},
    )


def image_database_routes(identity: IdentityService, settings: Settings) -> list[BaseRoute]:
    """Return the routes to mount: the app, and its address without the slash at the end."""

    async def with_slash(_: Request) -> Response:
        return redirect(f"{MOUNT}/")

    return [Route(MOUNT, with_slash), Mount(MOUNT, build(lambda: identity.environment, settings))]
