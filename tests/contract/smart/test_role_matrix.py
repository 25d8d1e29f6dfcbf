"""Every cell of the role × permission matrix: a real sign-in, a real token, a request on the real FHIR API.

A cell "yes" is answered, the same request of a role without the permission is refused. What is granted singly is
granted by name and then answered. Permissions without scopes are asked of the administration service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from fhir_server.app import FhirService
from fhir_server.app import migrate as migrate_fhir
from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.people.accounts import Account, require_account
from foramen.identity.policy import table
from foramen.identity.rights.administration import GRANT_PERMISSIONS, MANAGE_ACCOUNTS, decide
from foramen.identity.rights.delegations import delegate
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.rights.permissions import GRANT, change_permission, rights_of
from foramen.identity.rights.roles import ROLES
from foramen.kernel.settings import Settings
from tests.builders.browser import Browser
from tests.contract.fhir.api import observation, patient_resource
from tests.contract.smart.conftest import APP, ORIGIN, PASSWORD, App

pytestmark = pytest.mark.requirement("identity#roles")
REGISTERED = "user/*.cruds user/AuditEvent.rs patient/*.cruds foramen/admin openid offline_access"
P1 = {"reference": "Patient/p1"}


@dataclass(frozen=True)
class Probe:
    """A request that needs exactly one permission; `status` when it is allowed."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    status: int = 200


def _seen(kind: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": kind, **more}


def _answers(logical_id: str | None = None) -> dict[str, Any]:
    named = {"id": logical_id} if logical_id else {}
    return _seen("QuestionnaireResponse", status="completed", subject=P1, **named)


PLAN = _seen("CarePlan", status="draft", intent="plan", subject=P1)
TASK = _seen("Task", status="requested", intent="order", **{"for": P1})
STUDY = _seen("ImagingStudy", status="available", subject=P1)
REPORT = _seen("DiagnosticReport", id="r1", status="preliminary", code={"text": "SYNTHETIC"}, subject=P1)
PROBES: dict[str, Probe] = {
    "read-identified": Probe("GET", "/fhir/Patient/p1"),
    "read-own-record": Probe("GET", "/fhir/Patient/p1"),
    "verify-ai": Probe("PUT", "/fhir/DiagnosticReport/r1", REPORT),
    "plan-care": Probe("POST", "/fhir/CarePlan", PLAN, 201),
    "record-questionnaires": Probe("POST", "/fhir/QuestionnaireResponse", _answers(), 201),
    "request-analysis": Probe("POST", "/fhir/Task", TASK, 201),
    "manage-images": Probe("POST", "/fhir/ImagingStudy", STUDY, 201),
    "annotate": Probe("POST", "/fhir/Observation", observation("Patient/p1"), 201),
    "operate-devices": Probe("GET", "/fhir/Endpoint"),
    "read-definitions": Probe("GET", "/fhir/CodeSystem?_count=1"),
    "read-directory": Probe("GET", "/fhir/Organization/north"),
    "read-audit": Probe("GET", "/fhir/AuditEvent?_count=1"),
    "maintain-record": Probe("GET", "/fhir/$reindex"),
}
ALSO = {"operate-devices": {"read-directory", "read-identified"}}
"""Other permissions that allow the same request."""
ALSO |= {name: {"read-identified"} for name in ("read-definitions", "read-directory", "read-own-record")}
ALSO |= {"read-identified": {"read-own-record"}}
CELLS = [(role, name) for role in ROLES for name in table("permissions")]
SCOPED = [cell for cell in CELLS if cell[1] in PROBES and cell != ("system-administrator", "maintain-record")]
"""The one left out needs a second factor: test_the_record_is_maintained_with_a_second_factor_only."""


@dataclass
class Server:
    """Identity and FHIR API on one database; one token for each role and single grant."""

    app: Starlette
    database_url: str
    tokens: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ORIGIN)

    async def token(self, role: str, single: str | None = None) -> str:
        """Sign in with an account of the role, with one more permission where `single` names it."""
        if (role, single) not in self.tokens:
            name = f"{role}-{single}" if single else role
            if single:
                _add(self.database_url, name, role)
                with transaction(self.database_url) as connection:
                    account = require_account(connection, name)
                    change_permission(connection, account, single, GRANT, reason="SYNTHETIC", decided_by="root")
            self.tokens[role, single] = await self._sign_in(name, role)
        return self.tokens[role, single]

    async def _sign_in(self, name: str, role: str) -> str:
        browser = await self.browser(name, role)
        return await self.exchange(browser, self.matrix_app(role))

    def matrix_app(self, role: str) -> App:
        scope = "patient/*.cruds openid" if role == "patient" else REGISTERED.replace("patient/*.cruds ", "")
        return App(self, "matrix", APP, scope)  # type: ignore[arg-type]  an App needs its `http` only

    async def browser(self, name: str, role: str) -> Browser:
        """A browser with a signed-in session."""
        browser = Browser(self.http(), ORIGIN)
        await browser.open(self.matrix_app(role).url())
        await browser.submit(username=name, password=PASSWORD)
        return browser

    async def exchange(self, browser: Browser, app: App) -> str:
        """Start an app in a signed-in browser."""
        await browser.open(app.url())
        answer = await app.exchange(browser.answer["code"])
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def ask(self, token: str, probe: Probe) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", "accept": "application/fhir+json"}
        async with self.http() as http:
            return await http.request(probe.method, probe.path, json=probe.body, headers=headers)


