"""`foramen user unlock|disable|enable|reset-second-factor|list` on a real database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner

from foramen.commands import user
from foramen.identity.app import migrate
from foramen.identity.database import transaction, utc_now
from foramen.identity.people import passkeys, recovery_codes, totp
from foramen.identity.people.sessions import start_session
from foramen.identity.sealing import read_data_keys
from foramen.kernel.settings import get_settings

cli = typer.Typer()
cli.add_typer(user.app, name="user")


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    get_settings.cache_clear()
    migrate(database_url)
    yield lambda *arguments, text=None: CliRunner().invoke(cli, ["user", *arguments], input=text)
    get_settings.cache_clear()


GOOD = "the river bends twice"


def add(run, name: str, password: str = GOOD):
    return run("add", name, "--role", "system-administrator", "--password-stdin", text=f"{password}\n")


def row(database_url: str, statement: str):
    with transaction(database_url) as connection:
        return connection.execute(text(statement)).one()


def test_poor_passwords_are_refused_and_nothing_is_made(run):
    for password in ("short", "passwordpassword", "admin-admin-admin", "Foramen-2026"):
        assert add(run, "admin", password).exit_code != 0, password
    assert json.loads(run("list").stdout) == []


def test_unlock(run, database_url: str):
    assert add(run, "admin").exit_code == 0
    with transaction(database_url) as connection:
        connection.execute(
            text("UPDATE identity.account SET failed_attempts = 5, code_failures = 5, locked_until = :t"),
            {"t": utc_now().replace(year=2100)},
        )
    assert json.loads(run("list").stdout)[0]["locked"] is True
    assert run("unlock", "admin").exit_code == 0
    assert json.loads(run("list").stdout)[0]["locked"] is False
    assert tuple(row(database_url, "SELECT failed_attempts, code_failures FROM identity.account")) == (0, 0)


def test_reset_second_factor_ends_access_and_leaves_an_event(run, database_url: str, tmp_path: Path):
    add(run, "admin")
    keys, now = read_data_keys(tmp_path, None), utc_now()
    with transaction(database_url) as connection:
        secret = totp.new_secret()
        code = totp.pyotp.TOTP(secret).at(now)
        assert totp.enrol(connection, keys, "admin", secret, code, "phone", now)
        recovery_codes.replace_codes(connection, "admin")
        start_session(connection, "admin", None, now, factors=("password", "totp"))
    listed = run("list").stdout
    assert json.loads(listed)[0]["second_factor"] == {
        "authenticator_apps": 1,
        "passkeys": 0,
        "recovery_codes_left": 10,
    }
    assert secret not in listed
    assert run("reset-second-factor", "admin").exit_code == 0
    assert json.loads(run("list").stdout)[0]["second_factor"]["authenticator_apps"] == 0
    assert row(database_url, "SELECT count(*) FROM identity.session")[0] == 0
    event = row(database_url, "SELECT event FROM identity.audit_outbox ORDER BY id DESC LIMIT 1")[0]
    assert event["subtype"][0]["code"] == "second-factor"
    assert event["outcomeDesc"] == "reset on the command line"
    assert passkeys.rp_id(get_settings()) is None


def test_disable_and_enable(run):
    add(run, "admin")
    for command, disabled in (("disable", True), ("enable", False)):
        assert run(command, "admin").exit_code == 0
        assert json.loads(run("list").stdout)[0]["disabled"] is disabled


@pytest.mark.parametrize("command", ["disable", "enable", "unlock", "reset-second-factor"])
def test_nobody_of_that_name(run, command: str):
    assert run(command, "nobody").exit_code != 0
