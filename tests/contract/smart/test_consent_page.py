"""The consent page: said in plain words, narrowed by the person, remembered until the app asks for more, withdrawn."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.oauth.consents import consents_of, withdraw_consent
from tests.builders.browser import Browser, forms_of
from tests.contract.smart.conftest import App, Smart, sign_in

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
GRANULAR = f"patient/Observation.rs?category={CATEGORY}|laboratory"
SCOPE = f"launch/patient openid fhirUser offline_access {GRANULAR} patient/DiagnosticReport.rs user/Observation.rus"


@pytest.fixture
def app(smart: Smart, growth: App) -> App:
    """The third party's app; nobody has agreed to anything."""
    smart.execute("DELETE FROM identity.consent")
    smart.execute(
        "UPDATE identity.client SET scope = scope || ' launch/encounter user/*.cruds patient/*.cruds'"
        " WHERE client_id = 'growth-app' AND scope NOT LIKE '%launch/encounter%'"
    )
    return replace(growth, scope=SCOPE)


async def at_consent(smart: Smart, app: App, patient: str = "p1", **changes: str) -> Browser:
    """A browser that shows the consent page."""
    browser = smart.browser()
    await sign_in(browser, app, **changes)
    if patient:
        await browser.submit(1, patient=patient)
    assert 'value="allow"' in browser.page.text, browser.page.text
    return browser


def fields(browser: Browser) -> list[str]:
    return [name for name in forms_of(browser.page.text)[0].fields if name.startswith("allow:")]


async def granted(app: App, browser: Browser) -> set[str]:
    body = (await app.exchange(browser.answer["code"])).json()
    return set(body["scope"].split())


async def test_each_part_is_said_in_plain_words_and_the_patient_is_named(smart: Smart, app: App):
    browser = await at_consent(smart, app, "p2", ui_locales="en")
    text = re.sub(r"<[^>]+>", " ", browser.page.text)
    for words in (
        "read and search observations and results of the chosen patient (only where category is laboratory)",
        "change observations and results of every patient you may see",
        "keep access after you have left",
        "know who you are in the health record",
        "ask you to choose a patient",
        "Growth",
        "surgeon",
        "p2",
        "app.example.org",
    ):
        assert words in text, words
    legends = re.findall(r"<legend>(.*?)</legend>", browser.page.text)
    assert legends == ["Look at", "Create, change or delete", "Who you are", "Stay connected"]
    assert fields(browser) == [
        f"allow:{part}"
        for part in (
            GRANULAR,
            "patient/DiagnosticReport.rs",
            "user/Observation.rs",
            "user/Observation.u",
            "openid",
            "fhirUser",
            "offline_access",
        )
    ]
    chinese = await at_consent(smart, app, "p2", ui_locales="zh")
    assert "（仅限类别为检验）" in chinese.page.text
    assert re.findall(r"<legend>(.*?)</legend>", chinese.page.text)[0] == "查看"


async def test_what_is_left_checked_is_granted(smart: Smart, app: App):
    browser = await at_consent(smart, app)
    await browser.submit(decision="allow")
    assert await granted(app, browser) == set(SCOPE.split())

    smart.execute("DELETE FROM identity.consent")
    browser = await at_consent(smart, app)
    unchecked = {"allow:user/Observation.u": "", "allow:offline_access": "", "allow:patient/DiagnosticReport.rs": ""}
    await browser.submit(decision="allow", **unchecked)
    body = (await app.exchange(browser.answer["code"])).json()
    assert set(body["scope"].split()) == {"launch/patient", "openid", "fhirUser", GRANULAR, "user/Observation.rs"}
    assert "refresh_token" not in body
    context = smart.service.verifier().verify(body["access_token"])
    assert context.restrictions("Observation", "r") is None
    assert not any(scope.covers("Observation", "u") for scope in context.scopes)


async def test_read_only_takes_every_part_that_writes_away(smart: Smart, app: App):
    browser = await at_consent(smart, app)
    await browser.submit(decision="read-only")
    assert await granted(app, browser) == {*SCOPE.split()[:-1], "user/Observation.rs"}


async def test_nothing_left_and_other_answers_mean_no(smart: Smart, app: App):
    for values in ({"decision": "allow"}, {"decision": "deny"}, {"decision": "nonsense"}, {}):
        browser = await at_consent(smart, app)
        unchecked = dict.fromkeys(fields(browser), "") if values.get("decision") == "allow" else {}
        await browser.submit(**unchecked, **values)
        assert browser.answer["error"] == "access_denied"
        with transaction(smart.database_url) as connection:
            assert consents_of(connection, "surgeon") == []


async def test_the_form_cannot_add_what_was_not_asked(smart: Smart, app: App):
    browser = await at_consent(smart, replace(app, scope="launch/patient patient/Observation.r"))
    forged = {"allow:user/*.cruds": "on", "allow:patient/Observation.s": "on", "scope": "user/*.cruds"}
    await browser.submit(decision="allow", **forged)
    assert await granted(app, browser) == {"launch/patient", "patient/Observation.r"}


