"""Who may use the launcher, and what stays with whom: policy on each request, CSRF, state, sessions, secrets."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import text

from foramen.identity.database import transaction
from foramen.identity.people.accounts import require_account
from foramen.identity.rights.permissions import GRANT, WITHDRAW, change_permission
from foramen.launcher.app import ROUTES
from tests.contract.launcher.conftest import EHR, Pages, Site
from tests.contract.launcher.test_walk import variable

EVERY = [(path, method) for path, methods in ROUTES.items() for method in methods]


def execute(site: Site, statement: str, **values: str) -> list:
    with transaction(site.running.database_url) as connection:
        return list(connection.execute(text(statement), values))


@pytest.mark.parametrize(("path", "method"), EVERY)
async def test_without_the_permission_nothing_is_shown(site: Site, path: str, method: str):
    async with site.signed_in("colleague") as browser:
        assert browser.page is not None
        assert browser.page.status_code == 403
        assert "try-launches" in browser.page.text
        answer = await browser.http.request(method, f"/apps/launcher{path.replace('{trial}', 'x')}", data={"a": "b"})
        assert answer.status_code == 403
        assert "try-launches" in answer.text


@pytest.mark.parametrize(("path", "method"), EVERY)
async def test_who_is_not_signed_in_is_sent_to_sign_in(site: Site, path: str, method: str):
    async with site.signed_in() as browser:
        browser.http.cookies.clear()
        answer = await browser.http.request(method, f"/apps/launcher{path.replace('{trial}', 'x')}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/auth/login?then=launcher")


async def test_the_policy_is_asked_on_every_request_and_a_refusal_is_audited(site: Site):
    async with site.signed_in() as browser:
        assert browser.page is not None
        assert browser.page.status_code == 200
        decide(site, WITHDRAW)
        try:
            assert (await browser.open("/apps/launcher/")).status_code == 403
        finally:
            decide(site, GRANT)
        assert (await browser.open("/apps/launcher/")).status_code == 200
    assert ("surgeon", "try-launches") in events(site, "4")


def decide(site: Site, effect: str) -> None:
    with transaction(site.running.database_url) as connection:
        surgeon = require_account(connection, "surgeon")
        change_permission(connection, surgeon, "try-launches", effect, reason="test", decided_by="test")


def events(site: Site, outcome: str) -> set[tuple[str, str]]:
    """Who used the launcher, for what, with this outcome: events that wait for delivery, and those in the record."""
    waiting = [row[0] for row in execute(site, "SELECT event FROM identity.audit_outbox")]
    found = waiting + site.running.search(f"AuditEvent?outcome={outcome}&type=110114&_count=500&_sort=-date")
    named = [event for event in found if event["subtype"][0]["code"] == "launcher"]
    ours = [event for event in named if event["outcome"] == outcome]
    return {(event["agent"][0]["altId"], event.get("outcomeDesc", "")) for event in ours}


async def test_an_engineer_tries_without_reading_anybody(site: Site):
    async with site.signed_in("tech") as browser:
        assert "SYN p1" not in browser.text
        page = await browser.walk(type="ehr", scope=EHR, patient="p1")
        assert page.status_code == 200
        assert ("token", 200) in browser.cards
        granted = " ".join(re.findall(r'"scope": "([^"]+)"', browser.text))
        assert "openid" in granted
        assert not re.findall(r"/(\*|Patient|Observation|ImagingStudy)\.", granted)
        for step in ("patient", "observations", "studies"):
            await browser.press("step", step)
            assert browser.cards[-1] == (step, 403), browser.cards


async def test_a_form_of_another_site_does_nothing(site: Site):
    async with site.signed_in() as browser:
        before = execute(site, "SELECT count(*) FROM identity.launch_trial")
        form = {"app": "foramen-launcher", "type": "standalone", "scope": "openid", "do": "open"}
        for csrf in ({}, {"csrf": "0" * 64}):
            answer = await browser.http.post("/apps/launcher/", data={**form, **csrf})
            assert answer.status_code == 403
        assert execute(site, "SELECT count(*) FROM identity.launch_trial") == before


async def test_a_trial_belongs_to_its_session_alone(site: Site):
    async with site.signed_in() as browser, site.signed_in(anew=True) as other:
        page = await browser.walk()
        trial = str(page.url).partition("#")[0]
        assert (await other.http.get(trial)).status_code == 404
        form = {"csrf": re.findall(r'name="csrf" value="([0-9a-f]+)"', other.page.text)[0], "step": "end"}
        await other.http.post(trial, data=form)
        assert (await browser.http.get(trial)).status_code == 200


@pytest.mark.requirement("rfc6749#10.12")
async def test_an_answer_is_taken_by_the_session_that_asked_and_from_the_server_it_asked(site: Site):
    async with site.signed_in() as browser, site.signed_in(anew=True) as other:
        page = await start(browser)
        state = re.findall(r"state=([\w-]+)", page.text)[0]
        assert (await callback(browser, code="c", state=state)).status_code == 400  # not asked yet
        csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', page.text)[0]
        sent = await browser.http.post(str(page.url), data={"csrf": csrf, "step": "authorize"})
        assert sent.headers["location"].startswith(f"{site.origin}/auth/authorize?")
        assert (await callback(other, code="c", state=state, iss=site.origin)).status_code == 400
        assert (await callback(browser, code="c", state="s", iss=site.origin)).status_code == 400
        assert (await callback(browser, code="c", state=state, iss="https://evil.example")).status_code == 303
        await browser.open(str(page.url))
        assert browser.checks["iss"] is False
        assert not [card for card in browser.cards if card[0] == "token"]


async def start(browser: Pages):
    await browser.open("/apps/launcher/")
    return await browser.choose()


async def callback(browser: Pages, **answer: str):
    return await browser.http.get("/apps/launcher/callback", params=answer)


async def test_tokens_are_on_the_page_alone(site: Site):
    async with site.signed_in() as browser:
        page = await browser.walk()
        tokens = [variable(browser, name) for name in ("ACCESS_TOKEN", "REFRESH_TOKEN", "ID_TOKEN")]
        assert all(len(token) > 20 for token in tokens)
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert not [token for token in tokens if token in str(page.url) or token in str(page.headers)]
        rows = str(execute(site, "SELECT * FROM identity.launch_trial"))
        logs = "".join(path.read_text(errors="replace") for path in site.running.settings.home.rglob("*.log"))
        assert str(page.url).partition("/trials/")[2].partition("#")[0] in rows
        assert not [token for token in tokens if token in rows or token in logs]
    assert ("surgeon", "trial without fault") in events(site, "0")


async def test_a_trial_ends_with_its_session_and_old_ones_make_room(site: Site):
    async with site.signed_in(anew=True) as browser:
        pages = [await start(browser) for _ in range(6)]
        found = [(await browser.http.get(str(page.url))).status_code for page in pages]
        assert found == [404, 200, 200, 200, 200, 200]
        ids = [str(page.url).rpartition("/")[2] for page in pages]
        wanted = "SELECT id FROM identity.launch_trial WHERE id = ANY(string_to_array(:ids, ' '))"
        assert len(execute(site, wanted, ids=" ".join(ids))) == 5
        await browser.open("/auth/logout")
        await browser.submit()
        assert execute(site, wanted, ids=" ".join(ids)) == []
