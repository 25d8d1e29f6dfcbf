"""Known browsers: neither neighbours behind one address nor strangers at an account keep its person out of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from foramen.identity.database import transaction, utc_now
from foramen.identity.people.accounts import is_locked, unlock_account
from tests.builders.browser import Browser, forms_of
from tests.contract.smart.people import PASSWORD, People, cookie_of, options_of, people_server

LIMIT, NAT = 4, "198.51.100.20"


@pytest.fixture(scope="module")
async def server(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    options = {"sign_in_failures_per_address": LIMIT, "trusted_proxies": "10.0.0.0/8,::ffff:172.16.0.0/108"}
    async with people_server(module_database_url, tmp_path_factory.mktemp("home"), **options) as found:
        yield found


@pytest.fixture
def people(server: People) -> People:
    server.execute("DELETE FROM identity.failure_budget")
    return server


async def neighbour_fails(people: People, address: str = NAT) -> None:
    browser = people.browser(address)
    for number in range(LIMIT + 2):
        await people.passwords(browser, f"nobody{number}", "a wrong password")
    assert browser.page.status_code == 429


async def test_a_known_browser_does_not_wait_for_its_neighbours(people: People):
    people.add("settled")
    browser = people.browser(NAT)
    await people.passwords(browser, "settled")
    browser.http.cookies.delete("foramen-session")
    await neighbour_fails(people)
    assert str((await people.passwords(browser, "settled")).url).endswith("/auth/account")
    stranger = people.browser(NAT)
    assert (await people.passwords(stranger, "settled")).status_code == 429, "the same account in an unknown browser"


async def test_a_known_browser_is_known_for_its_own_accounts_only(people: People):
    for name in ("nurse", "doctor", "victim-of-nurse"):
        people.add(name)
    shared = people.browser(NAT)
    for name in ("nurse", "doctor"):
        await people.passwords(shared, name)
        shared.http.cookies.delete("foramen-session")
    await neighbour_fails(people)
    assert (await people.passwords(shared, "victim-of-nurse")).status_code == 429
    for name in ("nurse", "doctor"):
        assert str((await people.passwords(shared, name)).url).endswith("/auth/account"), name
        shared.http.cookies.delete("foramen-session")


async def test_the_lock_of_the_account_holds_in_a_known_browser(people: People):
    people.add("guessed-at")
    browser = people.browser(NAT)
    await people.passwords(browser, "guessed-at")
    browser.http.cookies.delete("foramen-session")
    for _ in range(5):
        assert (await people.passwords(browser, "guessed-at", "a wrong password")).status_code == 403
    assert (await people.passwords(browser, "guessed-at")).status_code == 403
    assert cookie_of(browser) is None


async def wrong(people: People, browser: Browser, name: str, times: int = 5) -> None:
    browser.http.cookies.delete("foramen-session")
    for _ in range(times):
        assert (await people.passwords(browser, name, "a wrong password")).status_code == 403


async def test_strangers_cannot_keep_a_person_out_of_a_known_browser(people: People):
    people.add("chosen")
    own = await people.signed_in("chosen", address="198.51.100.30")
    await wrong(people, people.browser("198.51.100.31"), "chosen", LIMIT)
    await wrong(people, people.browser("198.51.100.32"), "chosen", 1)
    stranger = people.browser("198.51.100.33")
    assert (await people.passwords(stranger, "chosen")).status_code == 403, "locked for browsers not known"
    own.http.cookies.delete("foramen-session")
    assert str((await people.passwords(own, "chosen")).url).endswith("/auth/account")
    form = next(n for n, item in enumerate(forms_of(own.page.text)) if item.action == "/auth/account/password")
    new = "the river bends twice here"
    shown = await own.submit(form, old_password=PASSWORD, new_password=new, new_password_again=new)
    assert "done=password-changed" in str(shown.url)
    locked = "SELECT locks, locked_until > now() FROM identity.account WHERE name = 'chosen'"
    assert people.execute(locked) == [(1, True)], "a success in a known browser gives strangers no new guesses"
    assert (await people.passwords(stranger, "chosen", new)).status_code == 403


async def test_guesses_in_a_known_browser_lock_there_and_nowhere_else(people: People):
    people.add("two-desks")
    first, second = [await people.signed_in("two-desks", address=f"198.51.100.4{number}") for number in (0, 1)]
    await wrong(people, first, "two-desks", LIMIT)
    people.execute("DELETE FROM identity.failure_budget")
    await wrong(people, first, "two-desks", 1)
    assert (await people.passwords(first, "two-desks")).status_code == 403
    assert cookie_of(first) is None
    assert people.execute("SELECT failed_attempts FROM identity.account WHERE name = 'two-desks'") == [(0,)]
    for browser in (second, people.browser("198.51.100.42")):
        browser.http.cookies.delete("foramen-session")
        assert str((await people.passwords(browser, "two-desks")).url).endswith("/auth/account")
    with transaction(people.database_url) as connection:
        assert is_locked(connection, "two-desks", utc_now()), "administrators see it"
        unlock_account(connection, "two-desks")
        assert not is_locked(connection, "two-desks", utc_now())
    assert str((await people.passwords(first, "two-desks")).url).endswith("/auth/account")


async def test_locks_in_a_known_browser_grow_and_those_of_the_others_at_it_stay(people: People):
    for name in ("at-desk", "at-desk-too"):
        people.add(name)
    shared = people.browser(NAT)
    for name in ("at-desk", "at-desk-too"):
        await people.passwords(shared, name)
        shared.http.cookies.delete("foramen-session")
    minutes = []
    left = "SELECT locked_until - now() FROM identity.known_device WHERE account = 'at-desk'"
    for _ in range(2):
        for number in range(5):
            people.execute("DELETE FROM identity.failure_budget")
            await wrong(people, shared, "at-desk", 1)
            if number == 2:  # another person's sign-in gives the browser a new cookie, and nobody new guesses
                await people.passwords(shared, "at-desk-too")
        minutes.append(round(people.execute(left)[0][0].total_seconds() / 60))
        assert (await people.passwords(shared, "at-desk")).status_code == 403
        people.execute("UPDATE identity.known_device SET locked_until = now() WHERE account = 'at-desk'")
    assert minutes == [15, 30]
    assert str((await people.passwords(shared, "at-desk")).url).endswith("/auth/account")
    counted = people.execute("SELECT failed_attempts, locks FROM identity.known_device WHERE account = 'at-desk'")
    assert counted == [(0, 0)]


async def test_a_device_cookie_gives_nothing_when_planted_changed_old_or_after_a_new_password(people: People):
    people.add("planted")
    browser = people.browser(NAT)
    browser.http.cookies.set("foramen-device", "f" * 64, domain="localhost.local", path="/")
    await people.passwords(browser, "planted")
    assert cookie_of(browser, "foramen-device") != "f" * 64
    first = cookie_of(browser, "foramen-device")
    await people.passwords(browser, "planted")
    assert cookie_of(browser, "foramen-device") != first
    await neighbour_fails(people)
    for value in ("f" * 64, first, "", "é"):
        thief = people.browser(NAT)
        thief.http.cookies.set(
            "foramen-device", value or "", domain="localhost.local", path="/"
        ) if value != "é" else None
        assert (await people.passwords(thief, "planted")).status_code == 429, value
    stored = people.execute("SELECT device_digest FROM identity.known_device WHERE account = 'planted'")
    assert len(stored) == 1
    assert cookie_of(browser, "foramen-device") not in {row[0] for row in stored}
    people.execute("UPDATE identity.known_device SET expires_at = now() - interval '1 s' WHERE account = 'planted'")
    browser.http.cookies.delete("foramen-session")
    assert (await people.passwords(browser, "planted")).status_code == 429


async def test_a_new_password_forgets_the_other_browsers(people: People):
    people.add("moved")
    old, browser = people.browser(NAT), people.browser(NAT)
    for one in (old, browser):
        await people.passwords(one, "moved")
    new = "the river bends twice here"
    form = next(n for n, item in enumerate(forms_of(browser.page.text)) if item.action == "/auth/account/password")
    await browser.submit(form, old_password=PASSWORD, new_password=new, new_password_again=new)
    await neighbour_fails(people)
    old.http.cookies.delete("foramen-session")
    assert (await people.passwords(old, "moved", new)).status_code == 429
    browser.http.cookies.delete("foramen-session")
    assert str((await people.passwords(browser, "moved", new)).url).endswith("/auth/account")


async def test_a_passkey_waits_for_nobody_and_its_failures_count_against_nobody(people: People):
    people.add("modern")
    browser = await people.signed_in("modern")
    page = await browser.open("/auth/enrol/passkey?then=account")
    key = people.authenticator()
    await browser.submit(credential=key.create(options_of(page.text)))
    await neighbour_fails(people)
    stranger = people.browser(NAT)
    page = await stranger.open("/auth/passkey?then=account")
    await stranger.submit(credential=key.get(options_of(page.text)))
    assert str(stranger.page.url).endswith("/auth/account")
    people.execute("DELETE FROM identity.failure_budget")
    for _ in range(LIMIT + 2):
        await stranger.open("/auth/passkey")
        assert (await stranger.submit(credential="{}")).status_code == 403
    assert people.execute("SELECT count(*) FROM identity.failure_budget") == [(0,)]


async def test_a_second_factor_in_a_known_browser_does_not_wait(people: People):
    people.add("careful")
    browser = people.browser(NAT)
    await people.passwords(browser, "careful")
    await browser.open("/auth/enrol?then=account")
    otp, _ = await people.enrol_totp(browser)
    browser.http.cookies.delete("foramen-session")
    await neighbour_fails(people)
    await people.passwords(browser, "careful")
    assert "/auth/second-factor" in str(browser.page.url)
    await browser.submit(code=otp.now())
    assert str(browser.page.url).endswith("/auth/account")
    people.forget_step()


async def test_guesses_in_parallel_are_turned_away_in_the_queue(people: People, monkeypatch: pytest.MonkeyPatch):
    """Counted: passwords looked at and accounts marked, of forty attempts sent at once to forty accounts."""
    looked_at = []

    def slow(password_hash: str | None, password: str) -> bool:
        looked_at.append(1)
        return False

    monkeypatch.setattr("foramen.identity.endpoints.login.password_matches", slow)
    # Time stands still: else a slow machine lets the first wait of two seconds pass, and rightly looks at one more.
    now = utc_now()
    for module in ("login", "sign_in_steps"):
        monkeypatch.setattr(f"foramen.identity.endpoints.{module}.utc_now", lambda: now)
    names = [f"sprayed{number}" for number in range(40)]
    for name in names:
        people.execute(
            "INSERT INTO identity.account (name, password_hash, role, created_at) VALUES (:n, '', 'physician', now())",
            n=name,
        )
    browsers = [people.browser("198.51.100.21") for _ in names]
    for browser in browsers:
        await browser.open("/auth/login")
    await asyncio.gather(*(b.submit(username=n, password="wrong wrong") for b, n in zip(browsers, names, strict=True)))
    assert len(looked_at) <= LIMIT + 2  # two at a time in one process
    marked = people.execute("SELECT count(*) FROM identity.account WHERE name LIKE 'sprayed%' AND failed_attempts > 0")
    assert marked[0][0] <= LIMIT + 2


async def test_guesses_at_the_old_password_in_parallel_too(people: People, monkeypatch: pytest.MonkeyPatch):
    people.add("open-desk")
    looked_at = []
    monkeypatch.setattr(
        "foramen.identity.endpoints.account_changes.password_matches",
        lambda found, _: bool(looked_at.append(found is not None)),
    )
    browser = await people.signed_in("open-desk")
    token = forms_of(browser.page.text)[0].fields["csrf"]
    data = {"csrf": token, "new_password": "x" * 12, "new_password_again": "x" * 12}
    answers = await asyncio.gather(
        *(browser.http.post("/auth/account/password", data={**data, "old_password": f"guess {n}"}) for n in range(12))
    )
    assert {answer.status_code for answer in answers} <= {403, 429}
    counted = people.execute("SELECT failed_attempts FROM identity.known_device WHERE account = 'open-desk'")
    assert counted == [(5,)]
    assert sum(looked_at) == 5


async def test_a_proxy_on_a_socket_for_both_families_is_recognised(people: People):
    """Such a socket shows an IPv4 peer as ::ffff:a.b.c.d; what it forwards is believed, the budget is the client's."""
    for proxy, client in (("::ffff:10.0.0.1", "203.0.113.5"), ("172.16.9.9", "203.0.113.6")):
        header = {"x-forwarded-for": f"::ffff:{client}"}
        browser = Browser(people.http(proxy, **header), people.settings.origin)
        await people.passwords(browser, "nobody", "a wrong password")
        level = people.execute("SELECT level FROM identity.failure_budget WHERE budget = :b", b=f"address {client}")
        assert level == [(1.0,)], proxy