def _add(database_url: str, name: str, role: str) -> None:
    practitioner = f"dr-{name}"[:64] if role == "physician" else None
    patient = "p1" if role == "patient" else None
    ensure_user(database_url, name, PASSWORD, role, practitioner, "north", patient=patient)


@pytest.fixture(scope="module")
async def server(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A running installation with one account of each role; second factors are tested elsewhere."""
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        settings = Settings(home=home, public_url=ORIGIN, second_factor_roles="")
        migrate(module_database_url)
        migrate_fhir(module_database_url)
        bootstrap(settings, module_database_url)
        identity = IdentityService(settings, module_database_url)
        fhir = FhirService(settings, module_database_url, identity.verifier())
        await fhir.start()
        app = Starlette(routes=[Route("/fhir", fhir.app), Mount("/fhir", fhir.app), Mount("/auth", identity.app)])
        found = Server(app, module_database_url)
        await _fill(found, identity, module_database_url)
        yield found
        await fhir.stop()
        await identity.stop()


async def _fill(server: Server, identity: IdentityService, database_url: str) -> None:
    ensure_institution(database_url, "north")
    for role in ROLES:
        _add(database_url, role, role)
    with transaction(database_url) as connection:
        save_client(connection, Client("matrix", PUBLIC, REGISTERED, (APP,), first_party=True))
    token = identity._env.signer.access_token(
        subject="setup", client_id="setup", scope="system/*.cruds", now=utc_now()
    ).text
    organization = _seen("Organization", id="north", name="North SYNTHETIC")
    for resource in (organization, {**patient_resource(), "id": "p1"}, {**patient_resource(), "id": "p9"}, REPORT):
        path = f"/fhir/{resource['resourceType']}/{resource['id']}"
        answer = await server.ask(token, Probe("PUT", path, resource))
        assert answer.status_code == 201, answer.text


def test_every_permission_is_tested():
    without = {name for name, one in table("permissions").items() if not one["scopes"]}
    assert without | set(PROBES) == set(table("permissions"))
    assert without & set(PROBES) == set()


def _allowed(role: str, permission: str) -> bool:
    held = set(table("roles")[role])
    return bool(({permission} | ALSO.get(permission, set())) & held)


@pytest.mark.parametrize(("role", "permission"), SCOPED)
async def test_the_fhir_api_answers_as_the_matrix_says(server: Server, role: str, permission: str):
    answer = await server.ask(await server.token(role), PROBES[permission])
    if role == "patient" and answer.status_code in (200, 404):  # reads any type, of the own record alone
        assert all("Patient/p1" in str(entry) for entry in answer.json().get("entry", ()))
    elif _allowed(role, permission):
        assert answer.status_code == PROBES[permission].status, answer.text
    else:
        assert answer.status_code == 403, answer.text


SINGLE = [(role, name) for role, name in SCOPED if name in table("grantable")[role]]


@pytest.mark.parametrize(("role", "permission"), SINGLE)
async def test_a_single_permission_opens_its_requests_and_no_others(server: Server, role: str, permission: str):
    token = await server.token(role, permission)
    answer = await server.ask(token, PROBES[permission])
    assert answer.status_code == PROBES[permission].status, answer.text
    for other in ("read-own-record", "read-audit", "maintain-record"):
        if not _allowed(role, other) and permission not in ALSO.get(other, set()):
            assert (await server.ask(token, PROBES[other])).status_code == 403, other


@pytest.mark.parametrize("role", ["researcher", "engineer", "system-administrator", "institution-administrator"])
@pytest.mark.parametrize("kind", ["Patient", "Observation", "ImagingStudy", "DiagnosticReport", "CarePlan", "Task"])
async def test_who_does_not_treat_reads_no_identified_data(server: Server, role: str, kind: str):
    for path in (f"/fhir/{kind}", f"/fhir/{kind}/p1", f"/fhir/{kind}/_history", f"/fhir/{kind}?_summary=count"):
        answer = await server.ask(await server.token(role), Probe("GET", path))
        assert answer.status_code == 403, (path, answer.text)


async def test_a_patient_reads_the_own_record_and_nobody_elses(server: Server):
    token = await server.token("patient")
    assert (await server.ask(token, Probe("GET", "/fhir/Patient/p9"))).status_code == 404
    found = (await server.ask(token, Probe("GET", "/fhir/Patient"))).json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["p1"]


async def test_the_record_is_maintained_with_a_second_factor_only(server: Server):
    token = await server.token("system-administrator")
    assert (await server.ask(token, PROBES["maintain-record"])).status_code == 403
    browser = await server.browser("system-administrator", "system-administrator")
    with transaction(server.database_url) as connection:
        factors = 'UPDATE identity.session SET factors = \'["password", "totp"]\' WHERE account = :name'
        connection.execute(text(factors), {"name": "system-administrator"})
    token = await server.exchange(browser, server.matrix_app("system-administrator"))
    assert (await server.ask(token, PROBES["maintain-record"])).status_code == 200
    with transaction(server.database_url) as connection:
        for role in ROLES:
            account = require_account(connection, role)
            assert rights_of(connection, account).maintains_record is (role == "system-administrator")


ADMINISTERED = {"manage-accounts": MANAGE_ACCOUNTS, "grant-permissions": GRANT_PERMISSIONS}


@pytest.mark.parametrize(("role", "permission"), [cell for cell in CELLS if cell[1] in ADMINISTERED])
def test_administration_answers_as_the_matrix_says(server: Server, role: str, permission: str):
    with transaction(server.database_url) as connection:
        administrator = require_account(connection, role)
        for institution, reaches in (("north", True), ("south", role == "system-administrator")):
            target = Account("somebody", "physician", institution=institution)
            refused = decide(connection, administrator, ADMINISTERED[permission], target)
            assert (refused == []) is (permission in table("roles")[role] and reaches)


PLAIN = [cell for cell in CELLS if cell[1] not in PROBES and cell[1] not in ADMINISTERED]


@pytest.mark.parametrize(("role", "permission"), PLAIN)
def test_permissions_without_scopes_are_held_as_the_matrix_says(server: Server, role: str, permission: str):
    with transaction(server.database_url) as connection:
        held = rights_of(connection, require_account(connection, role)).permissions
    assert (permission in held) is (permission in table("roles")[role])


async def test_the_audit_of_a_call_names_who_lends(server: Server):
    with transaction(server.database_url) as connection:
        delegate(
            connection,
            require_account(connection, "physician"),
            require_account(connection, "assistant"),
            "read-identified",
            until=utc_now() + timedelta(hours=1),
            reason="SYNTHETIC",
            longest=timedelta(days=1),
        )
    helped = await server.exchange(await server.browser("assistant", "assistant"), server.matrix_app("assistant"))
    assert (await server.ask(helped, Probe("GET", "/fhir/Patient/p9"))).status_code == 200
    reader = await server.token("system-administrator")
    found = (await server.ask(reader, Probe("GET", "/fhir/AuditEvent?_count=50&_sort=-date&action=R"))).json()
    events = [entry["resource"] for entry in found["entry"]]
    named = [[agent.get("altId") for agent in event["agent"]] for event in events]
    assert ["assistant", None, "physician"] in named
    event = events[named.index(["assistant", None, "physician"])]
    assert [agent["requestor"] for agent in event["agent"]] == [True, False, False]