async def test_a_choice_is_remembered_until_the_app_asks_for_more(smart: Smart, app: App):
    browser = await at_consent(smart, app)
    await browser.submit(decision="allow", **{"allow:user/Observation.u": ""})
    left = await granted(app, browser)
    again = app.url()
    await browser.open(again)
    await browser.submit(1, patient="p2")
    assert await granted(app, browser) == left  # Not asked, and not given back what was taken away.
    narrower = replace(app, scope=f"launch/patient {GRANULAR}&code=x")
    await browser.open(narrower.url())
    await browser.submit(1, patient="p2")
    assert await granted(narrower, browser) == set(narrower.scope.split())
    for more in ("patient/Patient.rs", "patient/Observation.rs", "profile", "user/Task.c"):
        wider = replace(app, scope=f"{SCOPE} {more}")
        await browser.open(wider.url())
        page = await browser.submit(1, patient="p2")
        assert 'value="allow"' in page.text, more
    await browser.open(app.url(prompt="consent"))
    assert 'value="allow"' in (await browser.submit(1, patient="p2")).text
    other = smart.browser()
    await sign_in(other, app, "other")
    assert 'value="allow"' in (await other.submit(1, patient="p2")).text


async def test_prompt_none_needs_a_remembered_choice(smart: Smart, app: App):
    quiet = replace(app, scope="openid user/Observation.r")
    browser = await at_consent(smart, quiet, patient="")
    await browser.open(quiet.url(prompt="none"))
    assert browser.answer["error"] == "consent_required"
    await browser.open(quiet.url())
    await browser.submit(decision="allow")
    await browser.open(quiet.url(prompt="none"))
    assert await granted(quiet, browser) == {"openid", "user/Observation.r"}


