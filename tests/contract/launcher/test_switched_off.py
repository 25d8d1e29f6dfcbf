"""Off by default: no page, no client that could be used; outside the demonstration no account is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.commands.demo import _others
from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.bootstrap import LAUNCHER, LAUNCHER_INTROSPECTION
from foramen.identity.database import transaction
from foramen.identity.oauth.clients import find_client
from foramen.identity.people.accounts import require_account
from foramen.identity.rights.permissions import own_rights
from foramen.kernel.settings import Settings
from foramen.launcher import demonstration, steps
from foramen.launcher.app import launcher_routes
from tests.contract.launcher.conftest import PASSWORD, Pages

ORIGIN = "http://127.0.0.1:18997"


@pytest.fixture(scope="module")
def database(module_database_url: str) -> str:
    migrate(module_database_url)
    ensure_user(module_database_url, "tech", PASSWORD, "engineer")
    ensure_user(module_database_url, "surgeon", PASSWORD, "physician", "dr1")
    return module_database_url


def test_the_launcher_is_off_by_default(tmp_path: Path):
    settings = Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]
    assert (settings.launcher, settings.demo) == ("off", False)
    assert launcher_routes(None, settings) == []  # type: ignore[arg-type]


def test_its_clients_come_and_go_with_the_setting(database: str, tmp_path: Path):
    for state, there in (("on", True), ("off", False), ("on", True)):
        bootstrap(Settings(home=tmp_path, launcher=state), database)
        with transaction(database) as connection:
            app, asking = (find_client(connection, name) for name in (LAUNCHER, LAUNCHER_INTROSPECTION))
            assert (app is not None, asking is not None) == (there, there)
            own = connection.execute(text("SELECT count(*) FROM identity.client WHERE NOT disabled")).scalar_one()
        assert own == (8 if there else 6)


def test_who_introspects_gets_no_token(database: str, tmp_path: Path):
    bootstrap(Settings(home=tmp_path, launcher="on"), database)
    with transaction(database) as connection:
        asking, app = find_client(connection, LAUNCHER_INTROSPECTION), find_client(connection, LAUNCHER)
    assert asking is not None
    assert app is not None
    kinds = ("client_credentials", "authorization_code", "refresh_token")
    assert not [kind for kind in kinds if asking.check_grant_type(kind)]
    assert app.redirect_uris == (f"http://127.0.0.1:8000{steps.CALLBACK}",)
    assert (app.client_id, asking.client_id) == (steps.CLIENT_ID, steps.INTROSPECTING_CLIENT_ID)


@pytest.mark.parametrize("demo", [True, False])
async def test_accounts_are_named_in_the_demonstration_only(database: str, tmp_path: Path, demo: bool):
    settings = Settings(home=tmp_path, public_url=ORIGIN, launcher="on", demo=demo)
    bootstrap(settings, database)
    parts: dict[str, Any] = {}

    async def ourselves(scope: Any, receive: Any, send: Any) -> None:
        await parts["app"](scope, receive, send)

    service = IdentityService(settings, database, transport=httpx.ASGITransport(ourselves))
    parts["app"] = Starlette(routes=[Mount("/auth", service.app), *launcher_routes(service, settings)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts["app"]), base_url=ORIGIN) as http:
        browser = Pages(http, ORIGIN)
        await browser.open("/apps/launcher")
        page = await browser.submit(username="tech", password=PASSWORD)
        assert page.status_code == 200
        named = [account.name for account in demonstration.ACCOUNTS if f'value="{account.name}"' in page.text]
        assert named == (["surgeon", "integrator"] if demo else [])
        assert (demonstration.PASSWORD in page.text) is demo
        # The record is not here: what could not be looked up is not an empty list.
        assert "现在无法读取病历库" in browser.text
        assert "没有找到患者" not in browser.text
        if demo:
            _others(database)
            page = await browser.submit(2)
            assert page.status_code == 200
            assert "<b>integrator</b> · <a" in page.text
    await service.stop()


def test_the_demonstration_lets_its_accounts_try_launches_by_the_ordinary_grant(database: str):
    _others(database)
    _others(database)  # the demonstration is started again
    for account in demonstration.ACCOUNTS:
        with transaction(database) as connection:
            rights = own_rights(connection, require_account(connection, account.name))
        assert "try-launches" in rights.permissions
    with transaction(database) as connection:
        grants = connection.execute(text("SELECT account, decided_by FROM identity.permission_change")).all()
    assert [tuple(row) for row in grants] == [("surgeon", "foramen demo")]
