"""Break-glass at the authorization server: the page, what tokens carry, its end, its review, and attacks on each.

What the record does with such a token: tests/contract/fhir/test_break_glass.py. All data SYNTHETIC.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from joserfc import jwt
from sqlalchemy import exc
from structlog.testing import capture_logs
from typer.testing import CliRunner

from foramen.cli import app as cli
from foramen.identity.app import IdentityService
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.oauth.revocation_list import RevocationAwareVerifier
from foramen.identity.oauth.token_families import revoked_since
from foramen.identity.people import passwords
from foramen.identity.people.accounts import Account, ensure_user, require_account
from foramen.identity.people.password_links import make_link
from foramen.identity.rights.administration import create_account
from foramen.identity.rights.break_glass import (
    JUSTIFIED,
    UNJUSTIFIED,
    Wall,
    end,
    find_case,
    list_cases,
    list_unreviewed,
    review,
)
from foramen.identity.rights.break_glass_alerts import BreakGlassAlerts, checked_url
from foramen.identity.rights.delegations import delegate
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.rights.permissions import GRANT, WITHDRAW, change_permission, rights_of
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from foramen.kernel.settings import Settings, get_settings
from tests.builders.browser import Browser, forms_of
from tests.contract.smart.conftest import APP, CLIENT_SECRET, ORIGIN, PASSWORD, App, Smart

PAGE = f"{ORIGIN}/auth/break-glass"
SHARED = Wall("shared")
TEXT = "SYNTHETIC: unconscious after a fall, 急诊"
ONLINE = "openid fhirUser online_access user/*.rs"
pytestmark = pytest.mark.requirement("identity#break-glass")
_PEOPLE = (
    *(("anna", "physician", "bg-north"), ("bo", "physician", "bg-north"), ("zoe", "physician", "bg-south")),
    *(("head", "institution-administrator", "bg-north"), ("south", "institution-administrator", "bg-south")),
    *(("root", "system-administrator", None), ("aide", "assistant", "bg-north")),
)


@pytest.fixture(scope="module", autouse=True)
def _people(smart: Smart) -> Iterator[None]:
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
def _clean(smart: Smart) -> Iterator[None]:
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


# What it gives


async def test_tokens_of_the_session_carry_it_and_the_audit_says_so(smart: Smart):
    browser = await signed_in(smart)
    app, before = await tokens(smart, browser)
    assert "break_glass" not in claims(smart, before["access_token"])
    with capture_logs() as log:
        await break_glass(browser)
    case = cases(smart)[0]
    refreshed = (await app.refresh(before["refresh_token"])).json()
    _, opened = await tokens(smart, browser)
    for given in (refreshed, opened):
        carried = claims(smart, given["access_token"])
        assert carried["break_glass"] == {
            "id": str(case.id),
            "patient": "p1",
            "until": int(case.until.timestamp()),
        }
        assert carried["scope"] == before["scope"], "it grants no scope"
        assert carried["exp"] <= carried["break_glass"]["until"]
        context = smart.service.verifier().verify(given["access_token"])
        assert (context.break_glass.id, context.break_glass.patient) == (str(case.id), "p1")
    assert "break_glass" not in claims(smart, before["access_token"])
    assert (case.reason, case.reason_code, case.institution) == (TEXT, "emergency-treatment", "bg-north")
    started = events(smart)[-1]
    assert started["outcome"] == "0"
    assert started["purposeOfEvent"][0]["coding"][0]["code"] == "BTG"
    assert started["agent"][0]["policy"] == [f"urn:uuid:{case.id}"]
    assert started["entity"][0]["what"]["reference"] == "Patient/p1"
    issued = events(smart, "refresh_token")[-1]
    assert issued["agent"][0]["policy"] == [f"urn:uuid:{case.id}"]
    assert [line["event"] for line in log if line.get("logical_id") == str(case.id)] == ["break-glass started"]
    everything = json.dumps(log, default=str) + json.dumps(events(smart))
    assert not any(word in everything for word in ("unconscious", "急诊")), "the text is for reviewers alone"
    assert "p1" not in json.dumps(log, default=str)


async def test_a_short_one_shortens_the_token(smart: Smart):
    browser = await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now() + interval '90 seconds'")
    _, given = await tokens(smart, browser)
    assert 0 < given["expires_in"] <= 90


async def test_introspection_tells_it(smart: Smart):
    browser = await emergency(smart)
    _, given = await tokens(smart, browser)
    async with smart.http() as http:
        data = {"token": given["access_token"]}
        answer = await http.post("/auth/introspect", data=data, auth=("symmetric", CLIENT_SECRET))
    assert answer.json()["break_glass"]["patient"] == "p1"


async def test_an_app_opened_for_another_patient_does_not_carry_it(smart: Smart):
    browser = await emergency(smart)
    for patient, expected in (("p2", False), ("p1", True)):
        app = App(smart, "ours", APP, "launch/patient patient/*.rs online_access")
        await browser.open(app.url())
        await browser.submit(1, patient=patient)
        token = (await app.exchange(browser.answer["code"])).json()["access_token"]
        assert ("break_glass" in claims(smart, token)) is expected, patient


async def test_what_outlives_the_session_never_carries_it(smart: Smart):
    browser = await emergency(smart)
    app, given = await tokens(smart, browser, "user/*.rs offline_access", "ours")
    assert "break_glass" not in claims(smart, given["access_token"])
    again = (await app.refresh(given["refresh_token"])).json()
    assert "break_glass" not in claims(smart, again["access_token"])


async def test_another_session_of_the_same_person_does_not_carry_it(smart: Smart):
    await emergency(smart)
    elsewhere = await signed_in(smart)
    _, given = await tokens(smart, elsewhere)
    assert "break_glass" not in claims(smart, given["access_token"])
    page = await elsewhere.open(PAGE)
    assert "另一次登录" in page.text, "the page says where it counts"


async def test_signing_in_again_keeps_it_signing_out_ends_it(smart: Smart):
    browser = await emergency(smart)
    await browser.open(f"{ORIGIN}/auth/login")
    await browser.submit(username="anna", password=PASSWORD)
    _, given = await tokens(smart, browser)
    assert "break_glass" in claims(smart, given["access_token"])
    await browser.open(f"{ORIGIN}/auth/logout")
    await browser.submit()
    assert revoked(smart, given["access_token"])
    again = await signed_in(smart)
    _, later = await tokens(smart, again)
    assert "break_glass" not in claims(smart, later["access_token"])


async def test_somebody_else_at_the_same_browser_does_not_inherit_it(smart: Smart):
    decide(smart, "bo", GRANT)
    browser = await emergency(smart)
    await browser.open(f"{ORIGIN}/auth/login")
    await browser.submit(username="bo", password=PASSWORD)
    _, given = await tokens(smart, browser)
    assert "break_glass" not in claims(smart, given["access_token"])
    decide(smart, "bo", WITHDRAW)


async def test_the_picker_shows_what_it_opens(smart: Smart):
    """The pages read with the claim, so that a hidden patient can be chosen for an app."""
    seen: list[Any] = []
    verify = RevocationAwareVerifier.verify

    def watched(self: Any, token: str) -> Any:
        context = verify(self, token)
        seen.append(context.break_glass)
        return context

    browser = await emergency(smart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RevocationAwareVerifier, "verify", watched)
        await browser.open(App(smart, "ours", APP, "launch/patient patient/*.rs").url())
    assert [one.patient for one in seen] == ["p1"]


# Its end


async def test_the_person_ends_it_and_the_tokens_end_at_once(smart: Smart):
    browser = await emergency(smart)
    app, given = await tokens(smart, browser)
    plain = await signed_in(smart)
    _, untouched = await tokens(smart, plain)
    await browser.open(PAGE)
    page = await browser.submit(case=str(cases(smart)[0].id))
    assert "紧急访问已结束" in page.text
    assert revoked(smart, given["access_token"])
    assert not revoked(smart, untouched["access_token"])
    with transaction(smart.database_url) as connection:
        listed = revoked_since(connection, utc_now() - timedelta(minutes=1))
    assert claims(smart, given["access_token"])["jti"] in listed, "every verifier learns of it within a second"
    refreshed = (await app.refresh(given["refresh_token"])).json()
    assert "break_glass" not in claims(smart, refreshed["access_token"])
    assert events(smart)[-1]["outcomeDesc"] == "ended"


async def test_time_ends_it(smart: Smart):
    browser = await emergency(smart)
    app, given = await tokens(smart, browser)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    refreshed = (await app.refresh(given["refresh_token"])).json()
    assert "break_glass" not in claims(smart, refreshed["access_token"])


async def test_losing_the_permission_ends_it(smart: Smart):
    browser = await emergency(smart)
    app, given = await tokens(smart, browser)
    decide(smart, "anna", WITHDRAW)
    assert revoked(smart, given["access_token"])
    assert cases(smart)[0].ended_by == "policy"
    decide(smart, "anna", GRANT)
    refreshed = (await app.refresh(given["refresh_token"])).json()
    assert "break_glass" not in claims(smart, refreshed["access_token"]), "what ended does not come back"


async def test_a_token_issued_while_it_ends_does_not_escape(smart: Smart):
    browser = await emergency(smart)
    app, given = await tokens(smart, browser)
    case_id = cases(smart)[0].id

    async def stop() -> None:
        await asyncio.to_thread(_end, smart, "anna", case_id)

    refreshed, _ = await asyncio.gather(app.refresh(given["refresh_token"]), stop())
    token = refreshed.json()["access_token"]
    assert "break_glass" not in claims(smart, token) or revoked(smart, token)


def _end(smart: Smart, who: str, case_id: uuid.UUID) -> None:
    with transaction(smart.database_url) as connection:
        end(connection, require_account(connection, who), case_id)


# Who may not, and what is refused


@pytest.mark.parametrize("name", ["bo", "research", "engineer", "ill"])
async def test_without_the_permission_the_page_refuses(smart: Smart, name: str):
    browser = await signed_in(smart, name)
    page = await browser.open(PAGE)
    assert page.status_code == 403
    assert "<textarea" not in page.text
    refusal = events(smart)[-1]
    assert (refusal["outcome"], refusal["outcomeDesc"]) == ("4", "permission")
    account = await browser.open(f"{ORIGIN}/auth/account")
    assert "/auth/break-glass" not in account.text


async def test_the_account_page_leads_there(smart: Smart):
    browser = await signed_in(smart)
    page = await browser.open(f"{ORIGIN}/auth/account")
    assert 'href="/auth/break-glass"' in page.text


async def _post_as(smart: Smart, name: str, **values: str) -> tuple[Browser, httpx.Response]:
    """Send the form of who may, in the browser of who may not: with the tokens of that browser's own pages."""
    from foramen.identity.rights.break_glass_start import new_ticket

    browser = await signed_in(smart, name)
    await browser.open(f"{ORIGIN}/auth/account")
    csrf = forms_of(browser.page.text)[0].fields["csrf"]
    session = smart.execute("SELECT session_digest FROM identity.session WHERE account = :n", n=name)[-1][0]
    ticket = new_ticket(smart.service._env.csrf_secret, session)
    page = await browser.http.post("/auth/break-glass", data={**filled(), "csrf": csrf, "ticket": ticket, **values})
    return browser, page


