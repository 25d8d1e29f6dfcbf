"""Second factors: forced enrolment, codes good once, their lock, recovery codes, sealed secrets, no way around."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlencode

import pytest

from foramen.identity.database import transaction, utc_now
from foramen.identity.people.second_factor import reset_second_factor
from foramen.identity.people.totp import use_code
from foramen.identity.sealing import DataKeys
from tests.builders.browser import forms_of
from tests.contract.smart.people import PASSWORD, People, cold_code, cookie_of, otp_of, people_server


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.mark.parametrize("role", ["system-administrator", "institution-administrator"])
async def test_an_administrator_sets_up_a_second_factor_before_anything_else(people: People, role: str):
    people.add(f"new-{role}", role)
    browser = people.browser()
    page = await people.passwords(browser, f"new-{role}", page="/auth/login")
    assert str(page.url).endswith("/auth/enrol")
    assert cookie_of(browser) is None  # the password alone gives no session
    assert str((await browser.open("/auth/account")).url).endswith("/auth/login?then=account")
    assert (await browser.http.post("/auth/launch", json={"client_id": "portal", "patient": "p"})).status_code == 401
    await browser.open("/auth/enrol")
    assert forms_of(browser.page.text)[0].action == "/auth/enrol"
    failed = await browser.submit(code=cold_code(otp_of(browser.page.text)))
    assert failed.status_code == 403
    otp, codes = await people.enrol_totp(browser)
    assert len(codes) == 10
    assert cookie_of(browser) is not None
    factors = people.execute("SELECT factors FROM identity.session WHERE account = :a", a=f"new-{role}")
    assert factors == [(["password", "totp"],)]
    again = people.browser()
    page = await people.passwords(again, f"new-{role}")
    assert "/auth/second-factor" in str(page.url)
    assert cookie_of(again) is None
    assert "/auth/second-factor" in str((await again.open("/auth/enrol")).url) or cookie_of(again) is None
    await again.open("/auth/second-factor?then=account")
    page = await again.submit(code=otp.now())
    assert str(page.url).endswith("/auth/account")


async def enrolled(people: People, name: str, role: str = "physician"):
    """Somebody with an authenticator app, signed in with it; returns browser, app and recovery codes."""
    people.add(name, role)
    browser = people.browser()
    await people.passwords(browser, name)
    if role == "physician":
        await browser.open("/auth/enrol?then=account")
    return browser, *(await people.enrol_totp(browser))


async def test_a_password_alone_cannot_add_a_factor_beside_the_one_there_is(people: People):
    await enrolled(people, "guarded")
    thief = people.browser()
    await people.passwords(thief, "guarded")
    for path in ("/auth/enrol", "/auth/enrol/passkey"):
        page = await thief.open(path)
        assert "/auth/login" in str(page.url), path
    form = forms_of((await thief.open("/auth/second-factor")).text)[0].fields
    sealed = people.service._env.data_keys.seal(b"0 x", "totp-enrolment:guarded:x")
    answer = await thief.http.post("/auth/enrol", data={"csrf": form["csrf"], "sealed": sealed, "code": "123456"})
    assert answer.is_redirect
    assert people.execute("SELECT count(*) FROM identity.totp_device WHERE account = 'guarded'") == [(1,)]
    assert cookie_of(thief) is None


async def test_a_code_is_good_once(people: People):
    _, otp, _ = await enrolled(people, "replayed")
    code = otp.now()
    first, second = people.browser(), people.browser()
    await people.passwords(first, "replayed")
    await people.passwords(second, "replayed")
    assert str((await first.submit(code=code)).url).endswith("/auth/account")
    page = await second.submit(code=code)
    assert page.status_code == 403
    assert cookie_of(second) is None
    assert ("8", None) in people.events("second-factor")


async def test_of_two_requests_at_once_with_one_code_one_wins(people: People):
    _, otp, _ = await enrolled(people, "raced")
    browsers = [people.browser() for _ in range(4)]
    for browser in browsers:
        await people.passwords(browser, "raced")
    code = otp.now()
    await asyncio.gather(*(browser.submit(code=code) for browser in browsers))
    assert sum(cookie_of(browser) is not None for browser in browsers) == 1


async def test_the_fifth_wrong_code_locks_codes_in_every_browser(people: People):
    _, otp, codes = await enrolled(people, "guessed")
    for _ in range(5):
        browser = people.browser()
        await people.passwords(browser, "guessed")  # the right password each time forgets no wrong code
        assert (await browser.submit(code=cold_code(otp))).status_code == 403
    assert (await browser.submit(code=otp.now())).status_code == 403
    assert (await browser.submit(code=codes[0])).status_code == 403
    people.execute("UPDATE identity.account SET codes_locked_until = now() - interval '1 s' WHERE name = 'guessed'")
    assert str((await browser.submit(code=otp.now())).url).endswith("/auth/account")
    assert people.execute("SELECT code_failures FROM identity.account WHERE name = 'guessed'") == [(0,)]


async def test_recovery_codes_work_once_and_are_digests_in_the_table(people: People):
    _, _, codes = await enrolled(people, "forgetful")
    browser = people.browser()
    await people.passwords(browser, "forgetful")
    assert str((await browser.submit(code=codes[3].lower().replace("-", " "))).url).endswith("/auth/account")
    assert ": 9</span>" in browser.page.text
    again = people.browser()
    await people.passwords(again, "forgetful")
    assert (await again.submit(code=codes[3])).status_code == 403
    stored = str(people.execute("SELECT * FROM identity.recovery_code"))
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)


async def test_someone_elses_codes_are_wrong(people: People):
    _, otp, codes = await enrolled(people, "alice")
    await enrolled(people, "bob")
    browser = people.browser()
    await people.passwords(browser, "bob")
    for code in (otp.now(), codes[0]):
        assert (await browser.submit(code=code)).status_code == 403


async def test_secrets_are_sealed_and_sealed_again_with_a_new_key(people: People):
    _, otp, _ = await enrolled(people, "sealed")
    stored = people.execute("SELECT sealed_secret FROM identity.totp_device WHERE account = 'sealed'")[0][0]
    old = people.service._env.data_keys
    assert stored.startswith(f"v2:AES-256-GCM:{old.current_id}:")
    assert otp.secret not in stored
    rotated = DataKeys((b"n" * 32, old.provider.current().secret))
    with transaction(people.database_url) as connection:
        assert use_code(connection, rotated, "sealed", otp.now(), utc_now())
    stored = people.execute("SELECT sealed_secret FROM identity.totp_device WHERE account = 'sealed'")[0][0]
    assert stored.startswith(f"v2:AES-256-GCM:{rotated.current_id}:")
    with transaction(people.database_url) as connection:  # from then on without the old key
        later = utc_now() + timedelta(seconds=30)
        assert use_code(connection, DataKeys((b"n" * 32,)), "sealed", otp.at(later), later)


async def test_the_secret_of_one_browser_cannot_be_confirmed_in_another(people: People):
    """Who knows the password before the owner has set a factor up must not plant a secret they know."""
    people.add("planted", "system-administrator")
    thief, owner = people.browser(), people.browser()
    await people.passwords(thief, "planted")
    await people.passwords(owner, "planted")
    planted = forms_of(thief.page.text)[0].fields["sealed"]
    page = await owner.submit(sealed=planted, code=otp_of(thief.page.text).now())
    assert page.status_code == 403
    assert people.execute("SELECT count(*) FROM identity.totp_device WHERE account = 'planted'") == [(0,)]


async def test_a_session_without_the_factor_ends_when_the_role_comes_to_need_one(people: People):
    people.add("promoted")
    browser = await people.signed_in("promoted")
    people.execute("UPDATE identity.account SET role = 'system-administrator' WHERE name = 'promoted'")
    assert "/auth/login" in str((await browser.open("/auth/account")).url)


async def test_half_a_sign_in_is_over_after_ten_minutes_and_with_a_reset(people: People):
    _, otp, _ = await enrolled(people, "slow")
    browser = people.browser()
    await people.passwords(browser, "slow")
    people.execute("UPDATE identity.partial_sign_in SET expires_at = now() - interval '1 s'")
    page = await browser.submit(code=otp.now())
    assert "/auth/login" in str(page.url)
    await people.passwords(browser, "slow")
    with transaction(people.database_url) as connection:
        reset_second_factor(connection, "slow")
    assert "/auth/login" in str((await browser.submit(code=otp.now())).url)
    assert people.execute("SELECT count(*) FROM identity.recovery_code WHERE account = 'slow'") == [(0,)]
    page = await people.passwords(browser, "slow", PASSWORD)
    assert str(page.url).endswith("/auth/account")


async def test_an_app_gets_its_code_only_after_the_second_step(people: People):
    _, otp, _ = await enrolled(people, "opener", "system-administrator")
    origin = people.settings.origin
    parameters = {
        "response_type": "code",
        "client_id": "portal",
        "redirect_uri": f"{origin}/",
        "scope": "openid fhirUser",
        "state": "s",
        "aud": f"{origin}/fhir",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    browser = people.browser()
    page = await people.passwords(browser, "opener", page=f"/auth/authorize?{urlencode(parameters)}")
    assert "/auth/second-factor?request=" in str(page.url)
    request_id = forms_of(page.text)[0].fields["request"]
    again = await browser.open(f"/auth/continue?request={request_id}")  # no way around the step
    assert 'name="password"' in again.text
    assert browser.redirected_to is None
    await browser.open(f"/auth/second-factor?request={request_id}")
    await browser.submit(code=otp.now())
    assert "code" in browser.answer
