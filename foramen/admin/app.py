"""Composition root of the administration app, mounted at `/apps/admin` beside the authorization server.

It has no state of its own: database, keys and audit delivery are those of the identity service (ADR 0025).
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from foramen.admin.guard import DOOR
from foramen.admin.layout import message_page
from foramen.admin.page import MOUNT
from foramen.admin.routes import PAGES
from foramen.identity.app import IdentityService
from foramen.identity.environment import Environment
from foramen.identity.framed.mounting import app_of, mounted
from foramen.kernel.settings import Settings


def build(env: Callable[[], Environment], settings: Settings) -> Starlette:
    """Build the app on the environment of an identity service."""

    def absent(request: Request) -> Response:
        return message_page(env(), request, 404, "not_found")

    pages = {page.path: (DOOR.handler(env, page, PAGES), list(page.methods)) for page in PAGES}
    return app_of(pages, absent, settings)


def admin_routes(identity: IdentityService, settings: Settings) -> list[BaseRoute]:
    """Return the routes to mount."""
    return mounted(MOUNT, build(lambda: identity.environment, settings))