@pytest.mark.parametrize("name", ["bo", "research", "engineer", "ill", "aide"])
async def test_nor_does_the_form_start_it(smart: Smart, name: str):
    smart.execute("DELETE FROM identity.session WHERE account = :n", n=name)
    _, answer = await _post_as(smart, name)
    assert answer.status_code == 403
    assert cases(smart) == []


async def test_what_is_lent_starts_nothing(smart: Smart):
    with transaction(smart.database_url) as connection:
        lender, borrower = require_account(connection, "anna"), require_account(connection, "bo")
        with pytest.raises(ForbiddenError):
            delegate(
                connection,
                lender,
                borrower,
                "break-glass",
                until=utc_now() + timedelta(hours=1),
                reason="SYNTHETIC",
                longest=timedelta(days=1),
            )
    # Even a loan that somebody wrote past the check.
    smart.execute(
        "INSERT INTO identity.delegation (id, lender, borrower, permission, until, reason, created_at) "
        "SELECT gen_random_uuid(), 'anna', 'bo', p, now() + interval '1 hour', 'SYNTHETIC', now() "
        "FROM unnest(ARRAY['break-glass', 'delegate']) p"
    )
    with transaction(smart.database_url) as connection:
        assert "break-glass" not in rights_of(connection, require_account(connection, "bo")).permissions
    smart.execute("DELETE FROM identity.session WHERE account = 'bo'")
    _, answer = await _post_as(smart, "bo")
    assert answer.status_code == 403
    # And a row of an occasion, written past everything: no token carries it.
    browser = await signed_in(smart, "bo")
    smart.execute(
        "INSERT INTO identity.break_glass "
        "(id, account, session_digest, patient, reason_code, reason, started_at, until) "
        "SELECT gen_random_uuid(), 'bo', session_digest, 'p1', 'other', 'SYNTHETIC text', now(), "
        "now() + interval '1 hour' FROM identity.session WHERE account = 'bo' ORDER BY signed_in_at DESC LIMIT 1"
    )
    _, given = await tokens(smart, browser)
    assert "break_glass" not in claims(smart, given["access_token"])


