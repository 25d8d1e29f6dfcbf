"""Signing out and issuing at the same moment: whatever the order, nothing lives on that the session opened."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import text

from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.token_families import Family, save_authorization
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.accounts import (
    begin_sign_in,
    end_access,
    ensure_user,
    require_account,
    set_password_hash,
    sign_in_succeeded,
)
from foramen.identity.people.known_devices import remember
from foramen.identity.people.sessions import end_session, live_session, renew_session, start_session
from foramen.identity.rights.permissions import GRANT, WITHDRAW, change_permission
from tests.contract.smart.conftest import PASSWORD, App, Smart, sign_in


async def _held_back(smart: Smart, request, session: str):
    """Start a request while a sign-out of the session is under way; it has to wait for that."""
    with transaction(smart.database_url) as connection:
        connection.execute(text("DELETE FROM identity.session WHERE session_digest = :d"), {"d": session})
        task = asyncio.ensure_future(request())
        await asyncio.sleep(0.4)
        assert not task.done(), "it was answered by a session that is ending"
    return await asyncio.wait_for(task, 10)


def session_of(smart: Smart, browser) -> str:
    cookies = {cookie.name: cookie.value for cookie in browser.http.cookies.jar}
    return digest(str(cookies["foramen-session"]))


async def test_a_code_exchange_waits_for_a_sign_out_under_way(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    code = browser.answer["code"]
    answer = await _held_back(smart, lambda: portal.exchange(code), session_of(smart, browser))
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_grant"


async def test_a_refresh_waits_for_a_sign_out_under_way(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    refresh = (await portal.exchange(browser.answer["code"])).json()["refresh_token"]

    async def renew():
        data = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": "portal"}
        return await smart.http().post("/auth/token", data=data)

    answer = await _held_back(smart, renew, session_of(smart, browser))
    assert answer.json()["error"] == "invalid_grant"


async def test_an_authorization_waits_for_a_sign_out_under_way(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    answer = await _held_back(
        smart, lambda: browser.http.get(portal.url(), follow_redirects=False), session_of(smart, browser)
    )
    assert "/auth/login" in answer.headers["location"]


async def test_a_sign_in_with_a_live_session_needs_no_transaction(smart: Smart, portal: App, monkeypatch):
    """Two statements each for code and tokens (ADR 0046); a second use of the code is found all the same."""
    browser = smart.browser()
    await sign_in(browser, portal)

    async def refuse(*_):
        raise AssertionError("it began a transaction")

    with monkeypatch.context() as patched:
        patched.setattr(smart.service.environment.database, "run", refuse)
        sent = await browser.http.get(portal.url(), follow_redirects=False)
        code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
        issued = await portal.exchange(code)
        assert issued.status_code == 200
        assert issued.json()["refresh_token"]
    assert (await portal.exchange(code)).json()["error"] == "invalid_grant"
    rows = smart.execute("SELECT revoked_at FROM identity.token_family ORDER BY expires_at DESC LIMIT 1")
    assert rows[0][0] is not None, "a code used twice revokes what it gave"


async def test_codes_used_twice_at_once_give_tokens_once(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    code = browser.answer["code"]
    answers = await asyncio.gather(*(portal.exchange(code) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


@pytest.mark.parametrize("step", ["authorization", "exchange"])
async def test_what_is_issued_goes_by_rights_that_are_being_changed(smart: Smart, portal: App, step: str):
    """The rights were read before the change is there to be read: what is written by them has to notice."""
    browser = smart.browser()
    await sign_in(browser, portal)
    code = browser.answer["code"]

    async def request():
        if step == "exchange":
            return await portal.exchange(code)
        return await browser.http.get(portal.url(), follow_redirects=False)

    def decide(connection, effect: str) -> None:
        surgeon = require_account(connection, "surgeon")
        why = {"reason": "SYNTHETIC", "decided_by": "operator"}
        change_permission(connection, surgeon, "read-identified", effect, **why)

    try:
        with transaction(smart.database_url) as connection:
            decide(connection, WITHDRAW)
            task = asyncio.ensure_future(request())
            await asyncio.sleep(0.4)
            assert not task.done(), "it was answered by rights that are being changed"
        answer = await asyncio.wait_for(task, 10)
    finally:
        with transaction(smart.database_url) as connection:
            decide(connection, GRANT)
    if step == "exchange":
        assert answer.json()["error"] == "invalid_grant"
    else:
        given = parse_qs(urlsplit(answer.headers["location"]).query)
        scope = smart.execute(
            "SELECT scope FROM identity.token_family JOIN identity.authorization_code USING (family) "
            "WHERE code_digest = :code",
            code=digest(given["code"][0]) if "code" in given else "",
        )
        assert not scope or "user/*.rs" not in scope[0][0]


@pytest.mark.parametrize("browser", ["unknown", "known"])
def test_a_sign_in_under_way_does_not_outlive_its_password(smart: Smart, browser: str):
    """The old password was found right; before the session begins a new one is set, and all sessions end."""
    name, device, now = f"racer-{browser}", f"SYNTHETIC device {browser}", utc_now()
    ensure_user(smart.database_url, name, PASSWORD, "physician")
    with transaction(smart.database_url) as connection:
        if browser == "known":
            remember(connection, None, device, name, now)
    with transaction(smart.database_url) as connection:
        attempt = begin_sign_in(connection, name, device, now)
    assert (attempt.device is not None) == (browser == "known")

    def finish() -> bool:
        with transaction(smart.database_url) as connection:
            return sign_in_succeeded(connection, name, attempt.device, attempt.password_hash) is not None

    with ThreadPoolExecutor(1) as pool:
        with transaction(smart.database_url) as connection:
            set_password_hash(connection, name, "SYNTHETIC another hash", None)
            entered = pool.submit(finish)
            time.sleep(0.4)
            assert not entered.done(), f"it has to wait for the change: {entered}"
        assert entered.result(10) is False


@pytest.mark.parametrize("end", ["sign-out", "all access", "new id"])
def test_an_end_waits_for_what_is_being_issued(smart: Smart, end: str):
    """The family is there, not committed, when the session ends: it has to be revoked all the same."""
    now = utc_now()
    with transaction(smart.database_url) as connection:
        session = digest(start_session(connection, "surgeon", None, now))
    family = Family("portal", "surgeon", "openid", session_digest=session)

    def finish() -> None:
        with transaction(smart.database_url) as connection:
            if end == "sign-out":
                end_session(connection, session)
            elif end == "all access":
                end_access(connection, "surgeon")
            else:
                renew_session(connection, session)

    with ThreadPoolExecutor(1) as pool:
        with transaction(smart.database_url) as connection:
            assert live_session(connection, session, now, 3600, lock=True) is not None
            save_authorization(connection, family, timedelta(hours=1), f"SYNTHETIC-{end}")
            ended = pool.submit(finish)
            time.sleep(0.4)
            assert not ended.done(), f"it has to wait for what is being issued: {ended}"
        ended.result(10)
    query = "SELECT revoked_at IS NOT NULL, session_digest FROM identity.token_family WHERE family = :f"
    revoked, moved = smart.execute(query, f=family.family)[0]
    assert revoked if end != "new id" else moved != session
