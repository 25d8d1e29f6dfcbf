"""Authorization server and FHIR API behind a real socket, for clients that bring their own HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from fhir_server.app import FhirService
from fhir_server.app import migrate as migrate_fhir
from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.oauth.operator_token import operator_token
from foramen.kernel.settings import Settings
from tests.contract.smart.conftest import PASSWORD, PATIENTS


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def live_server(database_url: str, home: Path) -> AsyncIterator[tuple[Settings, str]]:
    """Serve identity, the FHIR API and the callback of a foreign app; gives settings and the callback URL."""
    settings = Settings(home=home, port=free_port())
    callback = f"http://localhost:{settings.port}/foreign/callback"  # another origin than 127.0.0.1
    migrate_fhir(database_url)
    migrate(database_url)
    bootstrap(settings, database_url)
    ensure_user(database_url, "surgeon", PASSWORD, "physician", "dr1")
    scope = "launch launch/patient openid fhirUser profile online_access offline_access patient/*.rs user/*.rs"
    scope += " launch/encounter user/Observation.u user/CarePlan.cu"
    with transaction(database_url) as connection:
        foreign = Client("foreign", PUBLIC, scope, (callback,), callback, "康复随访", "Rehab follow-up")
        save_client(connection, foreign)
    service = IdentityService(settings, database_url)
    fhir = FhirService(settings, database_url, service.verifier())
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", service.openid_configuration),
            Route("/fhir/.well-known/smart-configuration", service.smart_configuration),
            Route("/foreign/callback", _callback),
            Mount("/auth", service.app),
            Mount("/fhir", fhir.app),
        ]
    )
    server = Server(app, address="127.0.0.1", port=settings.port, interface=Interfaces.ASGINL, log_enabled=False)
    await service.start()
    await fhir.start()
    task = asyncio.create_task(server.serve())
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            break
    await _load_patients(settings, database_url)
    try:
        yield settings, callback
    finally:
        server.stop()
        await task
        await fhir.stop()
        await service.stop()


async def _load_patients(settings: Settings, database_url: str) -> None:
    token = operator_token(settings, database_url, "system/Patient.cruds system/Encounter.cruds")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
    async with httpx.AsyncClient(base_url=settings.fhir_base, headers=headers) as http:
        for patient in PATIENTS:
            resource = {"resourceType": "Patient", "id": patient, "name": [{"text": f"SYN {patient}"}]}
            response = await http.put(f"/Patient/{patient}", json=resource)
            assert response.status_code in (200, 201), response.text
        visit = {"resourceType": "Encounter", "id": "visit", "status": "finished", "class": {"code": "AMB"}}
        visit |= {"type": [{"text": "SYN 脊柱外科门诊"}], "period": {"start": "2026-11-20", "end": "2026-11-20"}}
        response = await http.put("/Encounter/visit", json=visit | {"subject": {"reference": "Patient/p2"}})
        assert response.status_code in (200, 201), response.text


async def _callback(request: Request) -> Response:
    return HTMLResponse("<title>back at the app</title>")