async def test_a_service_has_none(smart: Smart):
    await emergency(smart)
    async with smart.http() as http:
        data = {"grant_type": "client_credentials", "scope": "system/*.rs"}
        answer = await http.post("/auth/token", data=data, auth=("symmetric", CLIENT_SECRET))
    assert "break_glass" not in claims(smart, answer.json()["access_token"])


async def test_an_old_sign_in_leads_to_signing_in_again(smart: Smart):
    browser = await signed_in(smart)
    await browser.open(PAGE)
    smart.execute("UPDATE identity.session SET authenticated_at = now() - interval '301 s' WHERE account = 'anna'")
    page = await browser.submit(**filled("p2"))
    assert 'name="password"' in page.text
    assert cases(smart) == []
    page = await browser.open(PAGE)
    assert 'name="password"' in page.text
    assert "p2" not in str(page.url)
    page = await browser.submit(username="anna", password=PASSWORD)
    assert str(page.url) == PAGE
    assert forms_of(page.text)[0].fields["patient"] == "p2", "the patient is remembered, not in the URL"


async def test_who_has_a_second_factor_shows_it(smart: Smart):
    browser = await signed_in(smart)
    smart.execute(
        "INSERT INTO identity.totp_device (id, account, name, sealed_secret, last_step, created_at) "
        "VALUES (gen_random_uuid(), 'anna', 'x', 'x', 0, now())"
    )
    try:
        page = await break_glass(browser)
        assert (page.status_code, cases(smart)) == (403, [])
        smart.execute("UPDATE identity.session SET factors = '[\"password\", \"totp\"]' WHERE account = 'anna'")
        await break_glass(browser)
        assert len(cases(smart)) == 1
    finally:
        smart.execute("DELETE FROM identity.totp_device WHERE account = 'anna'")


