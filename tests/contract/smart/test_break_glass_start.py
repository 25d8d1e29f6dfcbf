"""Who may start emergency access, and what is refused. All data SYNTHETIC."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest

from foramen.identity.database import transaction, utc_now
from foramen.identity.people.accounts import require_account
from foramen.identity.rights.delegations import delegate
from foramen.identity.rights.permissions import rights_of
from foramen.kernel.errors import ForbiddenError
from tests.builders.browser import Browser, forms_of
from tests.contract.smart.break_glass_people import (  # noqa: F401 - fixtures of every test here
    PAGE,
    TEXT,
    break_glass,
    cases,
    claims,
    clean_,
    emergency,
    events,
    filled,
    people_,
    signed_in,
    tokens,
)
from tests.contract.smart.conftest import CLIENT_SECRET, ORIGIN, PASSWORD, Smart

pytestmark = pytest.mark.requirement("identity#break-glass")


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
