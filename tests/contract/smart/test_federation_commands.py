"""`foramen identity-provider add|list|enable|disable|remove` on a real database, and a real Foramen as the provider."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from typer.testing import CliRunner

from foramen.commands import identity_provider
from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.database import transaction
from foramen.identity.federation.providers import find_provider
from foramen.identity.oauth.clients import SECRET, Client, generated_secret_hash, save_client
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.sealing import read_data_keys
from foramen.kernel.settings import Settings, get_settings
from tests.builders.browser import Browser
from tests.contract.smart.federation_people import Traveller
from tests.contract.smart.live_server import free_port
from tests.contract.smart.outside_provider import served
from tests.contract.smart.people import ORIGIN, PASSWORD, People, people_server

NAMES = ("--name-zh", "医院集成平台", "--name-en", "Hospital platform")
CN = "CN=Spine Surgeons,OU=Groups,DC=example=physician"


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def command(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a command as an operator does; the secret lies in a file."""
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", people.database_url)
    monkeypatch.setenv("FORAMEN_PUBLIC_URL", ORIGIN)
    (tmp_path / "secret").write_text("SYNTHETIC secret of ours\n", encoding="utf-8")
    get_settings.cache_clear()
    people.execute("DELETE FROM identity.identity_provider")
    yield lambda *arguments: CliRunner().invoke(identity_provider.app, list(arguments))
    get_settings.cache_clear()


def add(command: Any, tmp_path: Path, *more: str, issuer: str = "https://login.example.org") -> Any:
    secret = ("--client-id", "foramen", "--secret-file", str(tmp_path / "secret"))
    return command("add", "hospital", "--issuer", issuer, *NAMES, *secret, *more)


def test_a_provider_is_added_listed_disabled_and_removed(command: Any, people: People, tmp_path: Path):
    database_url = people.database_url
    ensure_institution(database_url, "i1")
    more = ("--map-group", CN, "--network", "10.0.0.0/8", "--institution", "i1", "--create-accounts")
    answer = add(command, tmp_path, *more)
    assert answer.exit_code == 0, answer.output
    base = f"{ORIGIN}/auth/federation/hospital"
    assert json.loads(answer.stdout)["backchannel_logout_uri"] == f"{base}/backchannel-logout"
    listed = command("list").stdout
    assert "SYNTHETIC secret" not in listed
    shown = json.loads(listed)[0]
    assert (shown["redirect_uri"], shown["has_secret"]) == (f"{base}/callback", True)
    assert shown["settings"]["roles"] == [{"group": CN.removesuffix("=physician"), "role": "physician"}]
    with transaction(database_url) as connection:
        found = find_provider(connection, "hospital")
        assert found is not None
        assert found.sealed_secret is not None
        assert "SYNTHETIC" not in found.sealed_secret
        assert found.secret(read_data_keys(tmp_path, None)) == "SYNTHETIC secret of ours"
    assert command("disable", "hospital").exit_code == 0
    with transaction(database_url) as connection:
        assert find_provider(connection, "hospital") is None
    assert command("enable", "hospital").exit_code == 0
    assert command("remove", "hospital").exit_code == 0
    assert command("remove", "hospital").exit_code != 0
    assert json.loads(command("list").stdout) == []


@pytest.mark.parametrize(
    "wrong",
    [
        ("--map-group", "it=administrator"),
        ("--map-group", "everybody=patient"),
        ("--map-group", "engineers"),
        ("--algorithm", "none"),
        ("--algorithm", "HS256"),
        ("--network", "everywhere"),
        ("--institution", "nowhere"),
        ("--ca-file", "/nowhere/ca.pem"),
        ("--clock-skew", "3600"),
        ("--kind", "saml"),
        ("--scope", "profile"),
        ("--token-auth", "none"),
        ("--issuer", "http://login.example.org"),
        ("--issuer", "https://login.example.org/?tenant=1"),
        ("--name-zh", ""),
    ],
)
def test_what_would_be_unsafe_or_could_not_work_is_refused(command: Any, tmp_path: Path, wrong: tuple[str, ...]):
    assert add(command, tmp_path, *wrong).exit_code != 0
    assert json.loads(command("list").stdout) == []


