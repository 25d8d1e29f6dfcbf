"""Composition root of the image database, mounted at `/apps/images` beside the authorization server.

It has no state and no database of its own: images and record are reached over HTTP with the person's rights (ADR 0037).
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from foramen.identity.app import IdentityService
from foramen.identity.environment import Environment
from foramen.identity.framed.mounting import app_of, mounted
from foramen.image_database.guard import DOOR
from foramen.image_database.layout import message_page
from foramen.image_database.page import MOUNT
from foramen.image_database.routes import PAGES
from foramen.kernel.settings import Settings


def build(env: Callable[[], Environment], settings: Settings) -> Starlette:
    """Build the app on the environment of an identity service."""

    def absent(request: Request) -> Response:
        return message_page(env(), request, 404, "not_found")

    pages = {page.path: (DOOR.handler(env, page, PAGES), list(page.methods)) for page in PAGES}
    return app_of(pages, absent, settings, unknown=(404, 405))


def image_database_routes(identity: IdentityService, settings: Settings) -> list[BaseRoute]:
    """Return the routes to mount."""
    return mounted(MOUNT, build(lambda: identity.environment, settings))
