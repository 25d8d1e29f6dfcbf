"""The sign-in form: lock-out, equal answers, CSRF, session fixation, time-outs, clickjacking."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.identity.app import IdentityService, ensure_user
from foramen.kernel.settings import Settings
from tests.builders.browser import forms_of
from tests.contract.smart.conftest import PASSWORD, App, Smart, sign_in

COOKIE = "foramen-session"


async def attempt(smart: Smart, app: App, name: str, password: str):
    browser = smart.browser()
    await browser.open(app.url())
    page = await browser.submit(username=name, password=password)
    return browser, page


async def test_wrong_password_and_unknown_user_get_the_same_answer(smart: Smart, portal: App):
    """That both cost the same work: test_throttling.py counts it."""
    for name in ("surgeon", "nobody-of-that-name"):
        browser, page = await attempt(smart, portal, name, "wrong password 1")
        assert page.status_code == 403
        assert browser.redirected_to is None
        assert COOKIE not in browser.http.cookies
        assert name not in page.text


async def test_fifth_failure_locks_the_account_for_a_while_and_says_no_more_than_before(smart: Smart, portal: App):
    ensure_user(smart.database_url, "locked", PASSWORD, "physician", "dr3")
    for _ in range(5):
        _, page = await attempt(smart, portal, "locked", "wrong password 1")
        assert page.status_code == 403
    _, locked = await attempt(smart, portal, "locked", PASSWORD)
    assert locked.status_code == 403
    smart.execute("UPDATE identity.account SET locked_until = now() - interval '1 second' WHERE name = 'locked'")
    browser, _ = await attempt(smart, portal, "locked", PASSWORD)
    assert "code" in browser.answer
    assert smart.execute("SELECT failed_attempts FROM identity.account WHERE name = 'locked'")[0][0] == 0


async def test_four_failures_do_not_lock_and_success_forgets_them(smart: Smart, portal: App):
    ensure_user(smart.database_url, "clumsy", PASSWORD, "physician", "dr4")
    for _ in range(2):
        for _ in range(4):
            await attempt(smart, portal, "clumsy", "wrong password 1")
        browser, _ = await attempt(smart, portal, "clumsy", PASSWORD)
        assert "code" in browser.answer


async def test_disabled_user_cannot_sign_in_and_loses_the_session(smart: Smart, portal: App):
    ensure_user(smart.database_url, "leaver", PASSWORD, "physician", "dr5")
    browser, _ = await attempt(smart, portal, "leaver", PASSWORD)
    body = (await portal.exchange(browser.answer["code"])).json()
    smart.execute("UPDATE identity.account SET disabled = true WHERE name = 'leaver'")
    page = await browser.open(portal.url())
    assert 'name="password"' in page.text
    assert (await portal.refresh(body["refresh_token"])).json()["error"] == "invalid_grant"
    _, page = await attempt(smart, portal, "leaver", PASSWORD)
    assert page.status_code == 403


@pytest.mark.parametrize("token", [None, "", "0" * 64])
async def test_form_without_its_token_is_refused(smart: Smart, portal: App, token: str | None):
    browser = smart.browser()
    page = await browser.open(portal.url())
    fields = forms_of(page.text)[0].fields
    data = {**fields, "username": "surgeon", "password": PASSWORD, "csrf": token}
    answer = await browser.http.post("/auth/login", data={k: v for k, v in data.items() if v is not None})
    assert answer.status_code == 403
    assert COOKIE not in browser.http.cookies


async def test_token_of_another_browser_is_refused(smart: Smart, portal: App):
    attacker, victim = smart.browser(), smart.browser()
    page = await attacker.open(portal.url())
    fields = forms_of(page.text)[0].fields
    await victim.open(portal.url())
    answer = await victim.http.post("/auth/login", data={**fields, "username": "surgeon", "password": PASSWORD})
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["/auth/consent", "/auth/patient", "/auth/logout"])
async def test_every_other_form_needs_its_token_too(smart: Smart, portal: App, path: str):
    browser = smart.browser()
    await sign_in(browser, portal)
    answer = await browser.http.post(path, data={"request": "x", "decision": "allow", "patient": "p1"})
    assert answer.status_code == 403
    await browser.open(portal.url(prompt="none"))
    assert "code" in browser.answer


async def test_sign_in_gives_a_new_session_id_and_ends_the_one_that_was_planted(smart: Smart, portal: App):
    browser = smart.browser()
    browser.http.cookies.set(COOKIE, "planted-by-an-attacker", domain="127.0.0.1", path="/")
    await sign_in(browser, portal)
    first = [cookie.value for cookie in browser.http.cookies.jar if cookie.name == COOKIE]
    assert "planted-by-an-attacker" not in first
    await browser.open(portal.url(prompt="login"))
    await browser.submit(username="surgeon", password=PASSWORD)
    second = [cookie.value for cookie in browser.http.cookies.jar if cookie.name == COOKIE]
    assert set(first).isdisjoint(second)
    stolen = smart.browser()
    stolen.http.cookies.set(COOKIE, first[0], domain="127.0.0.1", path="/")
    await stolen.open(portal.url(prompt="none"))
    assert stolen.answer["error"] == "login_required"


async def test_session_cookie_flags(smart: Smart, portal: App):
    browser = smart.browser()
    page = await browser.open(portal.url())
    form = forms_of(page.text)[0]
    answer = await browser.http.post(form.action, data={**form.fields, "username": "surgeon", "password": PASSWORD})
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith(COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/;" in cookie + ";"
    assert "Domain" not in cookie
    stored = smart.execute("SELECT session_digest FROM identity.session")
    assert all(cookie.split("=")[1].split(";")[0] != row[0] for row in stored)


async def test_under_https_cookies_are_secure_and_bound_to_the_host(smart: Smart, tmp_path: Path):
    origin = "https://foramen.example"
    settings = Settings(home=tmp_path, public_url=origin)
    service = IdentityService(settings, smart.database_url)
    app = Starlette(routes=[Mount("/auth", service.app)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=origin) as http:
        page = await http.get("/auth/login?lang=en")
        form = forms_of(page.text)[0]
        answer = await http.post(form.action, data={**form.fields, "username": "surgeon", "password": PASSWORD})
    await service.stop()
    assert answer.status_code == 303
    cookies = [*page.headers.get_list("set-cookie"), *answer.headers.get_list("set-cookie")]
    assert len(cookies) == 5  # language, form token, session, known device, form token removed
    for cookie in cookies:
        assert cookie.startswith("__Host-foramen-")
        assert "Secure" in cookie
        assert "HttpOnly" in cookie


async def test_idle_session_ends(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    smart.execute("UPDATE identity.session SET last_seen_at = now() - interval '601 seconds'")
    await browser.open(portal.url(prompt="none"))
    assert browser.answer["error"] == "login_required"


async def test_pages_cannot_be_framed_cached_or_scripted(smart: Smart, portal: App):
    browser = smart.browser()
    for page in (await browser.open(portal.url()), await browser.open("/auth/authorize?client_id=nobody")):
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "<script" not in page.text


async def test_consent_form_may_lead_back_to_the_app_only(smart: Smart, growth: App):
    browser = smart.browser()
    await sign_in(browser, growth)
    await browser.submit(1, patient="p1")
    policy = browser.page.headers["content-security-policy"]
    assert "form-action 'self' https://app.example.org;" in policy


async def test_language_switch_without_script(smart: Smart, portal: App):
    browser = smart.browser()
    page = await browser.open(portal.url())
    assert 'lang="zh-CN"' in page.text
    assert "本软件不是注册医疗器械" in page.text
    english = await browser.open(str(page.url) + "&lang=en")
    assert "Not a registered medical device" in english.text
    assert 'lang="en"' in (await browser.open(portal.url())).text


async def test_sign_in_page_alone_leads_to_the_portal(smart: Smart):
    browser = smart.browser()
    await browser.open("/auth/login")
    await browser.submit(username="surgeon", password=PASSWORD)
    assert browser.redirected_to == "http://127.0.0.1:18999/"
