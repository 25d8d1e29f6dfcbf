"""Passkeys against what an attacker can change: challenge, browser, origin, flags, counter, signature, account."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders.authenticator import BE, BS, UP, UV, Authenticator, b64, unb64
from tests.builders.browser import Browser
from tests.contract.smart.people import PASSWORD, People, cookie_of, options_of, people_server


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


async def with_passkey(people: People, name: str, **values: Any) -> Authenticator:
    """Somebody with a passkey."""
    people.add(name)
    browser = await people.signed_in(name)
    page = await browser.open("/auth/enrol/passkey?then=account")
    key = people.authenticator(**values)
    done = await browser.submit(credential=key.create(options_of(page.text)), name="Laptop")
    assert done.status_code == 200, done.text
    assert "data-options" not in done.text
    return key


async def sign_in(people: People, key: Authenticator, browser: Browser | None = None, **change: Any) -> Browser:
    browser = browser or people.browser()
    page = await browser.open("/auth/passkey?then=account")
    await browser.submit(credential=key.get(options_of(page.text), **change))
    return browser


async def test_a_passkey_signs_in_without_a_name_or_password_and_counts_as_two_factors(people: People):
    key = await with_passkey(people, "modern")
    people.execute("UPDATE identity.account SET role = 'system-administrator' WHERE name = 'modern'")
    browser = await sign_in(people, key)
    assert str(browser.page.url).endswith("/auth/account")
    assert people.execute("SELECT factors FROM identity.session WHERE account = 'modern' AND factors ? 'passkey'")
    stored = people.execute("SELECT name, transports, sign_count FROM identity.passkey WHERE account = 'modern'")
    assert stored == [("Laptop", ["internal"], 2)]
    assert ("0", "passkey") in people.events("110122")
    options = options_of((await people.browser().open("/auth/passkey")).text)
    assert options["userVerification"] == "required"
    assert options["rpId"] == "localhost"
    assert not options.get("allowCredentials")  # says nothing about who has passkeys


async def test_after_the_password_a_passkey_is_the_second_factor_and_only_ones_own(people: People):
    key, other = await with_passkey(people, "both"), await with_passkey(people, "someone")
    browser = people.browser()
    page = await people.passwords(browser, "both")
    assert "/auth/second-factor" in str(page.url)
    page = await browser.open("/auth/passkey?then=account")
    options = options_of(page.text)
    assert [item["id"] for item in options["allowCredentials"]] == [b64(key.credential_id)]
    assert (await browser.submit(credential=other.get(options))).status_code == 403
    page = await browser.open("/auth/passkey?then=account")
    await browser.submit(credential=key.get(options_of(page.text), userHandle=None))
    assert str(browser.page.url).endswith("/auth/account")
    assert ("0", "passkey password") in people.events("110122")


async def test_an_answer_is_good_once(people: People):
    key = await with_passkey(people, "once")
    browser = people.browser()
    page = await browser.open("/auth/passkey?then=account")
    form, answer = page, key.get(options_of(page.text))
    await browser.submit(credential=answer)
    assert cookie_of(browser) is not None
    browser.page = form
    browser.http.cookies.delete("foramen-session")
    thief = people.browser()
    await thief.open("/auth/passkey?then=account")
    assert (await thief.submit(credential=answer)).status_code == 403
    assert cookie_of(thief) is None


async def test_a_challenge_is_bound_to_the_browser_it_was_given_to(people: People):
    key = await with_passkey(people, "bound")
    victim, attacker = people.browser(), people.browser()
    options = options_of((await attacker.open("/auth/passkey?then=account")).text)
    await victim.open("/auth/passkey?then=account")
    assert (await victim.submit(credential=key.get(options))).status_code == 403
    assert cookie_of(victim) is None


async def test_a_challenge_runs_out_and_a_refused_answer_uses_it_up(people: People):
    key = await with_passkey(people, "late")
    browser = people.browser()
    page = await browser.open("/auth/passkey?then=account")
    people.execute("UPDATE identity.passkey_challenge SET expires_at = now() - interval '1 s'")
    assert (await browser.submit(credential=key.get(options_of(page.text)))).status_code == 403
    page = await browser.open("/auth/passkey?then=account")
    options = options_of(page.text)
    assert (await browser.submit(credential=key.get(options, origin="http://evil.example"))).status_code == 403
    browser.page = page
    assert (await browser.submit(credential=key.get(options))).status_code == 403
    assert cookie_of(browser) is None


async def test_a_registration_challenge_does_not_sign_in(people: People):
    key = await with_passkey(people, "mixed")
    browser = await sign_in(people, key)
    options = options_of((await browser.open("/auth/enrol/passkey?then=account")).text)
    await browser.open("/auth/passkey?then=account")
    assert (await browser.submit(credential=key.get(options))).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "http://localhost:18998.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "https://localhost:18998"},
        {"flags": UV},  # nobody there
        {"flags": UP},  # PIN or finger not asked
        {"flags": UP | UV | BE},  # a passkey of one device has become one of many
        {"flags": UP | UV | BS},
        {"signature": b64(b"\x30\x06\x02\x01\x01\x02\x01\x01")},
        {"signature": ""},
        {"userHandle": b64(b"somebody else")},
        {"userHandle": None},
        {"userHandle": "é"},
        {"authenticatorData": b64(b"short")},
        {"clientDataJSON": b64(b"{}")},
        {"clientDataJSON": b64(b"[]")},
        {"clientDataJSON": "%%%"},
    ],
)
async def test_a_changed_answer_is_refused(people: People, change: dict[str, Any]):
    name = f"changed{abs(hash(json.dumps(change))) % 10**9}"
    key = await with_passkey(people, name)
    browser = await sign_in(people, key, **change)
    assert browser.page.status_code == 403
    assert cookie_of(browser) is None


async def test_a_counter_that_does_not_grow_is_a_clone(people: People):
    key = await with_passkey(people, "cloned")
    await sign_in(people, key)
    key.count -= 1
    assert cookie_of(await sign_in(people, key)) is None
    key.count += 5
    assert cookie_of(await sign_in(people, key)) is not None


async def test_a_synced_passkey_says_so_and_may_become_backed_up(people: People):
    key = await with_passkey(people, "synced", flags=UP | UV | BE)
    browser = await sign_in(people, key, flags=UP | UV | BE | BS)
    assert people.execute("SELECT backup_eligible, backed_up FROM identity.passkey WHERE account='synced'") == [
        (True, True)
    ]
    assert "已同步" in (await browser.open("/auth/account?lang=zh")).text


async def test_a_disabled_account_cannot_use_its_passkey(people: People):
    key = await with_passkey(people, "gone")
    people.execute("UPDATE identity.account SET disabled = true WHERE name = 'gone'")
    browser = await sign_in(people, key)
    assert browser.page.status_code == 403
    assert cookie_of(browser) is None


@pytest.mark.parametrize("credential", ["", "x", "[]", "{}", '{"response": 1}', '{"response": {}}', "[" * 9000])
async def test_what_is_no_credential_is_refused(people: People, credential: str):
    browser = people.browser()
    await browser.open("/auth/passkey")
    assert (await browser.submit(credential=credential)).status_code == 403


async def test_registration_needs_its_own_challenge_origin_and_verification(people: People):
    people.add("careful")
    browser = await people.signed_in("careful")
    for change in ({"origin": "http://evil.example"}, {"flags": UP}, {"flags": UV}):
        options = options_of((await browser.open("/auth/enrol/passkey?then=account")).text)
        page = await browser.submit(credential=people.authenticator().create(options, **change))
        assert page.status_code == 403, change
    other = await with_passkey(people, "careless")
    options = options_of((await browser.open("/auth/enrol/passkey?then=account")).text)
    assert (await browser.submit(credential=other.create(options))).status_code == 403  # known already
    assert people.execute("SELECT count(*) FROM identity.passkey WHERE account = 'careful'") == [(0,)]


async def test_user_handles_are_random_and_lasting(people: People):
    key = await with_passkey(people, "handled")
    assert len(unb64(key.user_handle)) == 32
    browser = await sign_in(people, key)
    options = options_of((await browser.open("/auth/enrol/passkey?then=account")).text)
    assert options["user"]["id"] == key.user_handle
    assert [item["id"] for item in options["excludeCredentials"]] == [b64(key.credential_id)]
    assert options["authenticatorSelection"]["residentKey"] == "required"


async def test_the_script_is_ours_alone(people: People):
    page = await people.browser().open("/auth/passkey")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'; " in policy
    assert "unsafe" not in policy
    assert page.text.count("<script") == 1
    assert '<script src="/auth/passkey.js"></script>' in page.text
    async with people.http() as http:
        script = await http.get("/auth/passkey.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["x-content-type-options"] == "nosniff"
    assert "fetch(" not in script.text
    assert "script-src" not in (await people.browser().open("/auth/login")).headers["content-security-policy"]


async def test_without_a_name_there_are_no_passkeys(database_url: str, tmp_path: Path):
    async with people_server(database_url, tmp_path, public_url="http://127.0.0.1:18997") as people:
        people.add("surgeon")
        page = await people.browser().open("/auth/login?lang=en")
        assert "passkey" not in page.text
        assert (await people.browser().open("/auth/passkey")).status_code == 404
        browser = people.browser()
        page = await people.passwords(browser, "surgeon", PASSWORD)
        assert "https" in page.text
        assert "/auth/enrol/passkey" not in page.text
