"""A real authorization server on a real database, an app that walks its pages, and a FHIR end that checks tokens."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PRIVATE_KEY, PUBLIC, SECRET, Client, save_client
from foramen.identity.people.passwords import hash_client_secret
from foramen.identity.rights.institutions import ensure_institution
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError
from foramen.kernel.http_edge import authenticate
from foramen.kernel.outcome import outcome_response
from foramen.kernel.settings import Settings
from tests.builders.browser import Browser

ORIGIN = "http://127.0.0.1:18999"
PASSWORD = "correct horse battery"
APP = "https://app.example.org/callback"
CLIENT_SECRET = "s3cret-of-the-symmetric-client"
PATIENTS = ("p1", "p2")


def encounter_of(patient: str) -> dict[str, Any]:
    """The one encounter that each patient has; only p1's is listed."""
    found = {"resourceType": "Encounter", "id": f"e-{patient}", "status": "finished"}
    subject = {"reference": f"Patient/{patient}"}
    return {**found, "subject": subject, "type": [{"text": "SYN 门诊"}], "period": {"start": "2026-01-05"}}


@dataclass
class FhirEnd:
    """The FHIR API as far as identity uses it: verifies the token, lists patients, takes AuditEvents."""

    service: IdentityService | None = None
    down: bool = False
    refused: set[str] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)

    def _access(self, request: Request, kind: str, action: str) -> AccessContext:
        assert self.service is not None
        context = authenticate(request, self.service.verifier())
        context.reach(kind, action)
        return context

    async def patients(self, request: Request) -> Response:
        try:
            self._access(request, "Patient", "s")
        except InteropError as error:
            return outcome_response(error)
        entries = [
            {"resource": {"resourceType": "Patient", "id": pid, "name": [{"text": f"SYN {pid}"}]}} for pid in PATIENTS
        ]
        return JSONResponse({"resourceType": "Bundle", "entry": entries}, 503 if self.down else 200)

    async def patient(self, request: Request) -> Response:
        try:
            self._access(request, "Patient", "r")
        except InteropError as error:
            return outcome_response(error)
        known = request.path_params["id"] in PATIENTS
        return JSONResponse({"resourceType": "Patient"}, 200 if known else 404)

    async def encounters(self, request: Request) -> Response:
        try:
            self._access(request, "Encounter", "s")
        except InteropError as error:
            return outcome_response(error)
        patient = request.query_params["patient"]
        entries = [{"resource": encounter_of(patient)}] if patient == "p1" else []
        return JSONResponse({"resourceType": "Bundle", "entry": entries}, 503 if self.down else 200)

    async def encounter(self, request: Request) -> Response:
        try:
            self._access(request, "Encounter", "r")
        except InteropError as error:
            return outcome_response(error)
        patient = request.path_params["id"].removeprefix("e-")
        return JSONResponse(encounter_of(patient), 200 if patient in PATIENTS else 404)

    async def audit(self, request: Request) -> Response:
        try:
            self._access(request, "AuditEvent", "c")
        except InteropError as error:
            return outcome_response(error)
        if self.down:
            return JSONResponse({}, 503)
        entries = orjson.loads(await request.body())["entry"]
        assert all(entry["request"] == {"method": "POST", "url": "AuditEvent"} for entry in entries)
        fine = [entry["resource"]["subtype"][0]["code"] not in self.refused for entry in entries]
        self.events += [entry["resource"] for entry, taken in zip(entries, fine, strict=True) if taken]
        answers = [{"response": {"status": "201" if taken else "422"}} for taken in fine]
        return JSONResponse({"resourceType": "Bundle", "type": "batch-response", "entry": answers})

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/fhir/Patient", self.patients),
                Route("/fhir/Patient/{id}", self.patient),
                Route("/fhir/Encounter", self.encounters),
                Route("/fhir/Encounter/{id}", self.encounter),
                Route("/fhir/", self.audit, methods=["POST"]),
            ]
        )


@dataclass
class Smart:
    """What a test works with."""

    settings: Settings
    service: IdentityService
    app: Starlette
    fhir: FhirEnd
    database_url: str
    client_key: ECKey

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ORIGIN)

    def browser(self) -> Browser:
        return Browser(self.http(), ORIGIN)

    def execute(self, statement: str, **values: Any) -> list[Any]:
        with transaction(self.database_url) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def assertion(self, client_id: str = "asymmetric", *, key: Any = None, alg: str = "ES384", **claims: Any) -> str:
        now = int(time.time())
        body = {
            "iss": client_id,
            "sub": client_id,
            "aud": f"{ORIGIN}/auth/token",
            "exp": now + 240,
            "iat": now,
            "jti": uuid.uuid4().hex,
            **claims,
        }
        key = key or self.client_key
        return jwt.encode({"alg": alg, "kid": str(key.kid), "typ": "JWT"}, body, key, algorithms=[alg])


