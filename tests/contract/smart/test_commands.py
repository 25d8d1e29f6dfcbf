"""`foramen token|client|user|launch` as an operator uses them, on a real database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from joserfc.jwk import ECKey
from typer.testing import CliRunner

from foramen.commands import client, institution, launch, token, user
from foramen.identity.app import IdentityService, bootstrap, migrate
from foramen.identity.database import transaction
from foramen.identity.oauth.launches import find_launch
from foramen.kernel.settings import get_settings

cli = typer.Typer()
cli.add_typer(client.app, name="client")
cli.add_typer(user.app, name="user")
cli.add_typer(institution.app, name="institution")
cli.command("token")(token.token)
cli.command("launch")(launch.launch)


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    get_settings.cache_clear()
    migrate(database_url)
    bootstrap(get_settings(), database_url)
    yield lambda *arguments, text=None: CliRunner().invoke(cli, list(arguments), input=text)
    get_settings.cache_clear()


def add_surgeon(run) -> None:
    named = ("--name-zh", "第一医院 SYNTHETIC", "--name-en", "First hospital SYNTHETIC")
    assert run("institution", "add", "i1", *named).exit_code == 0
    result = run(
        *("user", "add", "surgeon", "--role", "physician", "--practitioner", "dr1", "--institution", "i1"),
        "--password-stdin",
        text="a long password\n",
    )
    assert result.exit_code == 0, result.output


async def test_token_prints_one_good_token_and_nothing_else(run, database_url: str):
    result = run("token", "--scopes", "system/*.cruds", "--expires-in", "60")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    service = IdentityService(get_settings(), database_url)
    context = service.verifier().verify(result.stdout.strip())
    assert (context.subject, context.scope_text, context.fhir_user) == ("foramen-cli", "system/*.cruds", None)
    add_surgeon(run)
    result = run("token", "--scopes", "patient/*.rs", "--patient", "Patient/p1", "--user", "surgeon")
    context = service.verifier().verify(result.stdout.strip())
    assert (context.subject, context.patient, context.practitioner) == ("surgeon", "p1", "Practitioner/dr1")
    assert context.institution == "i1"
    await service.stop()


def test_token_needs_no_server_and_no_database(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FORAMEN_DATABASE_URL")
    get_settings.cache_clear()
    result = run("token", "--scopes", "system/Patient.rs")
    assert result.exit_code == 0
    assert result.stdout.count(".") == 2
    monkeypatch.setenv("FORAMEN_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    get_settings.cache_clear()
    result = run("token", "--scopes", "system/Patient.rs")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert "no audit event" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "--scopes", "system/*.everything"),
        ("token", "--scopes", ""),
        ("token", "--scopes", "patient/*.rs"),
        ("token", "--scopes", "user/*.rs", "--user", "nobody"),
        ("token", "--scopes", "system/*.rs", "--expires-in", "0"),
        ("client", "add", "x", "--public", "--scopes", "openid"),
        ("client", "add", "x", "--public", "--secret", "--scopes", "openid", "--redirect-uri", "https://a.example/"),
        ("client", "add", "x", "--public", "--scopes", "openid", "--redirect-uri", "http://a.example/"),
        ("client", "add", "x", "--public", "--scopes", "openid", "--redirect-uri", "https://a.example/#f"),
        ("client", "add", "x", "--public", "--scopes", "everything", "--redirect-uri", "https://a.example/"),
        ("user", "add", "x", "--role", "physician"),
        ("user", "disable", "nobody"),
        ("launch", "result-review", "--user", "nobody", "--patient", "p1"),
        ("launch", "nothing", "--user", "surgeon", "--patient", "p1"),
    ],
)
def test_faulty_commands_fail_and_print_no_token(run, arguments):
    result = run(*arguments)
    assert result.exit_code != 0
    assert "eyJ" not in result.output


@pytest.mark.parametrize(
    ("role", "password"), [("king", "a long password"), ("physician", "short"), ("patient", "a long password")]
)
def test_accounts_with_a_faulty_role_or_password_are_refused(run, role: str, password: str):
    assert run("user", "add", "x", "--role", role, "--password-stdin", text=f"{password}\n").exit_code != 0
    assert json.loads(run("user", "list").stdout) == []


def test_client_add_prints_the_secret_once(run):
    uri = "https://app.example.org/cb"
    arguments = ("client", "add", "app", "--secret", "--redirect-uri", uri, "--scopes", "launch patient/*.rs")
    printed = json.loads(run(*arguments).stdout)
    assert printed["client_id"] == "app"
    assert len(printed["client_secret"]) >= 43
    listed = run("client", "list").stdout
    assert printed["client_secret"] not in listed
    app = next(item for item in json.loads(listed) if item["client_id"] == "app")
    assert app["redirect_uris"] == [uri]
    assert {"portal", "result-review", "care-plan", "foramen-intake", "foramen-worker"} <= {
        item["client_id"] for item in json.loads(listed)
    }


def test_client_add_takes_public_keys_only(run, tmp_path: Path):
    key = ECKey.generate_key("P-384", parameters={"kid": "k"}, private=True)
    weak = ECKey.generate_key("P-256", parameters={"kid": "k"}, private=True)
    file = tmp_path / "jwks.json"
    arguments = ("client", "add", "service", "--jwks", str(file), "--scopes", "system/*.rs")
    for content in ("not json", "[]", json.dumps({"keys": []}), json.dumps({"keys": [key.as_dict(private=True)]})):
        file.write_text(content)
        assert run(*arguments).exit_code != 0, content
    file.write_text(json.dumps({"keys": [weak.as_dict(private=False)]}))
    assert run(*arguments).exit_code != 0
    file.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    result = run(*arguments)
    assert json.loads(result.stdout) == {"client_id": "service"}


def test_user_list_disable_and_launch(run, database_url: str):
    add_surgeon(run)
    listed = run("user", "list").stdout
    assert "argon2" not in listed
    assert json.loads(listed)[0]["practitioner"] == "dr1"
    result = run("launch", "care-plan", "--user", "surgeon", "--patient", "p1", "--encounter", "e1")
    with transaction(database_url) as connection:
        found = find_launch(connection, result.stdout.strip(), "care-plan")
    assert found is not None
    assert (found.account, found.patient, found.encounter) == ("surgeon", "p1", "e1")
    assert run("user", "disable", "surgeon").exit_code == 0
    assert json.loads(run("user", "list").stdout)[0]["disabled"] is True
    assert run("launch", "care-plan", "--user", "surgeon", "--patient", "p1").exit_code != 0
