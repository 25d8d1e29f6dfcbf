"""The account page: password, factors, sessions, apps; each form needs its token, each change leaves an audit event."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from tests.builders.browser import forms_of
from tests.contract.smart.people import PASSWORD, People, cookie_of, options_of, people_server

NEW = "the river bends twice here"


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        with transaction(module_database_url) as connection:
            save_client(
                connection, Client("rehab", PUBLIC, "openid", ("https://app.example/cb",), None, "康复", "Rehab")
            )
        yield server


def form(page: str, action: str) -> int:
    """Number of the first form with this action."""
    return next(number for number, item in enumerate(forms_of(page)) if item.action == action)


async def send(browser, path: str, **values: str):
    return await browser.submit(form(browser.page.text, path), **values)


async def test_a_new_password_needs_the_old_one_and_ends_the_other_sessions(people: People):
    people.add("changer")
    browser, elsewhere = await people.signed_in("changer"), await people.signed_in("changer")
    family = uuid.uuid4()
    people.execute(
        "INSERT INTO identity.token_family VALUES (:f, 'rehab', 'changer', NULL, 'openid', '{}', NULL, NULL,"
        " now() + interval '1 day', NULL)",
        f=family,
    )
    before = cookie_of(browser)
    values = {"old_password": PASSWORD, "new_password": NEW, "new_password_again": NEW}
    page = await send(browser, "/auth/account/password", **{**values, "old_password": "not the old one"})
    assert page.status_code == 403
    for bad, problem in (("short", "太短"), ("passwordpassword", "容易被猜到"), ("changer-changer", "容易被猜到")):
        page = await send(
            browser, "/auth/account/password", **{**values, "new_password": bad, "new_password_again": bad}
        )
        assert page.status_code == 400, bad
        assert problem in page.text
        assert bad not in page.text
    page = await send(browser, "/auth/account/password", **{**values, "new_password_again": "another"})
    assert page.status_code == 400
    assert "不一致" in page.text
    page = await send(browser, "/auth/account/password", **values)
    assert str(page.url).endswith("?done=password-changed")
    assert cookie_of(browser) not in (before, None)  # a new id here, too
    assert "/auth/login" in str((await elsewhere.open("/auth/account")).url)
    assert people.execute("SELECT revoked_at IS NOT NULL FROM identity.token_family WHERE family = :f", f=family)[0][0]
    assert people.events("password-change") == [("8", None), ("0", None)]
    fresh = people.browser()
    assert (await people.passwords(fresh, "changer")).status_code == 403
    assert str((await people.passwords(fresh, "changer", NEW)).url).endswith("/auth/account")


async def test_the_old_password_cannot_be_guessed_with_a_stolen_session(people: People):
    people.add("stolen")
    browser = await people.signed_in("stolen")
    values = {"new_password": NEW, "new_password_again": NEW}
    for _ in range(5):
        page = await send(browser, "/auth/account/password", old_password="wrong and wrong", **values)
        assert page.status_code == 403
    page = await send(browser, "/auth/account/password", old_password=PASSWORD, **values)
    assert page.status_code == 403
    locked = "SELECT locked_until > now() FROM identity.{} WHERE {} = 'stolen'"
    assert people.execute(locked.format("known_device", "account")) == [(True,)]
    assert people.execute(locked.format("account", "name")) == [(None,)], "the thief locks the own place only"


async def test_factors_are_added_named_and_removed(people: People):
    people.add("keeper")
    browser = await people.signed_in("keeper")
    assert "仅凭密码" in browser.page.text
    await browser.open("/auth/enrol?then=account")
    otp, codes = await people.enrol_totp(browser)
    await browser.open("/auth/enrol/passkey?then=account")
    key = people.authenticator()
    await browser.submit(credential=key.create(options_of(browser.page.text)))
    page = await browser.open("/auth/account")
    assert page.text.count('name="factor"') == 2
    page = await send(browser, "/auth/account/factor", name="<b>My phone</b>", action="rename")
    assert "&lt;b&gt;My phone&lt;/b&gt;" in page.text
    await send(browser, "/auth/account/recovery-codes")
    assert codes[0] not in browser.page.text
    assert browser.page.text.count("<li><code>") == 10
    for _ in range(2):
        await browser.open("/auth/account")
        page = await send(browser, "/auth/account/factor", action="remove")
        assert str(page.url).endswith("?done=factor-removed")
    assert people.execute("SELECT count(*) FROM identity.recovery_code WHERE account = 'keeper'") == [(0,)]
    said = [reason for _, reason in people.events("second-factor")]
    assert said == ["added totp", "renamed", "new recovery codes", "removed"]
    assert [reason for _, reason in people.events("passkey")] == ["added passkey", "removed"]
    assert otp


async def test_the_last_factor_stays_where_the_role_needs_one(people: People):
    people.add("root", "system-administrator")
    browser = people.browser()
    await people.passwords(browser, "root")
    await people.enrol_totp(browser)
    await browser.open("/auth/account")
    page = await send(browser, "/auth/account/factor", action="remove")
    assert page.status_code == 400
    assert people.execute("SELECT count(*) FROM identity.totp_device WHERE account = 'root'") == [(1,)]


async def test_changing_factors_needs_a_recent_sign_in(people: People):
    people.add("away")
    browser = await people.signed_in("away")
    await browser.open("/auth/enrol?then=account")
    await people.enrol_totp(browser)
    page = await browser.open("/auth/account")
    people.execute(
        "UPDATE identity.session SET authenticated_at = now() - interval '16 minutes' WHERE account = 'away'"
    )
    for action in ("/auth/account/factor", "/auth/account/recovery-codes"):
        browser.page = page
        assert "/auth/login" in str((await send(browser, action, action="remove")).url), action
    for path in ("/auth/enrol", "/auth/enrol/passkey"):
        assert "/auth/login" in str((await browser.open(path)).url), path
    assert people.execute("SELECT count(*) FROM identity.totp_device WHERE account = 'away'") == [(1,)]


async def test_factors_and_sessions_of_others_cannot_be_touched(people: People):
    for name in ("mallory", "victim"):
        people.add(name)
    victim = await people.signed_in("victim")
    await victim.open("/auth/enrol?then=account")
    await people.enrol_totp(victim)
    device = str(people.execute("SELECT id FROM identity.totp_device WHERE account = 'victim'")[0][0])
    session = people.execute("SELECT session_digest FROM identity.session WHERE account = 'victim'")[0][0]
    mallory = await people.signed_in("mallory")
    token = forms_of(mallory.page.text)[0].fields["csrf"]
    for action in ("remove", "rename"):
        data = {"csrf": token, "kind": "totp", "factor": device, "action": action, "name": "mine"}
        assert (await mallory.http.post("/auth/account/factor", data=data)).status_code == 400
    answer = await mallory.http.post("/auth/account/sessions", data={"csrf": token, "session": session})
    assert answer.status_code == 400
    assert str((await victim.open("/auth/account")).url).endswith("/auth/account")
    assert people.execute("SELECT name FROM identity.totp_device WHERE account = 'victim'")[0][0] != "mine"


async def test_sessions_are_listed_and_ended(people: People):
    people.add("many")
    browser = await people.signed_in("many", **{"user-agent": "Hospital PC <1>"})
    others = [await people.signed_in("many", **{"user-agent": f"Tablet {number}"}) for number in range(3)]
    page = await browser.open("/auth/account")
    assert "Hospital PC &lt;1&gt;" in page.text
    assert "192.0.2.10" in page.text
    await browser.submit(form(page.text, "/auth/account/sessions"), session=button(page.text, "session"))
    assert str(browser.page.url).endswith("?done=session-ended")
    alive = [str((await other.open("/auth/account")).url).endswith("/auth/account") for other in others]
    assert alive.count(False) == 1
    everywhere = [number for number, item in enumerate(forms_of(browser.page.text)) if item.action.endswith("sessions")]
    await browser.submit(everywhere[-1])
    assert str(browser.page.url).endswith("?done=sessions-ended")
    assert people.execute("SELECT count(*) FROM identity.session WHERE account = 'many'") == [(1,)]
    assert len(people.events("session")) == 2


def button(page: str, name: str) -> str:
    return next(value for item in forms_of(page) for key, value in item.buttons if key == name)


async def test_idle_and_absolute_limits(people: People):
    people.add("limits")
    browser = await people.signed_in("limits")
    left = people.execute("SELECT expires_at - signed_in_at FROM identity.session WHERE account = 'limits'")[0][0]
    assert left.total_seconds() == people.settings.session_absolute_s
    people.execute("UPDATE identity.session SET expires_at = now() - interval '1 s' WHERE account = 'limits'")
    assert "/auth/login" in str((await browser.open("/auth/account")).url)


async def test_an_app_is_withdrawn(people: People):
    people.add("patient-like")
    browser = await people.signed_in("patient-like")
    for number in range(2):
        people.execute(
            "INSERT INTO identity.token_family VALUES (:f, 'rehab', 'patient-like', NULL, 'openid', '{}', NULL, now(),"
            " now() + interval '1 day', NULL)",
            f=uuid.UUID(int=7 + number),
        )
    page = await browser.open("/auth/account")
    assert page.text.count("rehab</code>") == 1
    page = await send(browser, "/auth/account/apps", client="rehab")
    assert str(page.url).endswith("?done=app-withdrawn")
    assert "rehab</code>" not in page.text
    live = "SELECT count(*) FROM identity.token_family WHERE account = 'patient-like' AND revoked_at IS NULL"
    assert people.execute(live) == [(0,)]
    assert len(people.events("withdraw")) >= 1
    token = forms_of(page.text)[0].fields["csrf"]
    gone = await browser.http.post("/auth/account/apps", data={"csrf": token, "client": "rehab"})
    assert gone.status_code == 400


POSTS = (
    "/auth/login",
    "/auth/second-factor",
    "/auth/enrol",
    "/auth/enrol/passkey",
    "/auth/passkey",
    "/auth/account/password",
    "/auth/account/factor",
    "/auth/account/recovery-codes",
    "/auth/account/sessions",
    "/auth/account/apps",
)


@pytest.mark.parametrize("path", POSTS)
async def test_every_form_needs_the_token_of_its_own_browser(people: People, path: str):
    people.add("csrf")
    mine, other = await people.signed_in("csrf"), await people.signed_in("csrf")
    stolen = forms_of(other.page.text)[0].fields["csrf"]
    before = people.execute("SELECT count(*) FROM identity.session WHERE account = 'csrf'")
    for token in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": stolen}, {"csrf": "é"}):
        values = {"old_password": PASSWORD, "new_password": NEW, "new_password_again": NEW, "action": "remove"}
        answer = await mine.http.post(path, data={**values, **token})
        assert answer.status_code == 403, token
    assert people.execute("SELECT count(*) FROM identity.session WHERE account = 'csrf'") == before


def test_no_form_is_forgotten_above():
    from foramen.identity.routes import ENDPOINTS

    ours = {f"/auth{item.path}" for item in ENDPOINTS if item.page and "POST" in item.methods}
    tested_elsewhere = {"/auth/authorize", "/auth/consent", "/auth/patient", "/auth/logout", "/auth/encounter"}
    mine = {path for path in ours if path.startswith(("/auth/account", "/auth/enrol", "/auth/passkey", "/auth/second"))}
    assert mine | {"/auth/login"} == set(POSTS)
    assert not set(POSTS) & tested_elsewhere


async def test_pages_cannot_be_framed_cached_or_scripted_from_elsewhere(people: People):
    people.add("framed")
    browser = await people.signed_in("framed")
    paths = ("/auth/account", "/auth/login", "/auth/passkey", "/auth/enrol", "/auth/enrol/passkey")
    for path in (*paths, "/auth/second-factor"):
        page = await browser.open(path)
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"


async def test_a_planted_session_or_sign_in_cookie_is_never_taken_over(people: People):
    people.add("fixated", "system-administrator")
    browser = people.browser()
    for name in ("foramen-session", "foramen-sign-in"):
        browser.http.cookies.set(name, "planted", domain="localhost.local", path="/")
    await people.passwords(browser, "fixated")
    half = cookie_of(browser, "foramen-sign-in")
    assert half not in ("planted", None)
    await people.enrol_totp(browser)
    assert cookie_of(browser) not in ("planted", half, None)
    assert cookie_of(browser, "foramen-sign-in") is None
    assert people.execute("SELECT count(*) FROM identity.partial_sign_in WHERE account = 'fixated'") == [(0,)]


async def test_then_is_a_word_and_never_an_address(people: People):
    people.add("redirected")
    for target in ("https://evil.example/", "//evil.example", "/auth/logout", "account/../x"):
        browser = people.browser()
        await browser.open(f"/auth/login?then={target}")
        await browser.submit(username="redirected", password=PASSWORD)
        assert browser.redirected_to == f"{people.settings.origin}/"


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_every_page_renders_in_both_languages(people: People, language: str):
    people.add(f"reader-{language}", "institution-administrator")
    browser = people.browser(**{"accept-language": language})
    pages = [(await people.passwords(browser, f"reader-{language}")).text]
    await people.enrol_totp(browser)
    pages.append(browser.page.text)
    for path in ("account", "enrol", "enrol/passkey", "passkey", "login"):
        pages.append((await browser.open(f"/auth/{path}")).text)
    other = people.browser(**{"accept-language": language})
    pages.append((await people.passwords(other, f"reader-{language}")).text)
    for page in pages:
        assert f'<html lang="{"zh-CN" if language == "zh" else "en"}">' in page
        body = page.split("<main")[1].split("<footer>")[0]
        chinese = any("\u4e00" <= character <= "\u9fff" for character in body.replace("中文", ""))
        assert chinese == (language == "zh"), body
