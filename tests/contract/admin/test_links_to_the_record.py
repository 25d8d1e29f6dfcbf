"""Whom an account may be made to stand for: asked of the real record, and decided by the policy (SYNTHETIC)."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from foramen.admin.page import MOUNT
from foramen.identity.database import transaction
from foramen.identity.oauth.operator_token import operator_token
from foramen.kernel.settings import Settings
from tests.contract.admin.conftest import AdminBrowser
from tests.contract.admin.live_admin import live_admin
from tests.contract.smart.people import PASSWORD, otp_of

pytestmark = pytest.mark.requirement("identity#roles")
REFUSED = "An account stands for a person of your institution only"


@dataclass
class Live:
    """The administration app with a real record behind it, and who administers."""

    settings: Settings
    database_url: str
    browsers: dict[str, AdminBrowser]

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with transaction(self.database_url) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    async def send(self, by: str, path: str, **values: str) -> httpx.Response:
        browser = self.browsers[by]
        await browser.open(f"{MOUNT}{path}")
        return await browser.submit(index=1, **values)


@pytest.fixture(scope="module")
async def live(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    async with live_admin(module_database_url, tmp_path_factory.mktemp("home")) as settings:
        await _record(settings, module_database_url)
        found = Live(settings, module_database_url, {})
        for name in ("boss", "north-admin"):
            found.browsers[name] = await _signed_in(settings, name)
        yield found
        for browser in found.browsers.values():
            await browser.http.aclose()


async def _signed_in(settings: Settings, name: str) -> AdminBrowser:
    http = httpx.AsyncClient(base_url=settings.origin, headers={"accept-language": "en"}, trust_env=False)
    browser = AdminBrowser(http, settings.origin)
    await browser.open("/auth/login?then=account")
    shown = await browser.submit(username=name, password=PASSWORD)
    await browser.submit(code=otp_of(shown.text).now())
    return browser


async def _record(settings: Settings, database_url: str) -> None:
    """Patients and a doctor of each institution, some of none, and roles that do not count."""
    found: list[dict[str, Any]] = [
        {"resourceType": "Organization", "id": name, "name": f"SYNTHETIC {name}"} for name in ("north", "south")
    ]
    for name in ("north", "south"):
        managed = {"managingOrganization": {"reference": f"Organization/{name}"}}
        found.append({"resourceType": "Patient", "id": f"pat-{name}", **managed})
    found.append({"resourceType": "Patient", "id": "pat-none"})
    roles: dict[str, tuple[str, dict[str, Any]]] = {
        "doc-north": ("north", {}),
        "doc-south": ("south", {}),
        "doc-left": ("north", {"active": False}),
        "doc-over": ("north", {"period": {"end": "2020"}}),
        "doc-to-come": ("north", {"period": {"start": "2999-01-01"}}),
    }
    found.append({"resourceType": "Practitioner", "id": "doc-none"})
    for name, (institution, more) in roles.items():
        found.append({"resourceType": "Practitioner", "id": name})
        role = {"practitioner": {"reference": f"Practitioner/{name}"}}
        found.append(
            {
                "resourceType": "PractitionerRole",
                "id": f"role-{name}",
                "organization": {"reference": f"Organization/{institution}"},
                **role,
                **more,
            }
        )
    entries = [
        {"resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}} for one in found
    ]
    token = operator_token(settings, database_url, "system/*.cruds")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        response = await http.post(settings.fhir_base, json=bundle)
        assert response.status_code == 200, response.text


def _new(name: str, reference: str) -> dict[str, str]:
    kind, _, logical_id = reference.partition("/")
    role = "patient" if kind == "Patient" else "physician"
    return {"name": name, "role": role, "institution": "north", kind.lower(): logical_id}


@pytest.mark.parametrize("reference", ["Patient/pat-south", "Patient/pat-none", "Patient/no-such"])
async def test_an_institution_administrator_makes_no_account_for_another_institutions_patient(
    live: Live, reference: str
):
    shown = await live.send("north-admin", "/accounts/new", **_new("intruder", reference))
    assert shown.status_code == 403
    assert REFUSED in shown.text  # the same, whether or not there is such a patient
    assert live.rows("SELECT FROM identity.account WHERE name = 'intruder'") == []


@pytest.mark.parametrize("name", ["doc-south", "doc-none", "doc-left", "doc-over", "doc-to-come"])
async def test_nor_for_a_practitioner_without_a_role_there(live: Live, name: str):
    shown = await live.send("north-admin", "/accounts/new", **_new("intruder", f"Practitioner/{name}"))
    assert (shown.status_code, REFUSED in shown.text) == (403, True)
    assert live.rows("SELECT FROM identity.account WHERE name = 'intruder'") == []


@pytest.mark.parametrize("reference", ["Patient/pat-north", "Practitioner/doc-north"])
async def test_but_for_those_of_the_own_and_the_audit_says_for_whom(live: Live, reference: str):
    name = reference.replace("/", "-").lower()
    shown = await live.send("north-admin", "/accounts/new", **_new(name, reference))
    assert (shown.status_code, "/auth/set-password?token=" in shown.text) == (200, True)
    assert (await _audited(live, name)).endswith(reference)


async def test_an_account_that_is_there_is_given_no_patient_of_another_institution(live: Live):
    """Without a Practitioner, the account would become that patient."""
    values = {"role": "assistant", "institution": "north"}
    shown = await live.send("north-admin", "/accounts/north-helper/edit", **values, patient="pat-south")
    assert (shown.status_code, REFUSED in shown.text) == (403, True)
    assert live.rows("SELECT patient FROM identity.account WHERE name = 'north-helper'")[0][0] is None
    shown = await live.send("north-admin", "/accounts/north-helper/edit", **values, patient="pat-north")
    assert "The account is changed" in shown.text
    assert live.rows("SELECT patient FROM identity.account WHERE name = 'north-helper'")[0][0] == "pat-north"
    assert (await _audited(live, "north-helper")) == "Patient/pat-north"


async def test_who_acts_everywhere_links_anybody_who_is_in_the_record(live: Live):
    shown = await live.send("boss", "/accounts/new", **_new("of-south", "Patient/pat-south"))
    assert shown.status_code == 200
    assert (await _audited(live, "of-south")) == "created as patient, Patient/pat-south"
    shown = await live.send("boss", "/accounts/new", **_new("of-nobody", "Patient/no-such"))
    assert (shown.status_code, "There is no such Patient in the record" in shown.text) == (400, True)


async def test_what_could_not_be_looked_up_is_refused_and_not_called_missing(live: Live):
    live.rows("ALTER SCHEMA fhir RENAME TO fhir_away")
    try:
        shown = await live.send("boss", "/accounts/new", **_new("unseen", "Patient/pat-south"))
        shown_to_north = await live.send("north-admin", "/accounts/new", **_new("unseen", "Patient/pat-north"))
    finally:
        live.rows("ALTER SCHEMA fhir_away RENAME TO fhir")
    for page in (shown, shown_to_north):
        assert page.status_code >= 500
        assert "could not be looked up" in html.unescape(page.text)
    assert live.rows("SELECT FROM identity.account WHERE name = 'unseen'") == []


async def _audited(live: Live, name: str) -> str:
    """What the record's last event says that was done to an account; it arrives after the change."""
    token = operator_token(live.settings, live.database_url, "system/AuditEvent.rs")
    asked = {"entity-name:exact": name, "subtype": "account", "outcome": "0", "_sort": "-date", "_count": "1"}
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, trust_env=False) as http:
        for _ in range(100):
            found = (await http.get(f"{live.settings.fhir_base}/AuditEvent", params=asked)).json()
            if found.get("entry"):
                return str(found["entry"][0]["resource"]["outcomeDesc"])
            await asyncio.sleep(0.1)
    raise AssertionError("no event arrived")
