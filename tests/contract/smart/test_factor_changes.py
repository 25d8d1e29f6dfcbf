"""Changes of how a person signs in: two factors where the account has two, recent, and what was weaker ends."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.builders.browser import Browser, forms_of
from tests.contract.smart.people import PASSWORD, People, cookie_of, options_of, otp_of, people_server

NEW = "the river bends twice here"


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


def sessions(people: People, name: str) -> int:
    return people.execute("SELECT count(*) FROM identity.session WHERE account = :a", a=name)[0][0]


async def by_password_beside_a_factor(people: People, name: str) -> tuple[Browser, str]:
    """A session by password alone of an account that has a factor (as one from before it was set up); its device id."""
    people.add(name)
    owner = await people.signed_in(name)
    await owner.open("/auth/enrol?then=account")
    await people.enrol_totp(owner)
    people.execute("UPDATE identity.session SET factors = '[\"password\"]' WHERE account = :a", a=name)
    await owner.open("/auth/account")
    device = people.execute("SELECT id FROM identity.totp_device WHERE account = :a", a=name)
    return owner, str(device[0][0])


def factors_of(people: People, name: str) -> list[tuple]:
    return people.execute(
        "SELECT d.id, d.name, (SELECT count(*) FROM identity.recovery_code r WHERE r.account = d.account),"
        " (SELECT min(code_digest) FROM identity.recovery_code r WHERE r.account = d.account)"
        " FROM identity.totp_device d WHERE account = :a",
        a=name,
    )


async def test_a_session_by_password_alone_changes_no_factor_where_there_is_one(people: People):
    thief, device = await by_password_beside_a_factor(people, "half")
    before = factors_of(people, "half")
    token = forms_of(thief.page.text)[0].fields["csrf"]
    for action in ("remove", "rename"):
        data = {"csrf": token, "kind": "totp", "factor": device, "action": action, "name": "mine"}
        answer = await thief.http.post("/auth/account/factor", data=data)
        assert "/auth/login" in answer.headers["location"], action
    answer = await thief.http.post("/auth/account/recovery-codes", data={"csrf": token})
    assert "/auth/login" in answer.headers["location"]
    for path in ("/auth/enrol", "/auth/enrol/passkey"):
        assert "/auth/login" in str((await thief.open(path)).url), path
    assert factors_of(people, "half") == before


async def test_a_new_password_makes_a_session_neither_recent_nor_stronger_nor_longer(people: People):
    people.add("renewed")
    browser = await people.signed_in("renewed")
    people.execute(
        "UPDATE identity.session SET authenticated_at = now() - interval '20 minutes',"
        " signed_in_at = now() - interval '20 minutes', expires_at = now() + interval '1 hour'"
        " WHERE account = 'renewed'"
    )
    facts = "SELECT signed_in_at, authenticated_at, expires_at, factors FROM identity.session WHERE account = 'renewed'"
    before = (people.execute(facts), cookie_of(browser))
    form = next(n for n, item in enumerate(forms_of(browser.page.text)) if item.action == "/auth/account/password")
    page = await browser.submit(form, old_password=PASSWORD, new_password=NEW, new_password_again=NEW)
    assert str(page.url).endswith("?done=password-changed")
    assert people.execute(facts) == before[0]
    assert cookie_of(browser) != before[1], "a cookie that somebody saw is worth nothing any more"
    assert "/auth/login" in str((await browser.open("/auth/enrol")).url)


async def test_the_first_factor_ends_the_other_sessions_and_sign_ins_under_way(people: People):
    people.add("first")
    owner, thief = await people.signed_in("first"), await people.signed_in("first")
    family = uuid.uuid4()
    people.execute(
        "INSERT INTO identity.token_family (family, client_id, account, session_digest, scope, launch_context,"
        " expires_at) SELECT :f, 'portal', 'first', session_digest, 'openid', '{}', now() + interval '1 day'"
        " FROM identity.session WHERE account = 'first' ORDER BY signed_in_at DESC LIMIT 1",
        f=family,
    )
    await owner.open("/auth/enrol?then=account")
    await people.enrol_totp(owner)
    assert sessions(people, "first") == 1
    assert "/auth/login" in str((await thief.open("/auth/account")).url)
    assert str((await owner.open("/auth/account")).url).endswith("/auth/account")
    assert people.execute("SELECT revoked_at IS NOT NULL FROM identity.token_family WHERE family = :f", f=family)[0][0]
    another = await owner.open("/auth/enrol/passkey?then=account")
    elsewhere = people.browser()
    await people.passwords(elsewhere, "first")
    owner.page = another
    await owner.submit(credential=people.authenticator().create(options_of(another.text)))
    assert sessions(people, "first") == 1
    half = "SELECT count(*) FROM identity.partial_sign_in WHERE account = 'first'"
    assert people.execute(half) == [(1,)], "a second factor more is no reason to end anything"


async def test_a_sign_in_that_sets_up_the_first_factor_ends_other_sessions_too(people: People):
    people.add("promoted")
    before = await people.signed_in("promoted")
    people.execute("UPDATE identity.account SET role = 'institution-administrator' WHERE name = 'promoted'")
    browser = people.browser()
    await people.passwords(browser, "promoted")
    await people.enrol_totp(browser)
    assert sessions(people, "promoted") == 1
    assert cookie_of(before) != cookie_of(browser)
    assert str((await browser.open("/auth/account")).url).endswith("/auth/account")


async def test_setting_a_factor_up_gives_a_new_session_id_and_proves_nobody(people: People):
    people.add("fresh-id")
    browser = await people.signed_in("fresh-id")
    seen_by_a_thief = cookie_of(browser)
    people.execute(
        "UPDATE identity.session SET authenticated_at = now() - interval '14 minutes' WHERE account = 'fresh-id'"
    )
    await browser.open("/auth/enrol?then=account")
    await people.enrol_totp(browser)
    assert cookie_of(browser) != seen_by_a_thief
    thief = people.browser()
    thief.http.cookies.set("foramen-session", seen_by_a_thief or "", domain="localhost.local", path="/")
    assert "/auth/login" in str((await thief.open("/auth/account")).url)
    (row,) = people.execute(
        "SELECT factors, now() - authenticated_at > interval '13 minutes' FROM identity.session"
        " WHERE account = 'fresh-id'"
    )
    assert row == (["password", "totp"], True)


async def test_of_two_first_factors_at_once_one_is_first(people: People):
    """A thief of the password who sets a factor up at the same moment does not get one beside the owner's."""
    people.add("twins", "system-administrator")
    browsers = [people.browser() for _ in range(2)]
    for browser in browsers:
        await people.passwords(browser, "twins")
    codes = [otp_of(browser.page.text).now() for browser in browsers]
    await asyncio.gather(*(browser.submit(code=code) for browser, code in zip(browsers, codes, strict=True)))
    assert people.execute("SELECT count(*) FROM identity.totp_device WHERE account = 'twins'") == [(1,)]
    assert sum(cookie_of(browser) is not None for browser in browsers) == 1


@pytest.mark.parametrize("factor", ["totp", "recovery-code"])
async def test_two_factors_change_factors(people: People, factor: str):
    name = f"owner-{factor}"
    people.add(name)
    browser = await people.signed_in(name)
    await browser.open("/auth/enrol?then=account")
    otp, codes = await people.enrol_totp(browser)
    again = people.browser()
    await people.passwords(again, name)
    await again.submit(code=otp.now() if factor == "totp" else codes[0])
    people.forget_step()
    page = await again.open("/auth/enrol/passkey?then=account")
    await again.submit(credential=people.authenticator().create(options_of(page.text)))
    assert people.execute("SELECT count(*) FROM identity.passkey WHERE account = :a", a=name) == [(1,)]
