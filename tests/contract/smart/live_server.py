"""The same authorization server behind a real socket, for clients that bring their own HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.clients import PUBLIC, Client, save_client
from foramen.identity.database import transaction
from foramen.kernel.settings import Settings
from tests.contract.smart.conftest import PASSWORD, FhirEnd

_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def live_server(database_url: str, home: Path) -> AsyncIterator[tuple[Settings, str]]:
    """Serve identity, a small FHIR end and the callback of a foreign app; gives settings and the callback URL."""
    settings = Settings(home=home, port=free_port())
    callback = f"http://localhost:{settings.port}/foreign/callback"  # another origin than 127.0.0.1
    migrate(database_url)
    bootstrap(settings, database_url)
    ensure_user(database_url, "surgeon", PASSWORD, "physician", "dr1")
    scope = "launch launch/patient openid fhirUser profile online_access offline_access patient/*.rs user/*.rs"
    with transaction(database_url) as connection:
        foreign = Client("foreign", PUBLIC, scope, (callback,), callback, "康复随访", "Rehab follow-up")
        save_client(connection, foreign)
    fhir = FhirEnd()
    service = IdentityService(settings, database_url)
    fhir.service = service
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", service.openid_configuration),
            Route("/fhir/.well-known/smart-configuration", service.smart_configuration),
            Route("/fhir/metadata", _metadata(settings)),
            Route("/foreign/callback", _callback),
            Mount("/auth", service.app),
            *fhir.app().routes,
        ]
    )
    server = Server(app, address="127.0.0.1", port=settings.port, interface=Interfaces.ASGINL, log_enabled=False)
    await service.start()
    task = asyncio.create_task(server.serve())
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            break
    try:
        yield settings, callback
    finally:
        server.stop()
        await task
        await service.stop()


def _metadata(settings: Settings):
    uris = [("authorize", "authorize"), ("token", "token")]
    extension = [{"url": name, "valueUri": f"{settings.origin}/auth/{path}"} for name, path in uris]
    statement = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-01-01",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [{"mode": "server", "security": {"extension": [{"url": _OAUTH_URIS, "extension": extension}]}}],
    }

    async def metadata(request: Request) -> Response:
        return JSONResponse(statement, media_type="application/fhir+json")

    return metadata


async def _callback(request: Request) -> Response:
    return HTMLResponse("<title>back at the app</title>")
