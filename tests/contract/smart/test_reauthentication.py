"""OpenID Connect `prompt` and `max_age`: who has to prove anew who they are, and how an app learns that it was done.

OpenID Connect Core §3.1.2.1, §3.1.2.6, §2 (auth_time)
"""

from __future__ import annotations

import time

import pytest
from argon2 import PasswordHasher
from joserfc import jwt

from tests.builders.browser import Browser
from tests.contract.smart.conftest import PASSWORD, App, Smart, sign_in


@pytest.fixture(autouse=True, scope="module")
def cheap_passwords(smart: Smart) -> None:
    """The same passwords at a small cost: these tests sign in often and measure nothing of it."""
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    smart.execute("UPDATE identity.account SET password_hash = :hash", hash=cheap)


@pytest.fixture
async def browser(smart: Smart, portal: App) -> Browser:
    """Signed in as the surgeon, ten minutes ago."""
    found = smart.browser()
    await sign_in(found, portal)
    smart.execute(
        "UPDATE identity.session SET signed_in_at = now() - interval '10 minutes',"
        " authenticated_at = now() - interval '10 minutes' WHERE account = 'surgeon'"
    )
    return found


async def auth_time(smart: Smart, app: App, browser: Browser) -> float:
    """Seconds since the sign-in that the id_token tells of."""
    body = (await app.exchange(browser.answer["code"])).json()
    claims = jwt.decode(body["id_token"], smart.service._signer.key_set(), algorithms=["RS256", "ES256"]).claims
    return time.time() - claims["auth_time"]


@pytest.mark.parametrize("asked", [{"max_age": "599"}, {"max_age": "0"}, {"prompt": "login"},
                                   {"prompt": "select_account"}, {"prompt": "login", "max_age": "86400"}])  # fmt: skip
async def test_the_person_signs_in_again_once(smart: Smart, portal: App, browser: Browser, asked: dict[str, str]):
    page = await browser.open(portal.url(**asked))
    assert 'name="password"' in page.text
    assert (await browser.submit(username="surgeon", password="a wrong password")).status_code == 403
    await browser.submit(username="surgeon", password=PASSWORD)
    assert await auth_time(smart, portal, browser) < 60


async def test_a_sign_in_that_is_recent_enough_is_enough(smart: Smart, portal: App, browser: Browser):
    await browser.open(portal.url(max_age="700"))
    assert 599 <= await auth_time(smart, portal, browser) < 660


@pytest.mark.parametrize("asked", [{"max_age": "599"}, {"max_age": "0"}])
async def test_without_a_page_it_is_login_required(smart: Smart, portal: App, browser: Browser, asked: dict[str, str]):
    await browser.open(portal.url(prompt="none", **asked))
    assert browser.answer["error"] == "login_required"
    assert (browser.answer["state"], browser.answer["iss"]) == (portal.state, smart.settings.issuer)
    await browser.open(portal.url(prompt="none", max_age="700"))
    assert "code" in browser.answer


async def test_what_else_would_need_a_page_is_said_to_the_app(smart: Smart, growth: App, browser: Browser):
    smart.execute("DELETE FROM identity.consent")
    await browser.open(growth.url(prompt="none"))
    assert browser.answer["error"] == "interaction_required", "the patient has to be chosen"
    await browser.open(growth.url(prompt="none", scope="openid user/Observation.r"))
    assert browser.answer["error"] == "consent_required"


async def test_a_new_password_or_factor_is_no_new_sign_in(smart: Smart, portal: App, browser: Browser):
    from foramen.identity.database import transaction, utc_now
    from foramen.identity.people.sessions import add_factor, renew_session

    (row,) = smart.execute(
        "SELECT session_digest FROM identity.session WHERE account = 'surgeon' ORDER BY last_seen_at DESC LIMIT 1"
    )
    with transaction(smart.database_url) as connection:
        add_factor(connection, row[0], "totp", utc_now(), proves_person=False)
        cookie = renew_session(connection, row[0])
    browser.http.cookies.delete("foramen-session")
    browser.http.cookies.set("foramen-session", cookie, domain="127.0.0.1", path="/")
    await browser.open(portal.url(prompt="none", max_age="599"))
    assert browser.answer["error"] == "login_required"


@pytest.mark.parametrize("wrong", ["-1", "soon", "1.5", "٣", "1" * 10])
async def test_a_max_age_that_is_no_number_is_refused(smart: Smart, portal: App, wrong: str):
    browser = smart.browser()
    await browser.open(portal.url(max_age=wrong))
    assert browser.answer["error"] == "invalid_request"
