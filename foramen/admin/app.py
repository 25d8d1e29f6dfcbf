"""Composition root of the administration app, mounted at `/apps/admin` beside the authorization server.

It has no state of its own: database, keys and audit delivery are those of the identity service (ADR 0025).
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from foramen.admin.guard import handler
from foramen.admin.layout import message_page
from foramen.admin.page import MOUNT
from foramen.admin.routes import PAGES
from foramen.identity.app import IdentityService
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import Environment
from foramen.identity.forwarded import Forwarded, parse_proxies
from foramen.kernel.settings import Settings


def build(env: Callable[[], Environment], settings: Settings) -> Starlette:
    """Build the app on the environment of an identity service."""

    async def absent(request: Request, _: Exception) -> Response:
        return message_page(env(), request, 404, "not_found")

    return Starlette(
        routes=[Route(page.path, handler(env, page, PAGES), methods=list(page.methods)) for page in PAGES],
        middleware=[Middleware(Forwarded, parse_proxies(settings.trusted_proxies))],
        exception_handlers={404: absent},
    )


def admin_routes(identity: IdentityService, settings: Settings) -> list[BaseRoute]:
    """Return the routes to mount: the app, and its address without the slash at the end."""

    async def with_slash(_: Request) -> Response:
        return redirect(f"{MOUNT}/")

    app = build(lambda: identity.environment, settings)
    return [Route(MOUNT, with_slash), Mount(MOUNT, app)]