@dataclass
class App:
    """A SMART app: makes PKCE values, builds the authorization URL, exchanges codes."""

    smart: Smart
    client_id: str
    redirect_uri: str
    scope: str
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    @property
    def challenge(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()

    def parameters(self, **changes: str | None) -> dict[str, str]:
        values: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": self.scope,
            "state": self.state,
            "aud": f"{ORIGIN}/fhir",
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return {key: value for key, value in values.items() if value is not None}

    def url(self, **changes: str | None) -> str:
        return f"{ORIGIN}/auth/authorize?{urlencode(self.parameters(**changes))}"

    async def exchange(self, code: str, **changes: str | None) -> httpx.Response:
        values: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "client_id": self.client_id,
            "code_verifier": self.verifier,
            **changes,
        }
        async with self.smart.http() as http:
            data = {key: value for key, value in values.items() if value is not None}
            return await http.post("/auth/token", data=data)

    async def refresh(self, refresh_token: str, **changes: str) -> httpx.Response:
        data = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": self.client_id, **changes}
        async with self.smart.http() as http:
            return await http.post("/auth/token", data=data)


@pytest.fixture(scope="module")
async def smart(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Smart]:
    """A server with one account of each kind and one client of each kind."""
    home: Path = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, public_url=ORIGIN, session_idle_s=600)
    migrate(module_database_url)
    bootstrap(settings, module_database_url)
    ensure_institution(module_database_url, "inst1")
    ensure_user(module_database_url, "surgeon", PASSWORD, "physician", "dr1", "inst1")
    ensure_user(module_database_url, "other", PASSWORD, "physician", "dr2")
    ensure_user(module_database_url, "research", PASSWORD, "researcher")
    ensure_user(module_database_url, "engineer", PASSWORD, "engineer")
    ensure_user(module_database_url, "ill", PASSWORD, "patient", patient="p1")
    key = ECKey.generate_key("P-384", parameters={"kid": "asym-1"}, private=True)
    _register_clients(module_database_url, key)
    fhir = FhirEnd()
    service = IdentityService(settings, module_database_url, transport=httpx.ASGITransport(fhir.app()))
    fhir.service = service
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", service.openid_configuration, methods=["GET", "OPTIONS"]),
            Route("/fhir/.well-known/smart-configuration", service.smart_configuration, methods=["GET", "OPTIONS"]),
            Mount("/auth", service.app),
        ]
    )
    yield Smart(settings, service, app, fhir, module_database_url, key)
    await service.stop()


def _register_clients(database_url: str, key: ECKey) -> None:
    scope = "launch launch/patient openid fhirUser profile offline_access online_access patient/*.rs user/*.rs"
    jwks: Any = KeySet([key]).as_dict(private=False)
    with transaction(database_url) as connection:
        save_client(
            connection, Client("growth-app", PUBLIC, scope, (APP,), "https://app.example.org/launch", "生长", "Growth")
        )
        save_client(
            connection,
            Client("symmetric", SECRET, f"{scope} system/*.rs", (APP,), secret_hash=hash_client_secret(CLIENT_SECRET)),
        )
        save_client(connection, Client("asymmetric", PRIVATE_KEY, f"{scope} system/Patient.rs", (APP,), jwks=jwks))


@pytest.fixture
def review(smart: Smart) -> App:
    """The first-party app `result-review`."""
    scope = "launch openid fhirUser profile online_access patient/*.rs user/*.rs user/Observation.u"
    return App(smart, "result-review", f"{ORIGIN}/apps/result-review/", scope)


@pytest.fixture
def portal(smart: Smart) -> App:
    """The first-party portal."""
    return App(smart, "portal", f"{ORIGIN}/", "openid fhirUser profile online_access user/*.rs user/Task.rus")


@pytest.fixture
def growth(smart: Smart) -> App:
    """A third party's public app."""
    return App(smart, "growth-app", APP, "launch/patient openid fhirUser offline_access patient/Observation.rs")


async def sign_in(browser: Browser, app: App, name: str = "surgeon", password: str = PASSWORD, **changes: str) -> None:
    """Start an app and sign in on the page that comes."""
    page = await browser.open(app.url(**changes))
    assert 'name="password"' in page.text, page.text
    await browser.submit(username=name, password=password)
