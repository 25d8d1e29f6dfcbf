"""Guessing across accounts: budgets by address and over all, shared by processes; proxies; nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.identity.app import IdentityService
from foramen.identity.people import passwords
from tests.builders.browser import Browser, forms_of
from tests.contract.smart.people import PASSWORD, People, cookie_of, people_server

LIMIT = 6


@pytest.fixture(scope="module")
async def server(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    options = {
        "sign_in_failures_per_address": LIMIT,
        "sign_in_failures_everywhere": 40,
        "trusted_proxies": "10.0.0.0/8",
    }
    async with people_server(module_database_url, tmp_path_factory.mktemp("home"), **options) as found:
        found.add("surgeon")
        yield found


@pytest.fixture
def people(server: People, monkeypatch: pytest.MonkeyPatch) -> People:
    """Fresh budgets; Argon2 with small cost, as these tests count attempts and not their price."""
    server.execute("DELETE FROM identity.failure_budget")
    monkeypatch.setattr(
        "foramen.identity.endpoints.login.password_matches",
        lambda password_hash, password: password_hash is not None and password == PASSWORD,
    )
    return server


WRONG = "a wrong password"


async def attempt(browser: Browser, name: str, password: str = WRONG) -> int:
    await browser.open("/auth/login")
    return (await browser.submit(username=name, password=password)).status_code


async def test_spraying_one_password_over_many_names_is_stopped_and_waits_grow(people: People):
    spray = people.browser("198.51.100.1")
    statuses = [await attempt(spray, f"name{number}") for number in range(LIMIT + 3)]
    assert statuses == [403] * (LIMIT + 1) + [429, 429]
    answer = spray.page
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    assert "Too many failed sign-ins" in answer.text or "登录失败次数过多" in answer.text
    first = people.execute(
        "SELECT blocked_until - counted_at FROM identity.failure_budget WHERE budget LIKE 'address%'"
    )
    people.execute("UPDATE identity.failure_budget SET blocked_until = now()")
    assert await attempt(spray, "name99") == 403
    second = people.execute(
        "SELECT blocked_until - counted_at FROM identity.failure_budget WHERE budget LIKE 'address%'"
    )
    assert second[0][0] > 1.8 * first[0][0]


async def test_while_an_address_waits_even_the_right_password_says_nothing(people: People):
    spray = people.browser("198.51.100.2")
    for number in range(LIMIT + 1):
        await attempt(spray, f"name{number}")
    assert await attempt(spray, "surgeon", PASSWORD) == 429
    assert cookie_of(spray) is None
    assert people.execute("SELECT failed_attempts FROM identity.account WHERE name = 'surgeon'") == [(0,)]
    elsewhere = people.browser("198.51.100.3")
    await elsewhere.open("/auth/login")
    await elsewhere.submit(username="surgeon", password=PASSWORD)
    assert cookie_of(elsewhere) is not None


async def test_many_attempts_at_once_learn_no_more_than_the_budget_allows(people: People):
    browsers = [people.browser("198.51.100.4") for _ in range(30)]
    for browser in browsers:
        await browser.open("/auth/login")
    answers = await asyncio.gather(
        *(b.submit(username=f"n{i}", password="wrong wrong") for i, b in enumerate(browsers))
    )
    assert (
        sum(answer.status_code == 403 for answer in answers) <= LIMIT + 1 + 10
    )  # those between look and count: the pool
    assert sum(answer.status_code == 429 for answer in answers) >= 10


async def test_processes_share_the_budget(people: People):
    other = IdentityService(people.settings, people.database_url)
    twin = People(people.settings, other, Starlette(routes=[Mount("/auth", other.app)]), people.database_url)
    for number in range(LIMIT + 1):
        await attempt(people.browser("198.51.100.5"), f"name{number}")
    assert await attempt(twin.browser("198.51.100.5"), "name50") == 429
    await other.stop()


async def test_an_attack_from_many_addresses_leaves_few_tries_to_each_and_locks_nobody_else_out(people: People):
    people.execute(
        "INSERT INTO identity.failure_budget VALUES ('everywhere', 60, now(), now(), now() + interval '1 day')"
    )
    bot = people.browser("198.51.100.77")
    assert [await attempt(bot, f"name{number}") for number in range(3)] == [403, 403, 429]
    person = people.browser("198.51.100.78")
    await person.open("/auth/login")
    await person.submit(username="surgeon", password=PASSWORD)
    assert cookie_of(person) is not None


async def test_success_neither_counts_nor_forgives(people: People):
    browser = people.browser("198.51.100.6")
    for _ in range(3):
        await attempt(browser, "nobody")
        await browser.open("/auth/login")
        await browser.submit(username="surgeon", password=PASSWORD)
    level = people.execute("SELECT level FROM identity.failure_budget WHERE budget = 'address 198.51.100.6'")[0][0]
    assert 2.9 < level <= 3


async def test_the_address_comes_from_a_trusted_proxy_only(people: People):
    for number in range(LIMIT + 1):
        await attempt(people.browser("10.0.0.1", **{"x-forwarded-for": "203.0.113.5"}), f"name{number}")
    assert await attempt(people.browser("10.0.0.1", **{"x-forwarded-for": "203.0.113.5"}), "x") == 429
    assert await attempt(people.browser("10.0.0.1", **{"x-forwarded-for": "1.1.1.1, 203.0.113.5"}), "x") == 429
    assert await attempt(people.browser("10.0.0.1", **{"x-forwarded-for": "203.0.113.6"}), "x") == 403
    for number in range(LIMIT + 1):  # a client of our own choosing cannot be somebody else
        await attempt(people.browser("198.51.100.9", **{"x-forwarded-for": f"203.0.113.{number}"}), f"name{number}")
    assert await attempt(people.browser("198.51.100.9", **{"x-forwarded-for": "203.0.113.200"}), "x") == 429


async def test_one_audit_event_for_each_wait_that_begins(people: People):
    before = people.events("110122").count(("4", "throttled"))
    browser = people.browser("198.51.100.10")
    for number in range(LIMIT + 4):
        await attempt(browser, f"name{number}")
    assert people.events("110122").count(("4", "throttled")) == before + 1


async def test_the_same_work_is_done_for_known_unknown_disabled_and_locked_names(server: People, monkeypatch):
    """Counted, not timed: password hashes and statements of the two transactions."""
    server.execute("DELETE FROM identity.failure_budget")
    server.add("off")
    server.add("barred")
    server.execute("UPDATE identity.account SET disabled = true WHERE name = 'off'")
    server.execute("UPDATE identity.account SET locked_until = now() + interval '1 hour' WHERE name = 'barred'")
    verified, statements = [], []
    real = passwords._PASSWORDS.verify.__func__
    monkeypatch.setattr(type(passwords._PASSWORDS), "verify", lambda *a: (verified.append(1), real(*a))[1])
    from sqlalchemy import event

    engine = server.service._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2].split(" WHERE")[0]))
    work = {}
    for name in ("warm-up", "surgeon", "nobody-here", "off", "barred"):
        browser = server.browser(f"198.51.101.{len(work)}")
        await browser.open("/auth/login")
        form = forms_of(browser.page.text)[0]
        verified.clear()
        statements.clear()
        answer = await browser.http.post(
            form.action, data={**form.fields, "username": name, "password": "wrong wrong!"}
        )
        assert answer.status_code == 403
        work[name] = (len(verified), tuple(statements))
    work.pop("warm-up")
    assert work["surgeon"][0] == 1
    assert len(set(work.values())) == 1, work


async def test_locks_of_one_account_grow_and_a_success_forgets_them(people: People):
    people.add("locked")
    minutes = []
    for number in range(3):
        browser = people.browser(f"198.51.102.{number}")
        for _ in range(5):
            assert await attempt(browser, "locked") == 403
        assert await attempt(people.browser("198.51.102.50"), "locked", PASSWORD) == 403
        (left,) = people.execute("SELECT locked_until - now() FROM identity.account WHERE name = 'locked'")
        minutes.append(round(left[0].total_seconds() / 60))
        people.execute("UPDATE identity.account SET locked_until = now() WHERE name = 'locked'")
    assert minutes == [15, 30, 60]
    assert await attempt(people.browser("198.51.102.50"), "locked", PASSWORD) == 303
    assert people.execute("SELECT locks, failed_attempts FROM identity.account WHERE name = 'locked'") == [(0, 0)]
