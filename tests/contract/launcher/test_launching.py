"""Launch other apps: bound to what was chosen, refused where the choice is not possible; one sign-on for three apps.

Issue "identity", done when: an EHR simulation signs on once and opens three apps; the same patient-scoped token reads
that patient's Observations and that patient's frames and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from tests.contract.launcher.conftest import APP_SCOPE, APPS, PASSWORD, Pages, Site

pytestmark = pytest.mark.requirement("hl7.fhir.uv.smart-app-launch_2.2.0#launch-ehr")


def location_of(browser: Pages) -> dict[str, str]:
    """What the app is opened with."""
    assert browser.redirected_to is not None, browser.text
    return dict(parse_qsl(urlsplit(browser.redirected_to).query))


async def launch(browser: Pages, app: str, **context: str) -> dict[str, str]:
    """Launch an app for a patient."""
    await browser.open("/apps/launcher/")
    await browser.choose(app=app, type="ehr", **context)
    return location_of(browser)


async def authorize(site: Site, browser: Pages, app: str, token: str) -> httpx.Response:
    """Be the app that was launched: code flow with PKCE in the browser of the EHR; no page asks for a password."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    redirect_uri = f"http://localhost:{site.running.settings.port}/{app}/callback"
    asked = {"response_type": "code", "client_id": app, "redirect_uri": redirect_uri, "scope": APP_SCOPE}
    asked |= {"state": state, "launch": token, "aud": f"{site.origin}/fhir"}
    asked |= {"code_challenge": challenge, "code_challenge_method": "S256"}
    page = await browser.open(f"/auth/authorize?{urlencode(asked)}")
    assert 'name="password"' not in page.text
    if browser.redirected_to is None:
        await browser.press("decision", "allow")
    answer = location_of(browser)
    assert answer["state"] == state
    form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": redirect_uri}
    form |= {"client_id": app, "code_verifier": verifier}
    return await browser.http.post("/auth/token", data=form)


async def test_signs_on_once_and_opens_three_apps_whose_tokens_read_one_patient_alone(site: Site):
    async with httpx.AsyncClient(base_url=site.origin, timeout=30, trust_env=False) as http:
        browser = Pages(http, site.origin)
        await browser.open("/apps/launcher/")
        await browser.submit(username="surgeon", password=PASSWORD)
        tokens = {}
        for app in APPS:
            opened = await launch(browser, app, patient="p1")
            assert opened["iss"] == f"{site.origin}/fhir"
            body = (await authorize(site, browser, app, opened["launch"])).json()
            assert body["patient"] == "p1"
            assert "user/" not in body["scope"]
            tokens[app] = body["access_token"]
    assert len(set(tokens.values())) == 3
    for token in tokens.values():
        await reads_one_patient_alone(site, token)


async def reads_one_patient_alone(site: Site, token: str) -> None:
    """The same token: the patient's Observations and frames, and of another patient nothing."""
    async with httpx.AsyncClient(
        base_url=site.origin, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
    ) as http:
        for query in ("Observation", "Observation?patient=p1", "Observation?code:text=pain"):
            found = (await http.get(f"/fhir/{query}")).json()
            assert [entry["resource"]["id"] for entry in found["entry"]] == ["o-p1"], query
        assert (await http.get("/fhir/Observation/o-p1")).status_code == 200
        own, other = [await frame_of(site, patient) for patient in ("p1", "p2")]
        frame = await http.get(own)
        assert frame.status_code == 200
        assert b"\r\n\r\n" in frame.content
        assert len(frame.content) > 1000
        studies = (await http.get("/dicom-web/studies", headers={"Accept": "application/dicom+json"})).json()
        assert [item["0020000D"]["Value"][0] for item in studies] == [site.studies["p1"]]
        # Of the other patient: what is there answers like what is not there.
        assert (await http.get(other)).status_code == 404
        assert (await http.get(f"/dicom-web/studies/{site.studies['p2']}/metadata")).status_code == 404
        assert (await http.get("/fhir/Observation/o-p2")).status_code == 404
        assert (await http.get("/fhir/Patient/p2")).status_code == 404
        nothing = (await http.get("/fhir/Observation?patient=p2")).json()
        assert (nothing.get("total"), nothing.get("entry", [])) == (0, [])
        # Of the patient: what the scope does not name.
        assert (await http.get("/fhir/Encounter/e-p1")).status_code == 403
        changed: dict[str, Any] = {"resourceType": "Observation", "id": "o-p1", "status": "amended"}
        written = await http.put(
            "/fhir/Observation/o-p1", json=changed, headers={"Content-Type": "application/fhir+json"}
        )
        assert written.status_code == 403


