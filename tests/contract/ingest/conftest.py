"""The image database with everything real around it: Orthanc, PostgreSQL, FHIR, DICOMweb, sign-in (SYNTHETIC)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from granian.constants import Interfaces
from granian.server.embed import Server
from pydicom import Dataset
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import Mount

from dicomweb.app import DicomWebService
from dicomweb.migrations import migrate as migrate_dicomweb
from fhir_server.app import FhirService
from fhir_server.app import migrate as migrate_fhir
from foramen.app import Measured
from foramen.identity.app import IdentityService, bootstrap, ensure_user
from foramen.identity.app import migrate as migrate_identity
from foramen.identity.database import transaction
from foramen.identity.oauth.operator_token import operator_token
from foramen.identity.people import passwords
from foramen.identity.people.accounts import require_account
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.rights.permissions import GRANT, change_permission
from foramen.image_database.app import image_database_routes
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.settings import Settings
from foramen.supervisor.ports import free_port
from terminology import systems
from tests.builders.browser import Browser, forms_of
from tests.builders.dicom import Orthanc, encoded, private_orthanc
from tests.contract.smart.people import PASSWORD, otp_of

MOUNT = "/apps/images"
DOCTOR, READER, HELPER = "north-doctor", "south-doctor", "north-helper"
KEEPER = "keeper"
"""A system administrator: made by `Site.keeper`, and in no institution."""
ACCOUNTS = {  # name: (role, institution, Practitioner, Patient)
    DOCTOR: ("physician", "north", "dr-north", None),
    READER: ("physician", "south", "dr-south", None),
    HELPER: ("assistant", "north", None, None),
    "scientist": ("researcher", "north", None, None),
    "builder": ("engineer", "north", None, None),
    "ill": ("patient", "north", None, "p1"),
}


class ImageBrowser(Browser):
    """A browser that stays on pages of the image database, too."""

    async def _follow(self, response: httpx.Response) -> httpx.Response:
        self.redirected_to = None
        while response.is_redirect:
            target = str(response.next_request.url) if response.next_request else response.headers["location"]
            if not target.startswith((f"{self.origin}/auth/", f"{self.origin}{MOUNT}")):
                self.redirected_to = target
                return response
            response = await self.http.get(target)
        self.page = response
        return response

    async def csrf(self) -> str:
        """The token of this session's forms."""
        return forms_of((await self.http.get("/auth/account")).text)[0].fields["csrf"]

    async def send(
        self, files: dict[str, bytes], *, path: str = "/upload", csrf: str | None = None, **fields: str
    ) -> httpx.Response:
        """Send the upload form."""
        data = {"csrf": await self.csrf() if csrf is None else csrf, **fields}
        parts = [("files", (name, BytesIO(content), "application/octet-stream")) for name, content in files.items()]
        return await self.http.post(f"{MOUNT}{path}", data=data, files=parts)