def test_an_issuer_belongs_to_one_provider_for_good(command: Any, tmp_path: Path):
    assert add(command, tmp_path).exit_code == 0
    assert add(command, tmp_path, "--scope", "openid email").exit_code == 0
    assert add(command, tmp_path, issuer="https://other.example.org").exit_code != 0
    secret = ("--client-id", "foramen", "--secret-file", str(tmp_path / "secret"))
    assert command("add", "second", "--issuer", "https://login.example.org", *NAMES, *secret).exit_code != 0


# --- a second Foramen as the provider


async def test_another_foramen_is_the_provider(
    people: People, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    there = Settings(home=tmp_path, port=free_port())
    migrate(database_url)
    bootstrap(there, database_url)
    ensure_user(database_url, "surgeon", PASSWORD, "physician", "dr1")
    base = f"{ORIGIN}/auth/federation/foramen"
    addresses = (f"{base}/callback", f"{base}/signed-out")
    client = Client(
        "foramen-here", SECRET, "openid fhirUser profile", addresses, secret_hash=generated_secret_hash("s3cret")
    )
    with transaction(database_url) as connection:
        save_client(connection, client)
    service = IdentityService(there, database_url)
    app = Starlette(
        routes=[
            Route("/.well-known/openid-configuration", service.openid_configuration),
            Mount("/auth", service.app),
        ]
    )
    monkeypatch.setenv("FORAMEN_HOME", str(people.settings.home))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", people.database_url)
    get_settings.cache_clear()
    (tmp_path / "s").write_text("s3cret", encoding="utf-8")
    options = {
        "--issuer": there.issuer,
        "--client-id": "foramen-here",
        "--secret-file": str(tmp_path / "s"),
        "--network": "127.0.0.0/8",
        "--groups-claim": "sub",
        "--map-group": "surgeon=physician",
        "--practitioner-claim": "fhirUser",
        "--scope": "openid fhirUser profile",
    }
    flat = [part for option in options.items() for part in option]
    added = CliRunner().invoke(identity_provider.app, ["add", "foramen", *flat, *NAMES, "--create-accounts"])
    assert added.exit_code == 0, added.output
    get_settings.cache_clear()
    async with served(app, there.port):
        here = Traveller.of(people)
        platform = Browser(httpx.AsyncClient(trust_env=False, base_url=there.origin), there.origin)
        await platform.open(await here.leave("foramen", query="?then=account"))
        await platform.submit(username="surgeon", password=PASSWORD)
        page = await platform.submit(decision="allow") if platform.redirected_to is None else None
        assert platform.redirected_to is not None, page.text if page else ""
        await here.browser.open(platform.redirected_to)
        assert await here.account() == "surgeon@foramen"
        row = people.execute("SELECT role, practitioner FROM identity.account WHERE name = 'surgeon@foramen'")
        assert tuple(row[0]) == ("physician", "dr1")
        again = Traveller.of(people)  # signed in there: no page in between
        await platform.open(await again.leave("foramen"))
        assert platform.redirected_to is not None
        await again.browser.open(platform.redirected_to)
        assert await again.account() == "surgeon@foramen"
        await here.browser.open("/auth/logout")
        page = await here.browser.submit()
        await platform.open(page.headers["refresh"].removeprefix("0; url="))
        assert platform.redirected_to is not None
        assert platform.redirected_to.startswith(f"{base}/signed-out?state=")
        await platform.open(f"{there.origin}/auth/account")
        assert platform.page is not None
        assert "/auth/login" in str(platform.page.url)  # over there, too
    await service.stop()