async def test_withdrawn_means_tokens_end_and_the_app_asks_again(smart: Smart, app: App):
    browser = await at_consent(smart, app)
    await browser.submit(decision="allow")
    body = (await app.exchange(browser.answer["code"])).json()
    with transaction(smart.database_url) as connection:
        (found,) = consents_of(connection, "surgeon")
        assert (found.client_id, found.asked, found.agreed) == ("growth-app", SCOPE, SCOPE)
        assert not withdraw_consent(connection, "other", "growth-app")
        assert withdraw_consent(connection, "surgeon", "growth-app")
        assert not withdraw_consent(connection, "surgeon", "growth-app")
    refused = await app.refresh(body["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    revoked = smart.execute(
        "SELECT count(*) FROM identity.access_token WHERE revoked_at IS NULL AND family IN"
        " (SELECT family FROM identity.token_family WHERE client_id = 'growth-app')"
    )
    assert revoked[0][0] == 0
    await browser.open(app.url())
    assert 'value="allow"' in (await browser.submit(1, patient="p1")).text


async def test_refresh_keeps_what_was_narrowed(smart: Smart, app: App):
    browser = await at_consent(smart, app)
    await browser.submit(decision="read-only")
    body = (await app.exchange(browser.answer["code"])).json()
    wider = await app.refresh(body["refresh_token"], scope="patient/Observation.rs")
    assert wider.json()["error"] == "invalid_scope"
    narrower = await app.refresh(body["refresh_token"], scope=f"{GRANULAR}&code=x")
    assert narrower.json()["scope"] == f"{GRANULAR}&code=x"
    whole = (await app.refresh(narrower.json()["refresh_token"])).json()
    assert set(whole["scope"].split()) == {*SCOPE.split()[:-1], "user/Observation.rs"}


async def test_an_agreement_is_an_audit_event(smart: Smart, app: App):
    browser = await at_consent(smart, app)
    await browser.submit(decision="allow")
    rows = smart.execute("SELECT event FROM identity.audit_outbox ORDER BY id DESC")
    (event,) = [row[0] for row in rows if row[0]["subtype"][0]["code"] == "grant"][:1]
    assert event["agent"][0]["altId"] == "surgeon"
    assert event["agent"][0]["name"] == "growth-app"
    assert event["entity"] == [{"what": {"reference": "Patient/p1"}}]


async def test_the_encounter_is_picked_after_the_patient(smart: Smart, app: App):
    with_encounter = replace(app, scope=f"{SCOPE} launch/encounter")
    for patient, picked, expected in (("p1", {"encounter": "e-p1"}, "e-p1"), ("p2", {"none": "yes"}, None)):
        smart.execute("DELETE FROM identity.consent")
        browser = smart.browser()
        await sign_in(browser, with_encounter)
        page = await browser.submit(1, patient=patient)
        assert ("SYN 门诊" in page.text) == (patient == "p1")
        await browser.submit(**picked)
        await browser.submit(decision="allow")
        body = (await with_encounter.exchange(browser.answer["code"])).json()
        assert (body["patient"], body.get("encounter")) == (patient, expected)
        assert smart.service.verifier().verify(body["access_token"]).encounter == expected


async def test_an_encounter_of_somebody_else_cannot_be_picked(smart: Smart, app: App):
    with_encounter = replace(app, scope=f"{SCOPE} launch/encounter")
    browser = smart.browser()
    await sign_in(browser, with_encounter)
    await browser.submit(1, patient="p1")
    for wrong in ("e-p2", "e-nobody", "../Patient/p1", ""):
        page = await browser.submit(encounter=wrong)
        assert browser.redirected_to is None
        assert "选择就诊" in page.text
    await browser.open(with_encounter.url(prompt="none"))
    assert browser.answer["error"] == "interaction_required"


async def test_an_app_that_became_another_one_asks_again(smart: Smart, app: App):
    """What was agreed was agreed with who answers at these addresses with these keys."""
    quiet = replace(app, scope="openid user/Observation.r")
    changes = (
        "redirect_uris = redirect_uris || '[\"https://new.example/cb\"]'",
        "auth_method = 'private_key_jwt', jwks_uri = 'https://app.example.org/keys'",
        "jwks_uri = 'https://new.example/keys'",
        'jwks_uri = NULL, jwks = \'{"keys": [{"kty": "EC", "x": "other"}]}\'',
    )
    kept = smart.execute("SELECT redirect_uris FROM identity.client WHERE client_id = 'growth-app'")[0][0]
    browser = await at_consent(smart, quiet, patient="")
    try:
        for change in changes:
            await browser.submit(decision="allow")
            await browser.open(quiet.url(prompt="none"))
            assert "code" in browser.answer
            smart.execute(f"UPDATE identity.client SET {change} WHERE client_id = 'growth-app'")  # noqa: S608  see above
            await browser.open(quiet.url(prompt="none"))
            assert browser.answer["error"] == "consent_required", change
            page = await browser.open(quiet.url())
            assert 'value="allow"' in page.text, change
        smart.execute("UPDATE identity.consent SET client_digest = NULL")
        await browser.submit(decision="allow")
        smart.execute("UPDATE identity.consent SET client_digest = NULL")
        await browser.open(quiet.url(prompt="none"))
        assert browser.answer["error"] == "consent_required", "agreed before it was noted with whom"
    finally:
        smart.execute(
            "UPDATE identity.client SET auth_method = 'none', jwks = NULL, jwks_uri = NULL,"
            " redirect_uris = CAST(:kept AS jsonb) WHERE client_id = 'growth-app'",
            kept=json.dumps(kept),
        )


@pytest.mark.parametrize(
    ("uri", "asked_again"),
    [
        ("http://127.0.0.1:4711/cb", True),
        ("http://localhost:4711/cb", True),
        ("http://[::1]:4711/cb", True),
        ("https://localhost/cb", True),
        ("org.example.app:/cb", True),
        ("https://native.example.org/cb", False),
    ],
)
async def test_an_app_that_any_program_can_impersonate_is_never_agreed_to_silently(
    smart: Smart, app: App, uri: str, asked_again: bool
):
    with transaction(smart.database_url) as connection:
        save_client(connection, Client("native", PUBLIC, "openid user/*.rs", (uri,), name_zh="本机", name_en="Native"))
    native = replace(app, client_id="native", redirect_uri=uri, scope="openid user/Observation.r")
    browser = await at_consent(smart, native, patient="")
    await browser.submit(decision="allow")
    assert "code" in browser.answer
    await browser.open(native.url())
    assert (browser.redirected_to is None) == asked_again
    await browser.open(native.url(prompt="none"))
    assert browser.answer.get("error") == ("consent_required" if asked_again else None)


async def test_agreeing_to_less_ends_older_tokens_that_do_more(smart: Smart, app: App):
    first = await at_consent(smart, app)
    await first.submit(decision="allow")
    wide = (await app.exchange(first.answer["code"])).json()
    narrow = replace(app, scope=f"launch/patient offline_access {GRANULAR}")
    other = smart.browser()
    await sign_in(other, app, "other")
    await other.submit(1, patient="p1")
    await other.submit(decision="allow")
    theirs = (await app.exchange(other.answer["code"])).json()

    await first.open(narrow.url())
    await first.submit(1, patient="p1")
    kept = (await narrow.exchange(first.answer["code"])).json()
    wide = (await app.refresh(wide["refresh_token"])).json()
    assert "refresh_token" in wide, "nothing was agreed anew: the app asked for part of it"

    await first.open(app.url(prompt="consent"))
    await first.submit(1, patient="p1")
    unchecked = {"allow:user/Observation.u": "", "allow:patient/DiagnosticReport.rs": ""}
    await first.submit(decision="allow", **unchecked)
    assert (await app.refresh(wide["refresh_token"])).json()["error"] == "invalid_grant"
    jti = smart.service.verifier().verify(wide["access_token"]).token_id
    assert smart.execute("SELECT revoked_at IS NOT NULL FROM identity.access_token WHERE jti = :j", j=jti) == [(True,)]
    assert (await narrow.refresh(kept["refresh_token"])).status_code == 200, "it never did more than this"
    assert (await app.refresh(theirs["refresh_token"])).status_code == 200, "somebody else's"