@dataclass
class Site:
    """What a test works with."""

    settings: Settings
    database_url: str
    record: FhirClient
    dicomweb: DicomWebService
    orthanc: Orthanc
    browsers: dict[str, ImageBrowser] = field(default_factory=dict)

    def browser(self, **headers: str) -> ImageBrowser:
        http = httpx.AsyncClient(
            base_url=self.settings.origin, headers={"accept-language": "en", **headers}, timeout=120, trust_env=False
        )
        return ImageBrowser(http, self.settings.origin)

    async def signed_in(self, name: str) -> ImageBrowser:
        """A browser in which `name` is signed in."""
        if name not in self.browsers:
            browser = self.browser()
            await browser.open("/auth/login?then=account")
            page = await browser.submit(username=name, password=PASSWORD)
            assert str(page.url).endswith("/auth/account"), page.text
            self.browsers[name] = browser
        return self.browsers[name]

    async def keeper(self) -> ImageBrowser:
        """A browser in which a system administrator is signed in, with a second factor."""
        if KEEPER not in self.browsers:
            ensure_user(self.database_url, KEEPER, PASSWORD, "system-administrator", None, None)
            browser = self.browser()
            await browser.open("/auth/login?then=account")
            page = await browser.submit(username=KEEPER, password=PASSWORD)
            await browser.submit(code=otp_of(page.text).now())
            self.browsers[KEEPER] = browser
        return self.browsers[KEEPER]

    def execute(self, statement: str, **values: Any) -> list[Any]:
        with transaction(self.database_url) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    async def add_patient(self, identity: str, number: str, institution: str = "north") -> None:
        identifier = {"system": f"{systems.IDENTIFIER_PATIENT}/DEMO", "value": number}
        managed = {"reference": f"Organization/{institution}"}
        await self.record.update(
            {"resourceType": "Patient", "id": identity, "identifier": [identifier], "managingOrganization": managed}
        )

    async def stored(self, *datasets: Dataset, name: str = DOCTOR) -> str:
        """Send DICOM files by the upload page, register the study, and return its UID."""
        browser = await self.signed_in(name)
        answer = await browser.send({f"{number}.dcm": encoded(item) for number, item in enumerate(datasets)})
        assert answer.status_code == 200, answer.text
        study = str(datasets[0].StudyInstanceUID)
        await self.dicomweb.intake.register_study(study, "0" * 32)
        return study

    async def until(self, condition: Callable[[], Awaitable[Any]], timeout_s: float = 20.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := await condition()):
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    home = Path(tempfile.mkdtemp(prefix="foramen-test-ingest-"))
    port = free_port()
    with private_orthanc(home, port=port, stable_study_s=1) as running:
        yield running
    shutil.rmtree(home, ignore_errors=True)


def grant(database_url: str, name: str, permission: str) -> None:
    with transaction(database_url) as connection:
        account = require_account(connection, name)
        change_permission(connection, account, permission, GRANT, reason="test", decided_by="test")


@pytest.fixture(scope="module")
def changed_settings() -> dict[str, Any]:
    """Settings that a module wants otherwise."""
    return {}


@pytest.fixture(scope="module")
async def site(orthanc: Orthanc, module_database_url: str, changed_settings: dict[str, Any]) -> AsyncIterator[Site]:
    settings, url = orthanc.settings.model_copy(update=changed_settings), module_database_url
    hasher, passwords._PASSWORDS = passwords._PASSWORDS, PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    for step in (migrate_fhir, migrate_identity, migrate_dicomweb):
        await asyncio.to_thread(step, url)
    await asyncio.to_thread(bootstrap, settings, url)
    for institution in ("north", "south"):
        ensure_institution(
            url, institution, f"合成市{institution}医院（SYNTHETIC）", f"{institution} hospital (SYNTHETIC)"
        )
    for name, (role, institution, practitioner, patient) in ACCOUNTS.items():
        ensure_user(url, name, PASSWORD, role, practitioner, institution, patient=patient)
    grant(url, DOCTOR, "manage-images")
    identity = IdentityService(settings, url)
    fhir = FhirService(settings, url, identity.verifier())
    dicomweb = DicomWebService(settings, url, identity.verifier())
    mounts = [Mount("/auth", identity.app), *image_database_routes(identity, settings)]
    app = Starlette(routes=[*mounts, Mount("/fhir", fhir.app), Mount("/dicom-web", dicomweb.app)])
    server = Server(Measured(app), "127.0.0.1", settings.port, interface=Interfaces.ASGINL, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    for part in (identity, fhir, dicomweb):
        await part.start()
    token = operator_token(settings, None, "system/*.cruds", expires_in_s=3600)
    http = httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)
    found = Site(settings, url, FhirClient(f"{settings.internal_origin}/fhir", http), dicomweb, orthanc)
    async with http:
        yield found
    for browser in found.browsers.values():
        await browser.http.aclose()
    for part in (dicomweb, fhir, identity):
        await part.stop()
    server.stop()
    await asyncio.wait([serving], timeout=5)
    serving.cancel()
    passwords._PASSWORDS = hasher