async def frame_of(site: Site, patient: str) -> str:
    """Path of the first frame of a patient's study, as an operator knows it."""
    study = site.studies[patient]
    found = site.running.http.get(
        f"/dicom-web/studies/{study}/instances", headers={"Accept": "application/dicom+json"}
    ).json()[0]
    series, instance = found["0020000E"]["Value"][0], found["00080018"]["Value"][0]
    return f"/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/1"


async def test_a_launch_is_for_one_app_one_person_and_once(site: Site):
    async with site.signed_in() as browser:
        opened = await launch(browser, "growth", patient="p1", intent="plan", need_patient_banner="true")
        body = (await authorize(site, browser, "growth", opened["launch"])).json()
        told = {name: body.get(name) for name in ("patient", "intent", "need_patient_banner")}
        assert told == {"patient": "p1", "intent": "plan", "need_patient_banner": True}
        opened = await launch(browser, "growth", patient="p1")
        with pytest.raises(KeyError):  # no code for another app: the answer is an error
            await authorize(site, browser, "rehab", opened["launch"])
        assert location_of(browser)["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "needs a patient"),
        ({"patient": "nobody"}, "no such patient"),
        ({"patient": "p1/../p2"}, "logical id"),
        ({"patient": "p1", "encounter": "e-p2"}, "no such encounter"),
        ({"patient": "p1", "encounter": "e-p1?x"}, "logical id"),
        ({"patient": "p1", "smart_style_url": "javascript:alert(1)"}, "https URL"),
        ({"patient": "p1", "intent": "x" * 257}, "short text"),
        ({"patient": "p1", "app": "no-such-app"}, "Choose an app"),
        ({"patient": "p1", "app": "foramen-worker"}, "Choose an app"),
        ({"patient": "p1", "type": "by-magic"}, "kind of launch"),
        ({"patient": "p1", "app": "foramen-launcher", "scope": "x" * 2001}, "scope"),
    ],
)
async def test_what_cannot_be_launched_shows_the_form_again_and_launches_nothing(
    site: Site, wrong: dict[str, str], said: str
):
    async with site.signed_in() as browser:
        before = site.running.search("AuditEvent?subtype=launch&_summary=count")
        page = await browser.choose(**{"app": "growth", "type": "ehr", **wrong})
        assert page.status_code == 400
        assert said in browser.text
        assert "启动方式" in browser.text
        assert site.running.search("AuditEvent?subtype=launch&_summary=count") == before


async def test_a_standalone_app_and_a_service_get_words_no_launch(site: Site):
    async with site.signed_in() as browser:
        page = await browser.choose("show", app="growth", type="standalone")
        assert f"{site.origin}/fhir" in browser.text
        assert "launch=" not in page.text
        await browser.open("/apps/launcher/")
        await browser.choose("show", type="backend")
        assert "foramen-worker" in browser.text
        assert f"{site.origin}/auth/token" in browser.text


async def test_the_form_may_lead_to_registered_apps_and_nowhere_else(site: Site):
    async with site.signed_in() as browser:
        assert browser.page is not None
        policy = browser.page.headers["content-security-policy"]
        form_action = next(part for part in policy.split("; ") if part.startswith("form-action"))
        assert form_action == f"form-action 'self' {site.origin} http://localhost:{site.running.settings.port}"


async def test_an_ehr_launches_the_launcher_and_only_our_own_server_is_believed(site: Site):
    async with site.signed_in() as browser:
        await browser.open("/apps/launcher/")
        await browser.choose("show", app="foramen-launcher", type="ehr", patient="p1", scope="launch openid")
        page = await browser.open("/apps/launcher/app", params={"iss": "https://evil.example/fhir", "launch": "x"})
        assert page.status_code == 400
        assert "<textarea" not in page.text
        page = await browser.open("/apps/launcher/app", params={"iss": f"{site.origin}/fhir", "launch": "abc"})
        assert page.status_code == 200
        page = await browser.submit(scope="launch openid")
        assert "launch=abc" in page.text


async def test_demonstration_accounts_sign_in_through_the_ordinary_form(site: Site):
    async with site.signed_in() as browser:
        assert browser.page is not None
        assert 'value="integrator"' in browser.page.text
        page = await browser.submit(1)  # there is no such account here: its button opens nothing
        assert str(page.url).endswith("/auth/login")
        assert page.status_code == 403
