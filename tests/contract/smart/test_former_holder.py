"""A name that passes to somebody else takes nothing of its former holder along; what commands make is audited."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from foramen.commands import client, institution, user
from foramen.identity.app import migrate
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.consents import remember_consent
from foramen.identity.people.accounts import disable_account, find_account, save_account
from foramen.identity.rights.permissions import GRANT, change_permission
from foramen.kernel.settings import get_settings
from tests.contract.smart.people import PASSWORD, People, options_of, people_server

LEFT = ("passkey", "totp_device", "recovery_code", "consent", "session", "known_device")


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


async def settled(people: People, name: str):
    """Somebody with a passkey, an app, codes, a consent, a session, a single permission and a loan; returns the key."""
    people.add(name)
    people.add(f"{name}-friend")
    browser = await people.signed_in(name)
    await browser.open("/auth/enrol?then=account")
    await people.enrol_totp(browser)
    page = await browser.open("/auth/enrol/passkey?then=account")
    key = people.authenticator()
    await browser.submit(credential=key.create(options_of(page.text)))
    with transaction(people.database_url) as connection:
        remember_consent(connection, name, "portal", "openid", "openid")
        account = find_account(connection, name)
        assert account is not None
        change_permission(connection, account, "annotate", GRANT, reason="SYNTHETIC", decided_by="root")
    people.execute(
        "INSERT INTO identity.delegation VALUES (:i, :a, :b, 'plan-care', now() + interval '1 day', 'SYNTHETIC',"
        " now(), NULL)",
        i=uuid.uuid4(),
        a=name,
        b=f"{name}-friend",
    )
    return key


def left(people: People, name: str) -> set[str]:
    query = "SELECT 1 FROM identity.{} WHERE account = :a"
    found = {table for table in LEFT if people.execute(query.format(table), a=name)}
    if people.execute("SELECT 1 FROM identity.permission_change WHERE account = :a AND ended_at IS NULL", a=name):
        found.add("permission_change")
    if people.execute("SELECT 1 FROM identity.delegation WHERE lender = :a AND ended_at IS NULL", a=name):
        found.add("delegation")
    return found


def again(people: People, name: str, practitioner: str, *, new_holder: bool = False) -> None:
    with transaction(people.database_url) as connection:
        save_account(connection, name, PASSWORD, "physician", practitioner=practitioner, new_holder=new_holder)


async def test_the_same_person_keeps_factors_and_consents_with_a_new_password(people: People):
    await settled(people, "same")
    again(people, "same", "dr-same")
    assert left(people, "same") == {*LEFT, "permission_change", "delegation"} - {"session"}


@pytest.mark.parametrize("how", ["disabled", "another-practitioner", "said-so"])
async def test_somebody_else_inherits_nothing(people: People, how: str):
    key = await settled(people, how)
    handle = people.execute("SELECT user_handle FROM identity.account WHERE name = :a", a=how)
    if how == "disabled":
        with transaction(people.database_url) as connection:
            disable_account(connection, how)
    practitioner = "dr-of-somebody-else" if how == "another-practitioner" else f"dr-{how}"
    again(people, how, practitioner, new_holder=how == "said-so")
    assert left(people, how) == set()
    assert people.execute("SELECT user_handle FROM identity.account WHERE name = :a", a=how) != handle
    browser = people.browser()
    page = await browser.open("/auth/passkey?then=account")
    assert (await browser.submit(credential=key.get(options_of(page.text)))).status_code == 403


async def test_an_account_that_lapsed_has_no_old_launch(people: People):
    people.add("launched")
    people.execute(
        "INSERT INTO identity.launch (launch_digest, client_id, account, patient, need_patient_banner, expires_at)"
        " VALUES ('x', 'portal', 'launched', 'p1', true, :t)",
        t=utc_now() + timedelta(minutes=5),
    )
    again(people, "launched", "dr-else")
    assert people.execute("SELECT count(*) FROM identity.launch WHERE account = 'launched'") == [(0,)]


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    get_settings.cache_clear()
    migrate(database_url)
    cli = typer.Typer()
    for name, app in (("user", user.app), ("client", client.app), ("institution", institution.app)):
        cli.add_typer(app, name=name)
    yield lambda *arguments, text=None: CliRunner().invoke(cli, list(arguments), input=text)
    get_settings.cache_clear()


def test_what_is_added_on_the_command_line_leaves_an_event(run, database_url: str):
    def events() -> list[tuple[str, str, str | None]]:
        from sqlalchemy import text

        with transaction(database_url) as connection:
            rows = connection.execute(text("SELECT event FROM identity.audit_outbox ORDER BY id")).scalars().all()
        return [
            (
                row["subtype"][0]["code"],
                row["outcomeDesc"],
                row.get("entity", [{}])[0].get("name") or row["agent"][0]["altId"],
            )
            for row in rows
        ]

    password = "the river bends twice\n"
    named = ("--name-zh", "医院", "--name-en", "Hospital")
    assert run("institution", "add", "i1", *named).exit_code == 0
    adding = ("user", "add", "anna", "--role", "physician", "--practitioner", "dr1", "--password-stdin")
    assert run(*adding, text=password).exit_code == 0
    assert run(*adding, "--new-holder", text=password).exit_code == 0
    app = ("client", "add", "app", "--public", "--redirect-uri", "https://app.example.org/cb", "--scopes", "openid")
    assert run(*app).exit_code == 0
    made = events()
    assert made == [
        ("institution", "i1 added or renamed on the command line", "unknown"),
        ("account", "created as physician on the command line", "anna"),
        ("account", "the name passes to somebody else: factors, consents, single permissions and loans end", "anna"),
        ("account", "set as physician on the command line", "anna"),
        ("client-registration", "registered on the command line", "app"),
    ]
    assert run("user", "add", "bo", "--role", "physician", "--password-stdin", text="short\n").exit_code != 0
    assert run("institution", "add", "not an id", *named).exit_code != 0
    assert run("client", "add", "bad", "--public", "--scopes", "openid").exit_code != 0
    assert events() == made, "what was refused leaves no event of having been done"
    assert json.loads(run("user", "list").stdout)[0]["name"] == "anna"
