"""Signing out and issuing at the same moment: whatever the order, nothing lives on that the session opened."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.token_families import Family, save_authorization
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.accounts import end_access
from foramen.identity.people.sessions import end_session, live_session, renew_session, start_session
from tests.contract.smart.conftest import App, Smart, sign_in


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
            assert not ended.done(), "it has to wait for what is being issued"
        ended.result(10)
    query = "SELECT revoked_at IS NOT NULL, session_digest FROM identity.token_family WHERE family = :f"
    revoked, moved = smart.execute(query, f=family.family)[0]
    assert revoked if end != "new id" else moved != session
