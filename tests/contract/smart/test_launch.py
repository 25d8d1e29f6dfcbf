"""EHR and standalone launches walked as plain forms, single sign-on, and what the tokens hold."""

from __future__ import annotations

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from foramen.identity.database import transaction
from foramen.identity.oauth.launches import Launch, create_launch
from tests.builders.browser import forms_of
from tests.contract.smart.conftest import ORIGIN, App, Smart, sign_in

SMART = "hl7.fhir.uv.smart-app-launch_2.2.0"


async def portal_launch(browser, portal: App, client_id: str, **context: str) -> dict:
    """Sign in to the portal and ask it to launch an app."""
    await sign_in(browser, portal)
    token = (await portal.exchange(browser.answer["code"])).json()["access_token"]
    answer = await browser.http.post(
        "/auth/launch", json={"client_id": client_id, **context}, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.requirement(f"{SMART}#launch-ehr")
async def test_ehr_launch_gives_patient_context_and_a_token_the_verifier_accepts(
    smart: Smart, portal: App, review: App
):
    browser = smart.browser()
    launched = await portal_launch(browser, portal, "result-review", patient="p1", encounter="e1", intent="review")
    assert launched["launch_url"].startswith(
        f"{ORIGIN}/apps/result-review/?iss=http%3A%2F%2F127.0.0.1%3A18999%2Ffhir&launch="
    )
    await browser.open(review.url(launch=launched["launch"]))
    assert browser.answer["state"] == review.state
    assert browser.answer["iss"] == ORIGIN
    response = await review.exchange(browser.answer["code"])
    body = response.json()
    assert response.status_code == 200, body
    assert response.headers["cache-control"] == "no-store"
    assert {k: body[k] for k in ("patient", "encounter", "need_patient_banner", "intent")} == {
        "patient": "p1",
        "encounter": "e1",
        "need_patient_banner": True,
        "intent": "review",
    }
    assert body["scope"] == review.scope
    assert body["token_type"] == "Bearer"
    context = smart.service.verifier().verify(body["access_token"])
    assert context.subject == "surgeon"
    assert context.client_id == "result-review"
    assert (context.patient, context.encounter, context.institution) == ("p1", "e1", "inst1")
    assert context.practitioner == "Practitioner/dr1"


@pytest.mark.requirement("openid-connect-core#IDToken")
async def test_id_token_names_the_practitioner_and_binds_nonce_and_access_token(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal, nonce="n-1")
    body = (await portal.exchange(browser.answer["code"])).json()
    async with smart.http() as http:
        keys = KeySet.import_key_set((await http.get("/auth/jwks")).json())
    token = jwt.decode(body["id_token"], keys, algorithms=["ES256"])
    assert token.claims["fhirUser"] == f"{ORIGIN}/fhir/Practitioner/dr1"
    assert token.claims["aud"] == "portal"
    assert token.claims["iss"] == ORIGIN
    assert token.claims["nonce"] == "n-1"
    assert token.claims["sub"] == "surgeon"
    assert token.claims["exp"] > token.claims["iat"]
    assert "at_hash" in token.claims
    assert "d" not in (await smart.http().get("/auth/jwks")).json()["keys"][0]


async def test_second_app_opens_without_another_sign_in(smart: Smart, portal: App, review: App):
    browser = smart.browser()
    await portal_launch(browser, portal, "care-plan", patient="p1")
    for client_id in ("result-review", "care-plan"):
        launched = await browser.http.post("/auth/launch", json={"client_id": client_id, "patient": "p2"})
        app = App(smart, client_id, f"{ORIGIN}/apps/{client_id}/", "launch openid fhirUser patient/*.rs")
        await browser.open(app.url(launch=launched.json()["launch"]))
        body = (await app.exchange(browser.answer["code"])).json()
        assert body["patient"] == "p2"


@pytest.mark.requirement(f"{SMART}#launch-standalone")
async def test_standalone_launch_asks_for_the_patient_and_for_consent(smart: Smart, growth: App):
    browser = smart.browser()
    page = await browser.open(growth.url())
    assert "Growth" in (await browser.open(growth.url(ui_locales="en"))).text
    assert "不是注册医疗器械" in page.text
    await browser.submit(username="surgeon", password="correct horse battery")
    assert "SYN p1" in browser.page.text
    await browser.submit(1, patient="p2")
    assert "patient/Observation.rs" in browser.page.text
    assert ("decision", "allow") in forms_of(browser.page.text)[0].buttons
    await browser.submit(decision="allow")
    body = (await growth.exchange(browser.answer["code"])).json()
    assert body["patient"] == "p2"
    assert body["scope"] == growth.scope
    assert smart.service.verifier().verify(body["access_token"]).patient == "p2"
    assert "refresh_token" in body


async def test_consent_denied_goes_back_to_the_app(smart: Smart, growth: App):
    browser = smart.browser()
    await sign_in(browser, growth, prompt="consent")
    await browser.submit(1, patient="p1")
    await browser.submit(decision="deny")
    assert browser.answer["error"] == "access_denied"
    assert browser.answer["state"] == growth.state
    assert browser.answer["iss"] == ORIGIN
    assert "code" not in browser.answer


async def test_patient_that_does_not_exist_cannot_be_picked(smart: Smart, growth: App):
    browser = smart.browser()
    await sign_in(browser, growth)
    await browser.submit(1, patient="p9")
    assert browser.redirected_to is None
    assert "SYN p1" in browser.page.text


async def test_patients_cannot_be_looked_up_is_not_no_patients(smart: Smart, growth: App):
    browser = smart.browser()
    smart.fhir.down = True
    try:
        page = await browser.open(growth.url())
        page = await browser.submit(username="surgeon", password="correct horse battery")
    finally:
        smart.fhir.down = False
    assert page.status_code == 503
    assert "没有找到患者" not in page.text


async def test_patient_account_reaches_only_the_own_record(smart: Smart, growth: App):
    browser = smart.browser()
    await sign_in(browser, growth, "ill", scope="launch/patient openid patient/*.rs user/*.rs")
    await browser.submit(decision="allow")
    body = (await growth.exchange(browser.answer["code"])).json()
    assert body["patient"] == "p1"
    assert "user/" not in body["scope"]


async def test_patient_cannot_be_launched_into_another_record(smart: Smart, growth: App):
    with transaction(smart.database_url) as connection:
        launch = create_launch(connection, Launch("growth-app", "ill", "p2"))
    browser = smart.browser()
    await sign_in(browser, growth, "ill", launch=launch, scope="launch openid patient/*.rs")
    assert browser.answer["error"] == "access_denied"


@pytest.mark.parametrize(
    ("name", "granted"),
    [("research", "openid fhirUser profile online_access"), ("engineer", None)],
)
async def test_roles_limit_what_is_granted(smart: Smart, portal: App, name: str, granted: str | None):
    browser = smart.browser()
    await sign_in(browser, portal, name)
    scope = (await portal.exchange(browser.answer["code"])).json()["scope"]
    assert "user/*" not in scope
    assert "user/Patient" not in scope
    if granted is not None:
        assert scope == granted


async def test_launch_is_good_once(smart: Smart, portal: App, review: App):
    browser = smart.browser()
    launched = await portal_launch(browser, portal, "result-review", patient="p1")
    await browser.open(review.url(launch=launched["launch"]))
    assert "code" in browser.answer
    await browser.open(review.url(launch=launched["launch"]))
    assert browser.answer["error"] == "invalid_request"


async def test_launch_of_another_user_or_app_or_an_old_one_is_refused(smart: Smart, portal: App, review: App):
    browser = smart.browser()
    launched = await portal_launch(browser, portal, "result-review", patient="p1")
    stranger = smart.browser()
    await sign_in(stranger, review, "other", launch=launched["launch"])
    assert stranger.answer["error"] == "invalid_request"
    care_plan = App(smart, "care-plan", f"{ORIGIN}/apps/care-plan/", "launch openid patient/*.rs")
    await browser.open(care_plan.url(launch=launched["launch"]))
    assert browser.answer["error"] == "invalid_request"
    smart.execute("UPDATE identity.launch SET expires_at = now() - interval '1 second' WHERE used_at IS NULL")
    await browser.open(review.url(launch=launched["launch"]))
    assert browser.answer["error"] == "invalid_request"


async def test_launch_needs_a_practitioner_from_our_own_pages(smart: Smart, portal: App, growth: App):
    body = {"client_id": "result-review", "patient": "p1"}
    async with smart.http() as http:
        assert (await http.post("/auth/launch", json=body)).status_code == 401
    browser = smart.browser()
    await sign_in(browser, portal, "engineer")
    assert (await browser.http.post("/auth/launch", json=body)).status_code == 403
    browser = smart.browser()
    await sign_in(browser, portal)
    assert (await browser.http.post("/auth/launch", json=body)).status_code == 200
    crossed = await browser.http.post("/auth/launch", json=body, headers={"Origin": "https://evil.example"})
    assert crossed.status_code == 403
    assert (await browser.http.post("/auth/launch", data=body)).status_code == 415
    assert (await browser.http.post("/auth/launch", json={"client_id": "portal", "patient": "p1"})).status_code == 404
    assert (await browser.http.post("/auth/launch", json={**body, "patient": "p1/../x"})).status_code == 400


async def test_prompt_none_never_shows_a_page(smart: Smart, portal: App):
    browser = smart.browser()
    await browser.open(portal.url(prompt="none"))
    assert browser.answer["error"] == "login_required"
    await sign_in(browser, portal)
    await browser.open(portal.url(prompt="none"))
    assert "code" in browser.answer


async def test_prompt_login_asks_again(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    page = await browser.open(portal.url(prompt="login"))
    assert 'name="password"' in page.text
    await browser.submit(username="surgeon", password="correct horse battery")
    assert "code" in browser.answer


async def test_authorize_by_post(smart: Smart, portal: App):
    browser = smart.browser()
    response = await browser.http.post("/auth/authorize", data=portal.parameters())
    assert response.status_code == 303
    await browser.open(response.headers["location"])
    await browser.submit(username="surgeon", password="correct horse battery")
    assert "code" in browser.answer


async def test_userinfo_and_sign_out_end_the_tokens_of_the_session(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    body = (await portal.exchange(browser.answer["code"])).json()
    bearer = {"Authorization": f"Bearer {body['access_token']}"}
    info = (await browser.http.get("/auth/userinfo", headers=bearer)).json()
    assert info == {"sub": "surgeon", "fhirUser": f"{ORIGIN}/fhir/Practitioner/dr1", "preferred_username": "surgeon"}
    await browser.open("/auth/logout")
    done = await browser.submit()
    assert done.status_code == 200
    assert (await portal.refresh(body["refresh_token"])).json()["error"] == "invalid_grant"
    await browser.open(portal.url(prompt="none"))
    assert browser.answer["error"] == "login_required"


async def test_sign_out_by_an_app_with_its_id_token_needs_no_question(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    id_token = (await portal.exchange(browser.answer["code"])).json()["id_token"]
    foreign = await browser.open("/auth/logout", params={"post_logout_redirect_uri": "https://evil.example/"})
    assert "evil" not in foreign.headers.get("location", "")
    await browser.open(
        "/auth/logout", params={"id_token_hint": id_token, "post_logout_redirect_uri": f"{ORIGIN}/", "state": "s"}
    )
    assert browser.redirected_to == f"{ORIGIN}/?state=s"
    await browser.open(portal.url(prompt="none"))
    assert browser.answer["error"] == "login_required"


@pytest.mark.requirement(f"{SMART}#launch-context")
async def test_a_launch_carries_style_banner_and_further_resources(smart: Smart, portal: App, review: App):
    browser = smart.browser()
    further = [{"reference": "ImagingStudy/i1"}, {"reference": "Encounter/e2", "role": "urn:example:earlier"}]
    style = "https://style.example.org/hospital.json"
    launched = await portal_launch(
        browser,
        portal,
        "result-review",
        patient="p1",
        smart_style_url=style,
        need_patient_banner=False,
        fhirContext=further,
    )
    await browser.open(review.url(launch=launched["launch"]))
    body = (await review.exchange(browser.answer["code"])).json()
    assert body["smart_style_url"] == style
    assert body["need_patient_banner"] is False
    assert body["fhirContext"] == further
    assert "encounter" not in body


@pytest.mark.parametrize(
    "wrong",
    [
        {"smart_style_url": "http://style.example.org/a.json"},
        {"smart_style_url": "https://user:secret@style.example.org/a.json"},
        {"smart_style_url": "javascript:alert(1)"},
        {"smart_style_url": 5},
        {"smart_style_url": "https://style.example.org/\r\nx"},
        {"fhirContext": {"reference": "ImagingStudy/i1"}},
        {"fhirContext": [{"reference": "https://elsewhere.example/ImagingStudy/i1"}]},
        {"fhirContext": [{"reference": "Patient/p2"}]},
        {"fhirContext": [{"reference": "ImagingStudy/i1", "role": "any words"}]},
        {"fhirContext": [{"reference": f"ImagingStudy/{number}"} for number in range(21)]},
        {"need_patient_banner": "no"},
    ],
)
async def test_a_launch_that_carries_something_else_is_refused(smart: Smart, portal: App, wrong: dict):
    browser = smart.browser()
    await sign_in(browser, portal)
    token = (await portal.exchange(browser.answer["code"])).json()["access_token"]
    before = smart.execute("SELECT count(*) FROM identity.launch")
    answer = await browser.http.post(
        "/auth/launch",
        json={"client_id": "result-review", "patient": "p1", **wrong},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert smart.execute("SELECT count(*) FROM identity.launch") == before
