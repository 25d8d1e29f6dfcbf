"""Be the app: the whole code flow against the real server, and each fault as the server really answers it."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from foramen.launcher import faults
from foramen.launcher.trials import MOST_EXCHANGES
from tests.contract.launcher.conftest import EHR, OFFLINE, Pages, Site

SMART = "hl7.fhir.uv.smart-app-launch_2.2.0"


def variable(browser: Pages, name: str) -> str:
    """The newest token on the page, as it can be copied."""
    assert browser.page is not None
    return re.findall(rf"{name}='([^']+)'", browser.page.text)[-1]


@pytest.mark.requirement(f"{SMART}#launch-standalone")
async def test_every_step_is_shown_with_its_real_answer(site: Site):
    async with site.signed_in() as browser:
        page = await browser.walk(consent="true", scope=OFFLINE)
        assert browser.cards == [("discovery", 200), ("authorize", 0), ("callback", 0), ("token", 200), ("keys", 200)]
        assert browser.checks.keys() > {"state", "iss", "access_token signature", "id_token signature"}
        assert browser.checks.keys() > {"id_token nonce", "id_token at_hash", "access_token aud", "id_token aud"}
        assert all(browser.checks.values())
        for step in ("patient", "observations", "studies", "introspection", "refresh", "revocation"):
            page = await browser.press("step", step)
            assert browser.cards[-1] == (step, 200), browser.text
        assert page.headers["cache-control"] == "no-store"
        for said in ("SYN p1", "o-p1", site.studies["p1"], '"active": true', "at+jwt", "code_challenge_method"):
            assert said in browser.text
        for hidden in ("SYN p2", "o-p2", site.studies["p2"]):
            assert hidden not in browser.text


@pytest.mark.requirement(f"{SMART}#launch-ehr")
async def test_an_ehr_launch_gives_the_context_that_was_chosen(site: Site):
    async with site.signed_in() as browser:
        style = "https://style.example.org/hospital.json"
        chosen = {"type": "ehr", "scope": EHR, "patient": "p2", "encounter": "e-p2", "intent": "review"}
        page = await browser.walk(**chosen, smart_style_url=style)
        assert page.status_code == 200
        assert ("token", 200) in browser.cards
        told = ('"patient": "p2"', '"encounter": "e-p2"', '"intent": "review"', style, '"need_patient_banner": false')
        for said in told:
            assert said in browser.text
        await browser.press("step", "studies")
        assert site.studies["p2"] in browser.text
        assert site.studies["p1"] not in browser.text


@pytest.mark.parametrize(
    ("fault", "steps", "error"),
    [
        ("wrong-verifier", [("token", 400)], "invalid_grant"),
        ("replayed-code", [("token", 200), ("token", 400)], "invalid_grant"),
        ("wrong-redirect-uri-at-token", [("token", 400)], "invalid_grant"),
        ("invalid-client", [("token", 400)], "invalid_client"),
        ("unknown-scope", [], "invalid_scope"),
        ("expired-launch", [], "invalid_request"),
        ("pkce-plain", [], "invalid_request"),
        ("no-pkce", [], "invalid_request"),
        ("another-audience", [], "invalid_request"),
    ],
)
async def test_a_fault_is_refused_as_the_standard_says(site: Site, fault: str, steps: list, error: str):
    ehr = {"type": "ehr", "patient": "p1", "scope": EHR} if fault == "expired-launch" else {}
    async with site.signed_in() as browser:
        await browser.walk(fault=fault, **ehr)
        assert browser.cards[:3] == [("discovery", 200), ("authorize", 0), ("callback", 0)]
        assert [card for card in browser.cards if card[0] == "token"] == steps
        assert error in browser.text
        assert faults.FAULTS[fault].places[0].name in browser.text
        if not steps:
            assert browser.checks["error"] is False
            assert browser.checks["state"] is True


async def test_a_redirect_uri_that_is_not_registered_leads_nowhere(site: Site):
    async with site.signed_in() as browser:
        await browser.walk(fault="wrong-redirect-uri")
        assert browser.cards == [("discovery", 200), ("authorize", 400)]
        assert "location:" not in browser.text
        assert "/callback/elsewhere" in browser.text


async def test_an_answer_without_state_is_refused_by_the_app(site: Site):
    async with site.signed_in() as browser:
        await browser.walk(fault="missing-state")
        assert browser.cards == [("discovery", 200), ("authorize", 0), ("callback", 0)]
        assert browser.checks == {"issuer": True, "state": False, "iss": True}
        assert "access_token" not in browser.text


async def test_the_id_token_opens_no_resource(site: Site):
    async with site.signed_in() as browser:
        await browser.walk(fault="id-token-as-access-token")
        for step in ("patient", "observations", "studies"):
            await browser.press("step", step)
            assert browser.cards[-1] == (step, 401)
        await browser.press("step", "introspection")  # with the right token, which lives
        assert '"active": true' in browser.text


async def test_a_refresh_token_used_twice_ends_everything(site: Site):
    async with site.signed_in() as browser:
        await browser.walk(fault="reused-refresh-token")
        await browser.press("step", "refresh")
        assert browser.cards[-2:] == [("refresh", 200), ("refresh", 400)]
        await until_refused(browser)


async def test_a_replayed_code_ends_the_first_tokens(site: Site):
    async with site.signed_in() as browser:
        await browser.walk(fault="replayed-code")
        await until_refused(browser)


async def until_refused(browser: Pages) -> None:
    """Read until the token is refused: revocation reaches the record within seconds."""
    deadline = time.monotonic() + 15
    while True:
        await browser.press("step", "patient")
        if browser.cards[-1] == ("patient", 401):
            return
        assert time.monotonic() < deadline, browser.cards
        await asyncio.sleep(0.5)


async def test_every_fault_is_tried_here():
    marks = test_a_fault_is_refused_as_the_standard_says.pytestmark
    tried = {case[0] for mark in marks if mark.name == "parametrize" for case in mark.args[1]}
    alone = {"wrong-redirect-uri", "missing-state", "id-token-as-access-token", "reused-refresh-token"}
    assert tried | alone == set(faults.FAULTS)


async def test_a_step_is_not_done_twice_where_it_can_be_done_once(site: Site):
    async with site.signed_in() as browser:
        page = await browser.walk()
        trial = str(page.url).partition("#")[0]
        form = {"csrf": re.findall(r'name="csrf" value="([0-9a-f]+)"', page.text)[0], "step": "authorize"}
        assert (await browser.http.post(trial, data=form)).status_code == 409
        assert (await browser.http.post(trial, data={**form, "step": "format-disk"})).status_code == 400
        await browser.open(trial)
        assert len(browser.cards) == 5
        token = variable(browser, "ACCESS_TOKEN")
        page = await browser.press("step", "end")
        assert str(page.url).endswith("/apps/launcher/")
        assert (await browser.http.get(trial)).status_code == 404
        deadline = time.monotonic() + 15
        while (await browser.http.get("/fhir/Patient/p1", headers={"Authorization": f"Bearer {token}"})).is_success:
            assert time.monotonic() < deadline, "its tokens live on"
            await asyncio.sleep(0.5)


async def test_a_trial_does_not_grow_without_end(site: Site):
    """Each of its requests is sealed, opened and shown again with every step, in the process that serves all others."""
    async with site.signed_in() as browser:
        page = await browser.walk()
        trial = str(page.url).partition("#")[0]
        form = {"csrf": re.findall(r'name="csrf" value="([0-9a-f]+)"', page.text)[0], "step": "patient"}
        token = variable(browser, "ACCESS_TOKEN")
        for _ in range(MOST_EXCHANGES - len(browser.cards)):
            assert (await browser.http.post(trial, data=form)).status_code == 303
        refused = await browser.http.post(trial, data=form)
        assert refused.status_code == 409
        assert f"keeps {MOST_EXCHANGES} requests" in refused.text
        await browser.open(trial)
        assert len(browser.cards) == MOST_EXCHANGES
        assert 'value="patient"' not in browser.page.text
        assert str(MOST_EXCHANGES) in browser.text
        await browser.press("step", "end")  # which still ends the tokens
        assert (await browser.http.get(trial)).status_code == 404
        deadline = time.monotonic() + 15
        while (await browser.http.get("/fhir/Patient/p1", headers={"Authorization": f"Bearer {token}"})).is_success:
            assert time.monotonic() < deadline, "its tokens live on"
            await asyncio.sleep(0.5)
