"""The gateway with everything real around it: Orthanc and its plug-in, PostgreSQL, FHIR and authorization server."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.routing import Mount

from dicomweb.app import DicomWebService
from fhir_server.app import FhirService
from fhir_server.app import migrate as migrate_fhir
from foramen.identity.app import IdentityService, bootstrap
from foramen.identity.app import migrate as migrate_identity
from foramen.identity.oauth.operator_token import operator_token
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import NotAuthenticatedError
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.tokens import TokenVerifier
from foramen.supervisor.ports import free_port
from terminology import systems
from tests.builders.dicom import MULTIPART, Orthanc, encoded, multipart, private_orthanc
from tests.builders.patience import patience
from tests.builders.tokens import ORIGIN, bearer, verifier

READ = "user/ImagingStudy.rs"
WRITE = "user/ImagingStudy.crs user/Task.u"


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    home = Path(tempfile.mkdtemp(prefix="foramen-test-dicomweb-"))
    with private_orthanc(home, port=free_port(), public_url=ORIGIN) as running:
        yield running
    shutil.rmtree(home, ignore_errors=True)


@dataclass
class Gateway:
    """The service with an HTTP client in front of it and the record beside it."""

    service: DicomWebService
    http: httpx.AsyncClient
    record: FhirClient
    orthanc: Orthanc
    fhir: FhirService

    @property
    def reader(self) -> dict[str, str]:
        return bearer(READ)

    async def get(self, path: str, scope: str = READ, accept: str | None = None, **claims: Any) -> httpx.Response:
        # Published URLs name the public origin; the tests talk to the port behind it.
        path = path.removeprefix(f"{ORIGIN}/dicom-web")
        headers = bearer(scope, **claims) | ({"Accept": accept} if accept else {})
        return await self.http.get(path, headers=headers)

    async def store(
        self, *datasets: Any, path: str = "/studies", scope: str = WRITE, claims: dict[str, str] | None = None
    ) -> httpx.Response:
        parts = [item if isinstance(item, bytes) else encoded(item) for item in datasets]
        headers = bearer(scope, **(claims or {})) | {"Content-Type": MULTIPART}
        return await self.http.post(path, content=multipart(*parts), headers=headers)

    async def add_patient(
        self, dicom_patient_id: str, identity: str, issuer: str = "DEMO", institution: str | None = None
    ) -> None:
        identifier = {"system": f"{systems.IDENTIFIER_PATIENT}/{issuer}", "value": dicom_patient_id}
        managed = {"managingOrganization": {"reference": f"Organization/{institution}"}} if institution else {}
        await self.record.update({"resourceType": "Patient", "id": identity, "identifier": [identifier], **managed})

    async def add_workitem(self, dataset: Any, patient: str) -> None:
        """A Task about the dataset's study; as a workitem it has the UID of the instance."""
        uids = {"workitem": dataset.SOPInstanceUID, "study": dataset.StudyInstanceUID}
        named = {name: {"system": systems.DICOM_UID, "value": f"urn:oid:{uid}"} for name, uid in uids.items()}
        task = {"resourceType": "Task", "status": "requested", "intent": "order", "authoredOn": "2026-01-05"}
        about = {"for": {"reference": f"Patient/{patient}"}, "groupIdentifier": named["study"]}
        await self.record.create(task | about | {"identifier": [named["workitem"]]})

    async def audit_events(self, trace_id: str) -> list[dict[str, Any]]:
        """The events of one trace among the newest thousand (one page: links to further ones name the public origin).

        Delivering events is audited too, so a burst of calls soon pushes one beyond a page of a hundred.
        """
        page = self.record.search_pages("AuditEvent", [("_sort", "-date"), ("_count", "1000")])
        newest = [event async for event, _ in _take(page, 1000)]
        return [event for event in newest if event.get("entity", [{}])[0].get("description") == trace_id]

    async def tasks(self, study: str) -> list[dict[str, Any]]:
        return await self.record.search("Task", [("group-identifier", f"{systems.DICOM_UID}|urn:oid:{study}")])

    async def imaging_studies(self, study: str) -> list[dict[str, Any]]:
        return await self.record.search("ImagingStudy", [("identifier", f"{systems.DICOM_UID}|urn:oid:{study}")])

    async def register(self, study: str) -> None:
        await self.service.intake.register_study(study, "0" * 32)

    async def until(self, condition: Callable[[], Awaitable[Any]], timeout_s: float = 20.0) -> Any:
        deadline = time.monotonic() + patience(timeout_s)
        while not (found := await condition()):
            assert time.monotonic() < deadline, "it did not happen in time"
            await asyncio.sleep(0.1)
        return found


async def _take(items: AsyncIterator[Any], count: int) -> AsyncIterator[tuple[Any, int]]:
    number = 0
    async for item in items:
        number += 1
        yield item, number
        if number == count:
            return


class EitherVerifier:
    """Takes the tests' own tokens, which the gateway hands on to the record, and those of the identity service."""

    def __init__(self, *verifiers: TokenVerifier) -> None:
        self._verifiers = verifiers

    def verify(self, token: str) -> AccessContext:
        *first, last = self._verifiers
        for one in first:
            with contextlib.suppress(NotAuthenticatedError):
                return one.verify(token)
        return last.verify(token)


@pytest.fixture(scope="module")
def institutions() -> str:
    """FORAMEN_INSTITUTIONS; a module may say otherwise."""
    return "shared"


@pytest.fixture(scope="module")
async def gateway(orthanc: Orthanc, module_database_url: str, institutions: str) -> AsyncIterator[Gateway]:
    async with running_gateway(orthanc, module_database_url, institutions) as running:
        yield running


@contextlib.asynccontextmanager
async def running_gateway(orthanc: Orthanc, url: str, institutions: str = "shared") -> AsyncIterator[Gateway]:
    """Run the gateway with everything around it for a while; `url` is of its database."""
    settings = orthanc.settings.model_copy(update={"institutions": institutions})
    await asyncio.to_thread(migrate_fhir, url)
    await asyncio.to_thread(migrate_identity, url)
    await asyncio.to_thread(bootstrap, settings, url)
    identity = IdentityService(settings, url)
    both = cast(TokenVerifier, EitherVerifier(verifier(), identity.verifier()))
    fhir = FhirService(settings, url, both)
    service = DicomWebService(settings, url, verifier())
    mounts = [Mount("/auth", identity.app), Mount("/fhir", fhir.app), Mount("/dicom-web", service.app)]
    mounted = Starlette(routes=mounts)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await mounted({**scope, "path": "/fhir/"} if scope.get("path") == "/fhir" else scope, receive, send)

    server = Server(app, "127.0.0.1", settings.port, interface=Interfaces.ASGINL, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    for part in (identity, fhir, service):
        await part.start()
    bearer_token = operator_token(settings, None, "system/*.cruds", expires_in_s=3600)
    record_http = httpx.AsyncClient(headers={"Authorization": f"Bearer {bearer_token}"}, timeout=60, trust_env=False)
    http = httpx.AsyncClient(base_url=f"{settings.internal_origin}/dicom-web", timeout=60, trust_env=False)
    async with http, record_http:
        record = FhirClient(f"{settings.internal_origin}/fhir", record_http)
        yield Gateway(service, http, record, orthanc, fhir)
    for part in (service, fhir, identity):
        await part.stop()
    server.stop()
    await asyncio.wait([serving], timeout=5)
    serving.cancel()