@pytest.mark.parametrize(
    "values",
    [
        {"reason": "curious"},
        {"reason": ""},
        {"text": "too short"},
        {"text": " " * 20},
        {"text": "x" * 501},
        {"patient": ""},
        {"patient": "p1 or 1=1"},
        {"patient": "p1,p2"},
        {"patient": "Practitioner/dr1"},
    ],
)
async def test_what_is_not_filled_in_starts_nothing_and_leaves_no_trace(smart: Smart, values: dict[str, str]):
    browser = await signed_in(smart)
    count = len(events(smart))
    page = await break_glass(browser, **values)
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert (cases(smart), len(events(smart))) == ([], count)


async def test_a_text_of_several_lines_is_kept_and_shown_again_escaped(smart: Smart):
    browser = await signed_in(smart)
    text = "SYNTHETIC <b>first\r\nsecond line"
    page = await break_glass(browser, text=text, patient="")
    assert "&lt;b&gt;first" in page.text
    assert "<b>first" not in page.text
    await browser.submit(**filled(text=text))
    assert cases(smart)[0].reason == "SYNTHETIC <b>first\nsecond line"
    browser = await signed_in(smart, "zoe")
    page = await break_glass(browser, text="SYNTHETIC with a bell \x07 in it")
    assert page.status_code == 400


async def test_whether_a_patient_exists_is_not_said(smart: Smart):
    known = await break_glass(await signed_in(smart), "p1")
    unknown = await break_glass(await signed_in(smart, "zoe"), "nobody")
    assert known.status_code == unknown.status_code == 200
    assert [case.patient for case in cases(smart)] == ["p1", "nobody"]


