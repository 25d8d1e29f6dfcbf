"""Break-glass at the authorization server: what tokens carry, its end, and attacks on each.

What the record does with such a token: tests/contract/fhir/test_break_glass.py. All data SYNTHETIC.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.revocation_list import RevocationAwareVerifier
from foramen.identity.oauth.token_families import revoked_since
from foramen.identity.people.accounts import require_account
from foramen.identity.rights.break_glass import (
    end,
)
from foramen.identity.rights.permissions import GRANT, WITHDRAW
from foramen.kernel.errors import NotFoundError
from tests.builders.browser import forms_of
from tests.contract.smart.break_glass_people import (  # noqa: F401 - fixtures of every test here
    PAGE,
    TEXT,
    break_glass,
    cases,
    claims,
    clean_,
    decide,
    emergency,
    end_as,
    events,
    filled,
    people_,
    revoked,
    signed_in,
    tokens,
)
from tests.contract.smart.conftest import APP, CLIENT_SECRET, ORIGIN, PASSWORD, App, Smart

pytestmark = pytest.mark.requirement("identity#break-glass")


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
        await asyncio.to_thread(end_as, smart, "anna", case_id)

    refreshed, _ = await asyncio.gather(app.refresh(given["refresh_token"]), stop())
    token = refreshed.json()["access_token"]
    assert "break_glass" not in claims(smart, token) or revoked(smart, token)


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
