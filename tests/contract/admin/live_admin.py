"""The administration app with the authorization server and the FHIR API behind a real socket, filled (SYNTHETIC)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from granian.constants import Interfaces
from granian.server.embed import Server
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.routing import Mount

from fhir_server.app import FhirService
from fhir_server.app import migrate as migrate_fhir
from foramen.admin.app import admin_routes
from foramen.app import Measured
from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.operator_token import operator_token
from foramen.identity.people import passwords
from foramen.identity.people.accounts import require_account
from foramen.identity.people.sessions import start_session
from foramen.identity.rights.delegations import delegate
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.rights.permissions import GRANT, WITHDRAW, change_permission
from foramen.kernel.settings import Settings
from tests.builders.watches import watch_reports
from tests.contract.admin.conftest import ACCOUNTS
from tests.contract.smart.live_server import free_port
from tests.contract.smart.people import PASSWORD


@asynccontextmanager
async def live_admin(database_url: str, home: Path, **values: Any) -> AsyncIterator[Settings]:
    """Serve all three; yields the settings, of which `values` differ from the defaults."""
    hasher, passwords._PASSWORDS = passwords._PASSWORDS, PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    settings = Settings(home=home, port=free_port(), **values)
    migrate_fhir(database_url)
    migrate(database_url)
    bootstrap(settings, database_url)
    _people(database_url)
    service = IdentityService(settings, database_url)
    fhir = FhirService(settings, database_url, service.verifier())
    app = Starlette(routes=[Mount("/auth", service.app), *admin_routes(service, settings), Mount("/fhir", fhir.app)])
    # The base of the record without its slash, as the web process answers it: audit events are posted there.
    server = Server(
        Measured(app), address="127.0.0.1", port=settings.port, interface=Interfaces.ASGINL, log_enabled=False
    )
    await service.start()
    await fhir.start()
    task = asyncio.create_task(server.serve())
    await _answers(settings.port)
    await _record(settings, database_url)
    try:
        yield settings
    finally:
        server.stop()
        await task
        await fhir.stop()
        await service.stop()
        passwords._PASSWORDS = hasher


async def _answers(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _people(database_url: str) -> None:
    ensure_institution(database_url, "north", "合成市第一医院（SYNTHETIC）", "First Hospital (SYNTHETIC)")
    ensure_institution(database_url, "south", "合成市第二医院（SYNTHETIC）", "Second Hospital (SYNTHETIC)")
    for name, (role, institution, practitioner, patient) in ACCOUNTS.items():
        ensure_user(database_url, name, PASSWORD, role, practitioner, institution, patient=patient)
    with transaction(database_url) as connection:
        _decisions(connection)


def _decisions(connection: Connection) -> None:
    """Grants, a withdrawal, a loan and sessions, so that no page is empty."""
    now = utc_now()
    doctor, helper = require_account(connection, "north-doctor"), require_account(connection, "north-helper")
    change_permission(
        connection,
        doctor,
        "annotate",
        GRANT,
        reason="标注第 7 项研究",
        decided_by="boss",
        until=now + timedelta(days=5),
    )
    change_permission(connection, doctor, "verify-ai", WITHDRAW, reason="training not renewed", decided_by="boss")
    delegate(
        connection,
        doctor,
        helper,
        "plan-care",
        until=now + timedelta(days=9),
        reason="leave",
        longest=timedelta(days=30),
    )
    agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36"
    for name in ("north-doctor", "south-doctor"):
        start_session(connection, name, None, now, address="192.0.2.7", device=agent)


async def _record(settings: Settings, database_url: str) -> None:
    token = operator_token(settings, database_url, "system/*.cruds")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
    person = {"resourceType": "Practitioner", "id": "dr-new", "name": [{"text": "SYNTHETIC 新医生"}]}
    hospital = {"resourceType": "Organization", "id": "north", "name": "SYNTHETIC First Hospital"}
    ill = {"resourceType": "Patient", "id": "p1", "managingOrganization": {"reference": "Organization/north"}}
    # A report of somebody else's measure about one patient: no page of ours may show or find it.
    other = {
        "resourceType": "MeasureReport",
        "id": "about-one-patient",
        "status": "complete",
        "type": "individual",
        "measure": "https://elsewhere.example/Measure/1",
        "subject": {"reference": "Patient/p1"},
        "period": {"start": "2026-01-01", "end": "2026-02-01"},
    }
    async with httpx.AsyncClient(base_url=settings.fhir_base, headers=headers) as http:
        for resource in (person, hospital, ill, other, *watch_reports()):
            response = await http.put(f"/{resource['resourceType']}/{resource['id']}", json=resource)
            assert response.status_code in (200, 201), response.text
