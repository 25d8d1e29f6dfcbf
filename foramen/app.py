"""Composition root of the web process: every service on one origin, or one alone (`foramen serve --only`).

The only place where the concrete services are built.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foramen.admin.app import admin_routes
from foramen.identity.app import IdentityService
from foramen.image_database.app import image_database_routes
from foramen.kernel.database_url import database_url as resolve_database_url
from foramen.kernel.log import configure_log, get_log
from foramen.kernel.settings import Settings, get_settings
from foramen.launcher.app import launcher_routes

SERVICES = ("identity", "fhir", "dicomweb", "apps")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUESTS = Counter("foramen_http_requests_total", "HTTP requests", ["service", "method", "status"])
_SECONDS = Histogram("foramen_http_request_seconds", "Time to answer an HTTP request", ["service"])


class Service(Protocol):
    """What every mounted service offers."""

    app: Any

    async def start(self) -> None:
        """Open connections and start background work."""

    async def stop(self) -> None:
        """Finish what was acknowledged and close."""

    async def ready(self) -> bool:
        """Whether requests can be served now."""


class Measured:
    """ASGI middleware that counts and times requests by service; labels never hold a path or an id."""

    def __init__(self, app: ASGIApp, fhir: ASGIApp | None = None, dicomweb: ASGIApp | None = None) -> None:
        self._app = app
        self._fhir = fhir or app
        self._dicomweb = dicomweb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path == "/fhir":  # the base itself: transactions are posted there, and a mount needs the slash
            path = "/fhir/"
            scope = {**scope, "path": path, "raw_path": b"/fhir/"}
        first = path.split("/", 2)[1] or "portal"
        service = first if first in ("fhir", "auth", "dicom-web", "apps", "portal") else "other"
        # The record answers thousands of requests a second: they skip the walk through the routes.
        app = self._fhir if service == "fhir" and not path.startswith("/fhir/.well-known/") else self._app
        if service == "dicom-web" and self._dicomweb is not None and path != "/dicom-web":  # So do a study's frames.
            root = scope.get("root_path", "")
            app, scope = self._dicomweb, {**scope, "app_root_path": root, "root_path": f"{root}/dicom-web"}
        began, status = time.perf_counter(), 500

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, observe)
        finally:
            counter, seconds = _series(service, scope["method"] if scope["method"] in _METHODS else "other", status)
            counter.inc()
            seconds.observe(time.perf_counter() - began)


@lru_cache(maxsize=512)
def _series(service: str, method: str, status: int) -> tuple[Any, Any]:
    return _REQUESTS.labels(service, method, str(status)), _SECONDS.labels(service)


def create(settings: Settings | None = None, only: str | None = None) -> ASGIApp:
    """Build the web application.

    Parameters
    ----------
    settings : settings of this process; read from the environment when absent
    only : one of `SERVICES` to mount that service alone; None mounts all
    """
    settings = settings or get_settings()
    configure_log(settings.log_level, "web")
    identity, services, routes = _build_services(settings, resolve_database_url(settings), only)

    async def readyz(_: Request) -> Response:
        states = await asyncio.gather(*(service.ready() for service in services.values()), return_exceptions=True)
        parts = dict(zip(services, (state is True for state in states), strict=True))
        return JSONResponse({"ready": all(parts.values()), "parts": parts}, 200 if all(parts.values()) else 503)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        for service in services.values():
            await service.start()
        if "identity" not in services:
            identity.watch_revocations()
        get_log().info("web started", count=len(services))
        yield
        for service in reversed(services.values()):
            await service.stop()
        if "identity" not in services:
            await identity.stop()

    health: list[BaseRoute] = [
        Route("/healthz", _healthz),
        Route("/readyz", readyz),
        Route("/metrics", _metrics),
    ]
    fhir: ASGIApp | None = None
    if "fhir" in services:
        from fhir_server.formats.compression import Compression

        fhir = Compression(services["fhir"].app)
    app: ASGIApp = Starlette(routes=[*health, *routes], lifespan=lifespan)
    dicomweb = services["dicomweb"].app if "dicomweb" in services else None
    return Measured(identity.with_direct(app) if "identity" in services else app, fhir, dicomweb)


def _build_services(
    settings: Settings, database_url: str, only: str | None
) -> tuple[IdentityService, dict[str, Service], list[BaseRoute]]:
    """Build the wanted services and their routes; identity always exists, as it holds the verifier's key."""

    def wanted(name: str) -> bool:
        return only is None or only == name

    services: dict[str, Service] = {}
    routes: list[BaseRoute] = []
    identity = IdentityService(settings, database_url)
    if wanted("identity"):
        services["identity"] = identity
        routes += [
            Route("/.well-known/openid-configuration", _endpoint(identity.openid_configuration)),
            Route("/fhir/.well-known/smart-configuration", _endpoint(identity.smart_configuration)),
            Mount("/auth", identity.app),
            *admin_routes(identity, settings),
            *launcher_routes(identity, settings),
            *image_database_routes(identity, settings),
        ]
    if wanted("fhir"):
        from fhir_server.app import FhirService

        services["fhir"] = FhirService(settings, database_url, identity.verifier())
    if wanted("dicomweb"):
        from dicomweb.app import DicomWebService

        services["dicomweb"] = DicomWebService(settings, database_url, identity.verifier())
        routes.append(Mount("/dicom-web", services["dicomweb"].app))
    if wanted("apps"):
        from smart_apps.server import build_app

        routes.append(Mount("/", build_app(settings)))
    return identity, services, routes


def _endpoint(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Give a bound method the plain-function form that routes expect."""

    async def endpoint(request: Request) -> Response:
        return await handler(request)

    return endpoint


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def migrate(settings: Settings) -> None:
    """Bring every schema up to date and register our own clients; harmless to repeat."""
    from ai_services.models.migrations import migrate as migrate_models
    from ai_services.models.versions import ModelRegistry
    from dicomweb.migrations import migrate as migrate_dicomweb
    from fhir_server.app import migrate as migrate_fhir
    from foramen.identity.app import bootstrap
    from foramen.identity.app import migrate as migrate_identity

    url = resolve_database_url(settings)
    migrate_fhir(url)
    migrate_identity(url)
    migrate_dicomweb(url)
    migrate_models(url)
    ModelRegistry(url, settings.home).take_in_what_came_with_the_software()
    bootstrap(settings, url)
