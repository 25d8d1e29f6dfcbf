"""The FHIR API as a client sees it, on a real service and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from fhir_server.app import FhirService, migrate
from foramen.kernel.outcome import FHIR_JSON
from foramen.kernel.settings import Settings
from terminology.codes import AI_GENERATED
from tests.builders.tokens import ORIGIN, bearer, verifier

EVERYTHING = "system/*.cruds"


class Api:
    """The FHIR API as one client sees it."""

    def __init__(self, http: httpx.AsyncClient, scope: str = EVERYTHING, **claims: Any) -> None:
        self.http = http
        self.headers = {**_names(bearer(scope, **claims)), "accept": FHIR_JSON}

    def as_(self, scope: str, **claims: Any) -> Api:
        """The same server, another token."""
        return Api(self.http, scope, **claims)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers={**self.headers, **_names(headers)})

    async def send(self, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {**self.headers, "content-type": FHIR_JSON, **_names(headers)}
        return await self.http.request(method, path, content=content, headers=sent)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.send("POST", path, body, **headers)

    async def put(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.send("PUT", path, body, **headers)

    async def delete(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.delete(path, headers={**self.headers, **_names(headers)})

    async def create(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Create and return what the server answers."""
        response = await self.post(f"/fhir/{resource['resourceType']}", resource)
        assert response.status_code == 201, response.text
        return response.json()

    async def put_ok(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Write under the resource's own id."""
        response = await self.put(f"/fhir/{resource['resourceType']}/{resource['id']}", resource)
        assert response.status_code in (200, 201), response.text
        return response.json()

    async def ids(self, path: str) -> list[str]:
        """Ids of the matches of a search, in order, over all pages."""
        found: list[str] = []
        url: str | None = f"/fhir/{path}"
        while url is not None:
            response = await self.get(url)
            assert response.status_code == 200, response.text
            bundle = response.json()
            found += [e["resource"]["id"] for e in bundle.get("entry", []) if e["search"]["mode"] == "match"]
            url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
        return found

    async def transaction(self, *entries: dict[str, Any], kind: str = "transaction", **headers: str) -> httpx.Response:
        body = {"resourceType": "Bundle", "type": kind, **({"entry": list(entries)} if entries else {})}
        return await self.post("/fhir/", body, **headers)


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").lower(): value for name, value in headers.items()}


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert an error with its status and issue code; returns the OperationOutcome."""
    assert response.status_code == status, response.text
    outcome: dict[str, Any] = response.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["code"] == code, outcome
    return outcome


def entry(
    method: str, url: str, resource: dict[str, Any] | None = None, full_url: str = "", **request: str
) -> dict[str, Any]:
    """One Bundle entry."""
    built: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if resource is not None:
        built["resource"] = resource
    if full_url:
        built["fullUrl"] = full_url
    return built


@asynccontextmanager
async def running(database_url: str) -> AsyncIterator[tuple[FhirService, httpx.AsyncClient]]:
    """Start the service and give an HTTP client for it."""
    migrate(database_url)
    service = FhirService(Settings(port=8000), database_url, verifier())
    await service.start()
    app = Starlette(routes=[Route("/fhir", service.app), Mount("/fhir", service.app)])
    transport = httpx.ASGITransport(app=app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            yield service, client
    finally:
        await service.stop()


def patient_resource() -> dict[str, Any]:
    """A synthetic patient."""
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "https://foramen.example/fhir/identifier/patient/TEST", "value": "SYN-1"}],
        "name": [{"family": "Muster", "given": ["Anna"]}],
        "gender": "female",
        "birthDate": "1980-02-29",
    }


def observation(patient: str, code: str = "F01", date: str = "2026-01-05T10:00:00Z", **more: Any) -> dict[str, Any]:
    """An Observation with a code, a subject and a date."""
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "code": {"coding": [{"system": "https://foramen.example/fhir/CodeSystem/finding", "code": code}]},
        "subject": {"reference": patient},
        "effectiveDateTime": date,
        **more,
    }


def ai_observation(patient: str, **more: Any) -> dict[str, Any]:
    """An Observation that a model made, as Foramen's profile wants it."""
    tag = {"system": AI_GENERATED.system, "code": AI_GENERATED.code}
    made = {"meta": {"tag": [tag]}, "device": {"reference": "Device/model"}, "valueString": "SYNTHETIC"}
    return observation(patient, **{**made, **more})