async def test_patients_are_looked_for_with_the_own_rights(smart: Smart):
    browser = await signed_in(smart)
    page = await browser.open(PAGE)
    assert {"p1", "p2"} <= {value for _, value in _radios(page.text)}
    page = await browser.submit(**filled("", action="search", name="SYN p"))
    assert (page.status_code, cases(smart)) == (200, [])
    assert TEXT in page.text, "what was typed is kept"
    await browser.submit(**filled("", chosen="p2"))
    assert cases(smart)[0].patient == "p2"


def _radios(html: str) -> list[tuple[str, str]]:
    import re

    return re.findall(r'type="radio" name="(chosen)" value="([^"]*)"', html)


async def test_two_patients_in_one_form_start_nothing(smart: Smart):
    """Chosen from the list, and another typed below: nobody guesses which is meant."""
    browser = await signed_in(smart)
    page = await break_glass(browser, "p1", chosen="p2")
    assert (page.status_code, cases(smart)) == (400, [])
    await browser.submit(**filled("p2", chosen="p2"))
    assert cases(smart)[0].patient == "p2"


async def test_without_the_record_it_works_all_the_same(smart: Smart):
    browser = await signed_in(smart)
    smart.fhir.down = True
    try:
        page = await browser.open(PAGE)
        assert "暂时无法读取患者列表" in page.text
        await browser.submit(**filled())
    finally:
        smart.fhir.down = False
    assert len(cases(smart)) == 1


async def test_one_patient_at_a_time(smart: Smart):
    """No patient switch: a second one is refused until the first has ended."""
    browser = await signed_in(smart)
    await browser.open(PAGE)
    form = forms_of(browser.page.text)[0].fields
    page = await browser.submit(**filled("p1"))
    second = await browser.http.post("/auth/break-glass", data={**form, **filled("p2"), "ticket": _fresh(smart)})
    assert second.status_code == 409
    _, given = await tokens(smart, browser)
    assert claims(smart, given["access_token"])["break_glass"]["patient"] == "p1"
    await browser.open(PAGE)
    page = await browser.submit(case=str(cases(smart)[0].id))
    assert page.status_code == 200
    await break_glass(browser, "p2")
    assert [case.patient for case in cases(smart)] == ["p1", "p2"]


def _fresh(smart: Smart) -> str:
    from foramen.identity.rights.break_glass_start import new_ticket

    rows = smart.execute("SELECT session_digest FROM identity.session WHERE account = 'anna' ORDER BY signed_in_at")
    return new_ticket(smart.service._env.csrf_secret, rows[-1][0])


