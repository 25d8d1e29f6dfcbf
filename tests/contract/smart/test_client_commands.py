"""`foramen client approve|reject|disable|enable|list` on a real database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from joserfc.jwk import ECKey
from typer.testing import CliRunner

from foramen.commands import client
from foramen.identity.app import bootstrap, migrate
from foramen.identity.database import transaction
from foramen.identity.oauth.clients import (
    PENDING,
    PRIVATE_KEY,
    PUBLIC,
    SECRET,
    Client,
    find_client,
    generated_secret_hash,
    save_client,
)
from foramen.kernel.settings import get_settings

CALLBACK = "https://app.example.org/cb"


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    get_settings.cache_clear()
    migrate(database_url)
    bootstrap(get_settings(), database_url)
    yield lambda *arguments: CliRunner().invoke(client.app, list(arguments))
    get_settings.cache_clear()


def may_act(database_url: str, client_id: str) -> bool:
    with transaction(database_url) as connection:
        return find_client(connection, client_id) is not None


def test_an_administrator_decides_at_the_command_line(run, database_url: str):
    with transaction(database_url) as connection:
        save_client(connection, Client("new", PUBLIC, "openid user/*.rs", (CALLBACK,), status=PENDING))
    assert [one["client_id"] for one in json.loads(run("list", "--status", "pending").stdout)] == ["new"]
    assert not may_act(database_url, "new")
    assert run("approve", "new", "--scopes", "openid  user/Patient.rs").exit_code == 0
    assert may_act(database_url, "new")
    listed = {one["client_id"]: one for one in json.loads(run("list").stdout)}
    assert (listed["new"]["status"], listed["new"]["scope"]) == ("approved", "openid user/Patient.rs")
    assert run("approve", "new", "--scopes", "everything").exit_code != 0
    assert run("reject", "new").exit_code == 0
    assert not may_act(database_url, "new")
    for command in ("approve", "reject", "disable", "enable"):
        assert run(command, "nobody").exit_code != 0


def test_a_disabled_client_of_ours_stays_disabled_when_everything_starts_again(run, database_url: str):
    assert run("disable", "portal").exit_code == 0
    bootstrap(get_settings(), database_url)
    assert not may_act(database_url, "portal")
    listed = {one["client_id"]: one for one in json.loads(run("list").stdout)}
    assert listed["portal"]["disabled"]
    assert run("enable", "portal").exit_code == 0
    assert may_act(database_url, "portal")


def test_a_client_with_keys_at_a_url_and_one_that_has_to_push(run):
    added = run("add", "lab", "--jwks-uri", "https://lab.example.org/keys", "--scopes", "system/Patient.rs")
    assert added.exit_code == 0, added.output
    assert run("add", "bad", "--jwks-uri", "http://lab.example.org/keys", "--scopes", "system/*.rs").exit_code != 0
    arguments = ("add", "push", "--public", "--require-par", "--redirect-uri", CALLBACK, "--scopes", "openid")
    assert run(*arguments).exit_code == 0
    listed = {one["client_id"]: one for one in json.loads(run("list").stdout)}
    assert listed["lab"]["jwks_uri"] == "https://lab.example.org/keys"
    assert listed["push"]["require_pushed_authorization_requests"] is True


def test_what_is_approved_is_shown_before_and_after(run, database_url: str):
    """Where people are sent, what it may do, its keys by thumbprint, where it is launched; never a secret."""
    key = ECKey.generate_key("P-384", parameters={"kid": "k1"}, private=True)
    waiting = Client(
        "shown",
        PRIVATE_KEY,
        "openid user/*.rs",
        (CALLBACK,),
        "https://app.example.org/launch",
        "名",
        "Shown",
        jwks={"keys": [key.as_dict(private=False)]},
        grant_types=("authorization_code", "client_credentials"),
        status=PENDING,
    )
    with transaction(database_url) as connection:
        save_client(connection, waiting)
        secret = generated_secret_hash("a secret")
        save_client(connection, Client("secretive", SECRET, "openid", (CALLBACK,), secret_hash=secret))
    expected = {
        "client_id": "shown",
        "scope": "openid user/*.rs",
        "redirect_uris": [CALLBACK],
        "launch_url": "https://app.example.org/launch",
        "grant_types": ["authorization_code", "client_credentials"],
        "keys": [{"kid": "k1", "thumbprint": key.thumbprint()}],
    }
    before = json.loads(run("show", "shown").stdout)
    listed = {one["client_id"]: one for one in json.loads(run("list").stdout)}
    assert expected.items() <= before.items()
    assert expected.items() <= listed["shown"].items()
    assert listed["secretive"]["grant_types"] == ["authorization_code", "refresh_token", "client_credentials"]
    assert secret not in json.dumps(listed)
    assert run("approve", "shown", "--digest", "0" * 64).exit_code != 0
    assert not may_act(database_url, "shown")
    approved = run("approve", "shown", "--scopes", "openid", "--digest", before["digest"])
    assert approved.exit_code == 0, approved.output
    after = json.loads(approved.stdout)
    assert {**expected, "scope": "openid", "status": "approved"}.items() <= after.items()
    assert run("show", "nobody").exit_code != 0
