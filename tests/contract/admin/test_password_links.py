"""A password link gives no more than its maker may give now, and ends with every change of the account's rights."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import text

from foramen.identity.database import transaction, utc_now
from foramen.identity.people import accounts
from foramen.identity.people.passwords import hash_password
from foramen.identity.rights.permissions import WITHDRAW, change_permission
from tests.contract.admin.conftest import Admin
from tests.contract.smart.people import PASSWORD

NEW = "a fine new sentence 7"
PROVIDER = "https://platform.example.org"


@pytest.fixture(autouse=True)
def fresh(admin: Admin):
    """Each test finds the accounts as they were made."""
    yield
    admin.restore()
    admin.execute("DELETE FROM identity.password_link")
    admin.execute("DELETE FROM identity.federated_account")
    with transaction(admin.database_url) as connection:
        for name in ("north-doctor", "north-admin"):
            accounts.set_password_hash(connection, name, hash_password(PASSWORD), None)


async def link_of(admin: Admin, maker: str, name: str = "north-doctor") -> str:
    browser = await admin.signed_in(maker)
    await browser.open(f"/apps/admin/accounts/{name}/password-link")
    shown = await browser.submit(index=1)
    found = re.search(r"token=([\w-]+)", shown.text)
    assert found is not None, shown.text
    return found[1]


async def opened(admin: Admin, token: str) -> int:
    return (await admin.browser().open(f"/auth/set-password?token={token}")).status_code


def password_of(admin: Admin, name: str = "north-doctor") -> str:
    return str(admin.execute("SELECT password_hash FROM identity.account WHERE name = :name", name=name)[0][0])


@pytest.mark.parametrize(
    "change",
    [
        {"role": "institution-administrator", "institution": "north"},
        {"role": "researcher", "institution": "north"},
        {"role": "physician", "institution": "south"},
    ],
    ids=["promoted", "another role", "moved"],
)
async def test_a_link_ends_when_the_account_becomes_another(admin: Admin, change: dict[str, str]):
    token = await link_of(admin, "north-admin")
    assert await opened(admin, token) == 200
    boss = await admin.signed_in("boss")
    await boss.open("/apps/admin/accounts/north-doctor/edit")
    shown = await boss.submit(index=1, **change)
    assert "sessions have ended" in shown.text, shown.text
    assert admin.execute("SELECT count(*) FROM identity.password_link") == [(0,)]
    assert await opened(admin, token) == 404


async def test_a_link_ends_when_the_account_is_disabled_and_enabled(admin: Admin):
    token = await link_of(admin, "north-admin")
    boss = await admin.signed_in("boss")
    for action in ("disable", "enable"):
        await boss.open(f"/apps/admin/accounts/north-doctor/{action}")
        await boss.submit(index=1)
    assert await opened(admin, token) == 404


async def test_a_link_ends_when_the_person_sets_another_password(admin: Admin):
    token = await link_of(admin, "north-admin")
    with transaction(admin.database_url) as connection:
        accounts.set_password_hash(connection, "north-doctor", hash_password(NEW), None)
    assert await opened(admin, token) == 404


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE identity.account SET disabled = true WHERE name = 'north-admin'",
        "UPDATE identity.account SET institution = 'south' WHERE name = 'north-admin'",
        "UPDATE identity.account SET role = 'physician' WHERE name = 'north-admin'",
        "UPDATE identity.account SET role = 'system-administrator' WHERE name = 'north-doctor'",
    ],
)
async def test_a_link_is_worth_what_its_maker_may_do_when_it_is_used(admin: Admin, spoil: str):
    """Also where the form is open already: asked when it is shown and again when it is sent."""
    token, before = await link_of(admin, "north-admin"), password_of(admin)
    person = admin.browser()
    assert (await person.open(f"/auth/set-password?token={token}")).status_code == 200
    admin.execute(spoil)
    assert (await person.submit(new_password=NEW, new_password_again=NEW)).status_code == 404
    assert await opened(admin, token) == 404
    assert password_of(admin) == before


async def test_a_link_stops_with_the_permission_of_its_maker_in_the_moment_of_use(admin: Admin):
    from foramen.identity.people.password_links import use_link

    token, before = await link_of(admin, "north-admin"), password_of(admin)
    with transaction(admin.database_url) as connection:
        maker = accounts.require_account(connection, "north-admin")
        change_permission(connection, maker, "manage-accounts", WITHDRAW, reason="SYNTHETIC", decided_by="boss")
        assert use_link(connection, token, hash_password(NEW), None) is None
        said = connection.execute(
            text(
                "SELECT event FROM identity.audit_outbox WHERE event #>> '{subtype,0,code}' = 'password-change' "
                "ORDER BY id DESC LIMIT 1"
            )
        ).scalar_one()
    assert said["outcome"] != "0"
    assert password_of(admin) == before


async def test_links_that_are_none_make_nobody_wait(admin: Admin):
    """256 random bits are not guessed: an image on a page elsewhere must not spend the budget of a hospital."""
    admin.execute("DELETE FROM identity.failure_budget")
    browser = admin.browser(address="192.0.2.99")
    await browser.open("/auth/set-password?token=guess")
    assert browser.page.status_code == 404
    assert admin.execute("SELECT count(*) FROM identity.failure_budget") == [(0,)]


async def test_a_link_opens_while_its_address_waits_for_failed_passwords(admin: Admin):
    token = await link_of(admin, "north-admin")
    now = utc_now()
    admin.execute(
        "INSERT INTO identity.failure_budget VALUES ('address 192.0.2.98', 99, :now, :now + interval '1 hour', "
        ":now + interval '1 day')",
        now=now,
    )
    browser = admin.browser(address="192.0.2.98")
    assert (await browser.open(f"/auth/set-password?token={token}")).status_code == 200


def manage_outside(admin: Admin, name: str) -> None:
    admin.execute(
        "INSERT INTO identity.federated_account (issuer, subject, account, managed, linked_at) "
        "VALUES (:issuer, :name, :name, true, now())",
        issuer=PROVIDER,
        name=name,
    )


async def test_an_account_that_a_provider_manages_gets_no_link(admin: Admin):
    manage_outside(admin, "north-doctor")
    boss = await admin.signed_in("boss")
    await boss.open("/apps/admin/accounts/north-doctor/password-link")
    shown = await boss.submit(index=1)
    assert "signs in through an identity provider only" in shown.text
    assert admin.execute("SELECT count(*) FROM identity.password_link") == [(0,)]


async def test_a_link_from_before_the_provider_managed_the_account_is_none(admin: Admin):
    token, before = await link_of(admin, "north-admin"), password_of(admin)
    person = admin.browser()
    await person.open(f"/auth/set-password?token={token}")
    manage_outside(admin, "north-doctor")
    assert (await person.submit(new_password=NEW, new_password_again=NEW)).status_code == 404
    assert await opened(admin, token) == 404
    assert password_of(admin) == before


async def test_an_account_that_a_provider_manages_does_not_sign_in_with_a_password(admin: Admin):
    manage_outside(admin, "north-doctor")
    browser = admin.browser()
    await browser.open("/auth/login?then=account")
    shown = await browser.submit(username="north-doctor", password=PASSWORD)
    assert shown.status_code == 403
    assert (await browser.http.get("/auth/account")).status_code == 303
    failures = admin.execute("SELECT failed_attempts FROM identity.account WHERE name = 'north-doctor'")
    assert failures == [(1,)], "counted like a wrong password"