async def test_two_forms_sent_at_once_start_one(smart: Smart):
    browser = await signed_in(smart)
    await browser.open(PAGE)
    form = forms_of(browser.page.text)[0].fields
    bodies = [{**form, **filled(patient), "ticket": _fresh(smart)} for patient in ("p1", "p2")]
    answers = await asyncio.gather(*(browser.http.post("/auth/break-glass", data=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [303, 409]
    assert len(cases(smart)) == 1


async def test_the_number_in_a_day_is_limited(smart: Smart):
    browser = await signed_in(smart)
    limit = smart.settings.break_glass_per_day
    smart.execute(
        "INSERT INTO identity.break_glass (id, account, patient, reason_code, reason, started_at, until, ended_at) "
        "SELECT gen_random_uuid(), 'anna', 'p1', 'other', 'SYNTHETIC text', now() - interval '23 h', now(), now() "
        "FROM generate_series(1, :n)",
        n=limit,
    )
    page = await break_glass(browser)
    assert page.status_code == 429
    assert events(smart)[-1]["outcomeDesc"] == "limit"
    smart.execute("UPDATE identity.break_glass SET started_at = now() - interval '25 h'")
    await break_glass(browser)
    assert len(cases(smart)) == limit + 1


# Attacks


async def test_csrf(smart: Smart):
    browser = await signed_in(smart)
    await browser.open(PAGE)
    form = forms_of(browser.page.text)[0].fields
    attacker = await signed_in(smart, "zoe")
    await attacker.open(PAGE)
    theirs = forms_of(attacker.page.text)[0].fields
    for changed in ({"csrf": ""}, {"csrf": theirs["csrf"]}, {"ticket": theirs["ticket"]}, {"ticket": ""}):
        body = {**form, **filled(), **changed}
        answer = await browser.http.post("/auth/break-glass", data=body)
        assert answer.status_code == 403, changed
    forged = f"{uuid.uuid4()}.{form['ticket'].partition('.')[2]}"
    assert (
        await browser.http.post("/auth/break-glass", data={**form, **filled(), "ticket": forged})
    ).status_code == 403
    assert cases(smart) == []
    assert (await browser.http.get(f"{PAGE}?patient=p1&reason=other&text={TEXT}&action=start")).status_code == 200
    assert cases(smart) == [], "a link starts nothing"
    await break_glass(browser)
    case = str(cases(smart)[0].id)
    assert (await browser.http.post("/auth/break-glass/end", data={"case": case})).status_code == 403
    assert cases(smart)[0].ended_at is None


async def test_a_form_sent_again_starts_nothing(smart: Smart):
    browser = await signed_in(smart)
    await browser.open(PAGE)
    form = forms_of(browser.page.text)[0].fields
    await browser.submit(**filled())
    await browser.open(PAGE)
    await browser.submit(case=str(cases(smart)[0].id))
    again = await browser.http.post("/auth/break-glass", data={**form, **filled("p2")})
    assert again.status_code == 409
    assert [case.patient for case in cases(smart)] == ["p1"]


async def test_anothers_id_ends_nothing(smart: Smart):
    await emergency(smart, name="zoe")
    browser = await emergency(smart)
    theirs = next(case for case in cases(smart) if case.account == "zoe")
    await browser.open(PAGE)
    answers = [await browser.submit(case=value) for value in (str(theirs.id), str(uuid.uuid4()), "x")]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert next(case for case in cases(smart) if case.account == "zoe").ended_at is None
    with transaction(smart.database_url) as connection, pytest.raises(NotFoundError):
        end(connection, require_account(connection, "anna"), theirs.id)


async def test_scopes_do_not_grow_by_it(smart: Smart):
    browser = await signed_in(smart)
    app, before = await tokens(smart, browser, "user/Patient.r online_access")
    await break_glass(browser)
    wider = await app.refresh(before["refresh_token"], scope="user/*.rs online_access")
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    refreshed = (await app.refresh(before["refresh_token"])).json()
    assert refreshed["scope"] == before["scope"]
    assert "break_glass" in claims(smart, refreshed["access_token"])


async def test_the_page_cannot_be_framed_and_is_not_kept(smart: Smart):
    page = await (await signed_in(smart)).open(PAGE)
    assert page.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


# Review


async def test_reviewers_see_their_institution_and_judge_once(smart: Smart):
    await emergency(smart)
    await emergency(smart, "p2", "zoe")
    anna, zoe = (next(case.id for case in cases(smart) if case.account == name) for name in ("anna", "zoe"))
    with transaction(smart.database_url) as connection:
        head, south, root, bo = (require_account(connection, name) for name in ("head", "south", "root", "bo"))
        assert [case.id for case in list_unreviewed(connection, head)] == [anna]
        assert [case.id for case in list_unreviewed(connection, south)] == [zoe]
        assert [case.id for case in list_unreviewed(connection, root)] == [anna, zoe]
        assert [case.id for case in list_cases(connection, root, limit=1)] == [zoe]
        assert find_case(connection, head, anna).reason == TEXT
        for reader in (
            lambda: find_case(connection, head, zoe),
            lambda: review(connection, head, zoe, JUSTIFIED, wall=SHARED),
        ):
            with pytest.raises(NotFoundError):
                reader()
        for denied in (
            lambda: list_unreviewed(connection, bo),
            lambda: list_cases(connection, bo),
            lambda: find_case(connection, bo, anna),
            lambda: review(connection, bo, anna, JUSTIFIED, wall=SHARED),
        ):
            with pytest.raises(ForbiddenError):
                denied()
        with pytest.raises(ConflictError):
            review(connection, head, anna, JUSTIFIED, wall=SHARED)  # still in force
        for verdict, note in (("fine", ""), (UNJUSTIFIED, "  "), (JUSTIFIED, "x" * 501)):
            with pytest.raises(InvalidRequestError):
                review(connection, head, anna, verdict, note, wall=SHARED)
        assert end(connection, head, anna).ended_by == "head"
        done = review(connection, head, anna, UNJUSTIFIED, "SYNTHETIC note", wall=SHARED)
        assert (done.verdict, done.reviewed_by, done.note) == (UNJUSTIFIED, "head", "SYNTHETIC note")
        with pytest.raises(ConflictError):
            review(connection, root, anna, JUSTIFIED, wall=SHARED)
        assert list_unreviewed(connection, head) == []
        assert [case.id for case in list_cases(connection, head)] == [anna]
    event = events(smart, "break-glass-review")[-1]
    assert (event["agent"][0]["altId"], event["outcomeDesc"]) == ("head", "unjustified")
    assert "SYNTHETIC note" not in json.dumps(event)


async def test_nobody_reviews_the_own(smart: Smart):
    """A physician who became an administrator: the cases stay the own."""
    await emergency(smart)
    smart.execute("UPDATE identity.account SET role = 'system-administrator' WHERE name = 'anna'")
    smart.execute("UPDATE identity.break_glass SET until = now()")
    try:
        with transaction(smart.database_url) as connection:
            anna = require_account(connection, "anna")
            case = list_unreviewed(connection, anna)[0]
            with pytest.raises(ForbiddenError):
                review(connection, anna, case.id, JUSTIFIED, wall=SHARED)
        with pytest.raises(exc.IntegrityError):  # nor is it stored, whoever writes it
            smart.execute(
                "UPDATE identity.break_glass SET reviewed_by = 'anna', reviewed_at = now(), verdict = 'justified'"
            )
    finally:
        smart.execute("UPDATE identity.account SET role = 'physician' WHERE name = 'anna'")


def _reviewed(smart: Smart, name: str, wall: Wall = SHARED) -> None:
    with transaction(smart.database_url) as connection:
        review(connection, require_account(connection, name), cases(smart)[0].id, JUSTIFIED, wall=wall)


async def test_who_granted_the_permission_does_not_review_what_it_was_used_for(smart: Smart):
    decide(smart, "anna", GRANT, decided_by="head")
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    with pytest.raises(ForbiddenError, match="arranged"):
        _reviewed(smart, "head")
    decide(smart, "anna", GRANT)  # somebody else's grant of later changes nothing
    with pytest.raises(ForbiddenError, match="arranged"):
        _reviewed(smart, "head")
    _reviewed(smart, "root")
    assert cases(smart)[0].reviewed_by == "root"


async def test_a_grant_of_later_does_not_count(smart: Smart):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    decide(smart, "anna", GRANT, decided_by="head")
    _reviewed(smart, "head")
    decide(smart, "anna", GRANT)


@pytest.mark.parametrize("link_only", [True, False])
async def test_who_made_the_account_or_its_link_does_not_review(smart: Smart, link_only: bool):
    name = f"made-{link_only}".lower()
    maker = "root" if link_only else "head"
    with transaction(smart.database_url) as connection:
        by, head = require_account(connection, maker), require_account(connection, "head")
        create_account(connection, by, Account(name, "physician", institution="bg-north"), PASSWORD)
        if link_only:
            make_link(connection, head, name)
    decide(smart, name, GRANT)
    await emergency(smart, name=name)
    with transaction(smart.database_url) as connection:  # to end is not to judge
        assert end(connection, require_account(connection, "head"), cases(smart)[0].id).ended_by == "head"
    with pytest.raises(ForbiddenError, match="arranged"):
        _reviewed(smart, "head")
    with pytest.raises(NotFoundError):
        _reviewed(smart, "south")


async def test_where_institutions_divide_the_record_anothers_patient_is_reviewed_by_who_acts_everywhere(smart: Smart):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    for wall in (Wall("separate"), Wall("separate", "bg-south")):
        with pytest.raises(ForbiddenError, match="another institution's patient"):
            _reviewed(smart, "head", wall)
    _reviewed(smart, "root", Wall("separate", "bg-south"))


async def test_and_the_own_patients_by_the_own_institution(smart: Smart):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    _reviewed(smart, "head", Wall("separate", "bg-north"))


async def test_a_reviewer_ends_it_and_the_tokens_with_it(smart: Smart):
    browser = await emergency(smart)
    _, given = await tokens(smart, browser)
    case_id = cases(smart)[0].id
    with transaction(smart.database_url) as connection, pytest.raises(NotFoundError):
        end(connection, require_account(connection, "south"), case_id)
    _end(smart, "head", case_id)
    assert revoked(smart, given["access_token"])


async def test_the_command_lists_ends_and_reviews(smart: Smart, monkeypatch: pytest.MonkeyPatch):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET started_at = now() - interval '73 h'")
    monkeypatch.setenv("FORAMEN_DATABASE_URL", smart.database_url)
    get_settings.cache_clear()

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(cli, ["break-glass", *arguments])
        return json.loads(result.stdout) if result.exit_code == 0 else result.exception

    try:
        listed = run("list", "--by", "head")
        case = listed[0]["id"]
        assert (listed[0]["overdue"], listed[0]["in_force"], listed[0]["patient"]) == (True, True, "p1")
        assert listed[0]["accesses"] == f"AuditEvent?policy=urn:uuid:{case}"
        assert "session_digest" not in listed[0]
        assert isinstance(run("list", "--by", "bo"), ForbiddenError)
        assert isinstance(run("review", case, "--by", "head", "--verdict", "justified"), ConflictError)
        assert run("end", case, "--by", "head")["in_force"] is False
        assert run("review", case, "--by", "head", "--verdict", "justified")["verdict"] == "justified"
        assert run("list", "--by", "head") == []
        assert run("list", "--all", "--by", "head")[0]["overdue"] is False
    finally:
        get_settings.cache_clear()


# The alert


@contextmanager
def receiver(*answers: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real receiver of alerts on loopback that answers one status after the other; gives its URL and what it got."""
    told: list[dict[str, Any]] = []
    left = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(next(left))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_the_alert_is_told_until_it_is_taken(smart: Smart):
    await emergency(smart)
    assert smart.execute("SELECT next_attempt_at FROM identity.break_glass_alert")[0][0] is None, "nobody to tell"
    smart.execute("UPDATE identity.break_glass_alert SET next_attempt_at = now()")
    with receiver(503, 302, 200) as (url, told):
        http = httpx.AsyncClient(trust_env=False)
        alerts = BreakGlassAlerts(smart.service._database, http, url)
        for attempt in range(3):
            assert await alerts.deliver_once() == (attempt == 2)
            row = smart.execute("SELECT * FROM identity.break_glass_alert")[0]
            assert row.attempts == attempt + 1
            if attempt < 2:
                assert await alerts.deliver_once() == 0, "not before its time"
                assert (row.delivered_at, row.next_attempt_at is None) == (None, False)
                smart.execute("UPDATE identity.break_glass_alert SET next_attempt_at = now()")
        assert row.delivered_at is not None
        assert await alerts.deliver_once() == 0
        await http.aclose()
    assert len(told) == 3, "redirects are not followed"
    case = cases(smart)[0]
    assert {one["id"] for one in told} == {str(case.id)}
    assert set(told[0]) == {"event", "id", "account", "institution", "reason", "started", "until"}
    assert "p1" not in json.dumps(told)
    assert "unconscious" not in json.dumps(told)


async def test_with_a_url_the_alert_is_due_at_once(smart: Smart):
    settings = smart.settings.model_copy(update={"break_glass_alert_url": "http://127.0.0.1:9/hook"})
    browser = await signed_in(smart)
    env = smart.service._env
    object.__setattr__(env, "settings", settings)
    try:
        await break_glass(browser)
    finally:
        object.__setattr__(env, "settings", smart.settings)
    assert smart.execute("SELECT next_attempt_at FROM identity.break_glass_alert")[0][0] is not None


@pytest.mark.parametrize("url", ["ftp://x/", "https://", "alerts.example.org", "https://x/#y"])
def test_a_url_that_is_none_stops_the_start(smart: Smart, url: str):
    with pytest.raises(InvalidRequestError):
        IdentityService(smart.settings.model_copy(update={"break_glass_alert_url": url}), smart.database_url)
    assert checked_url("https://alerts.example.org/hook") is not None
    assert Settings(break_glass_alert_url=None).break_glass_alert_url is None
