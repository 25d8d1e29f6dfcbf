"""People of the break-glass tests and what they do; all of it SYNTHETIC."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from joserfc import jwt

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.people import passwords
from foramen.identity.people.accounts import ensure_user, require_account
from foramen.identity.rights.break_glass import (
    Wall,
    end,
)
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.rights.permissions import GRANT, change_permission
from tests.builders.browser import Browser
from tests.contract.smart.conftest import APP, ORIGIN, PASSWORD, App, Smart

PAGE = f"{ORIGIN}/auth/break-glass"
SHARED = Wall("shared")
TEXT = "SYNTHETIC: unconscious after a fall, 急诊"
ONLINE = "openid fhirUser online_access user/*.rs"
_PEOPLE = (
    *(("anna", "physician", "bg-north"), ("bo", "physician", "bg-north"), ("zoe", "physician", "bg-south")),
    *(("head", "institution-administrator", "bg-north"), ("south", "institution-administrator", "bg-south")),
    *(("root", "system-administrator", None), ("aide", "assistant", "bg-north")),
)


@pytest.fixture(scope="module", autouse=True)
def people_(smart: Smart) -> Iterator[None]:
    """Argon2id at a small cost, as these tests sign in often."""
    hasher, passwords._PASSWORDS = passwords._PASSWORDS, PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    _add_people(smart)
    yield
    passwords._PASSWORDS = hasher


def _add_people(smart: Smart) -> None:
    for name in ("bg-north", "bg-south"):
        ensure_institution(smart.database_url, name)
    for name, role, institution in _PEOPLE:
        practitioner = f"dr-{name}" if role == "physician" else None
        ensure_user(smart.database_url, name, PASSWORD, role, practitioner, institution)
    with transaction(smart.database_url) as connection:
        scope = "launch launch/patient openid fhirUser online_access offline_access patient/*.rs user/*.rs"
        save_client(connection, Client("wide", PUBLIC, scope, (APP,), "https://app.example.org/launch"))
        save_client(connection, Client("ours", PUBLIC, scope, (APP,), APP, first_party=True))
        for name in ("anna", "zoe"):
            _decide(connection, name, GRANT)


@pytest.fixture(autouse=True)
def clean_(smart: Smart) -> Iterator[None]:
    yield
    smart.execute("DELETE FROM identity.break_glass_alert")
    smart.execute("DELETE FROM identity.break_glass_token")
    smart.execute("DELETE FROM identity.break_glass")
    smart.execute("DELETE FROM identity.delegation")


def _decide(connection: Any, name: str, effect: str, **more: Any) -> None:
    account = require_account(connection, name)
    given = {"reason": "SYNTHETIC", "decided_by": "foramen-cli", **more}
    change_permission(connection, account, "break-glass", effect, **given)


def decide(smart: Smart, name: str, effect: str, **more: Any) -> None:
    with transaction(smart.database_url) as connection:
        _decide(connection, name, effect, **more)


async def signed_in(smart: Smart, name: str = "anna") -> Browser:
    browser = smart.browser()
    await browser.open(f"{ORIGIN}/auth/login?then=break-glass")
    await browser.submit(username=name, password=PASSWORD)
    return browser


async def break_glass(browser: Browser, patient: str = "p1", **values: str) -> httpx.Response:
    """Fill in and send the page's form."""
    await browser.open(PAGE)
    return await browser.submit(**filled(patient, **values))


def filled(patient: str = "p1", **values: str) -> dict[str, str]:
    given = {"patient": patient, "reason": "emergency-treatment", "text": TEXT, "action": "start", "chosen": ""}
    return {**given, **values}


async def emergency(smart: Smart, patient: str = "p1", name: str = "anna") -> Browser:
    """A browser with emergency access in force."""
    browser = await signed_in(smart, name)
    page = await break_glass(browser, patient)
    assert 'name="case"' in page.text, page.text
    return browser


async def tokens(smart: Smart, browser: Browser, scope: str = ONLINE, client: str = "ours", **more: Any):
    """Open an app in this browser; returns it and its token answer."""
    app = App(smart, client, APP, scope)
    page = await browser.open(app.url(**more))
    if browser.redirected_to is None and 'name="decision"' in page.text:
        await browser.submit(decision="allow")
    answer = await app.exchange(browser.answer["code"])
    assert answer.status_code == 200, answer.text
    return app, answer.json()


def claims(smart: Smart, token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, smart.service.verifier()._keys, algorithms=["ES256"]).claims
    return found


def cases(smart: Smart) -> list[Any]:
    return smart.execute("SELECT * FROM identity.break_glass ORDER BY started_at")


def revoked(smart: Smart, token: str) -> bool:
    jti = claims(smart, token)["jti"]
    return smart.execute("SELECT revoked_at FROM identity.access_token WHERE jti = :jti", jti=jti)[0][0] is not None


def events(smart: Smart, what: str = "break-glass") -> list[dict[str, Any]]:
    rows = smart.execute("SELECT event FROM identity.audit_outbox ORDER BY id")
    return [row[0] for row in rows if row[0]["subtype"][0]["code"] == what]


def end_as(smart: Smart, who: str, case_id: uuid.UUID) -> None:
    with transaction(smart.database_url) as connection:
        end(connection, require_account(connection, who), case_id)
