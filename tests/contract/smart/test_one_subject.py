"""An account name and a client id never become the same `sub`, however close together they are made."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from foramen.identity.app import migrate
from foramen.identity.database import IdentityDatabase, transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.people.accounts import save_account
from foramen.kernel.errors import ConflictError

TWIN = Client("twin", PUBLIC, "openid", redirect_uris=("https://twin.example.org/",))
PASSWORD = "a SYNTHETIC long password"


def _make_client(url: str) -> None:
    with transaction(url) as connection:
        save_client(connection, TWIN)


def _make_account(url: str) -> None:
    with transaction(url) as connection:
        save_account(connection, "twin", PASSWORD, "physician")


@pytest.mark.parametrize("first", ["account", "client"])
def test_made_at_the_same_moment_one_of_them_is_refused(database_url: str, first: str):
    migrate(database_url)
    with ThreadPoolExecutor(1) as pool:
        with transaction(database_url) as connection:
            if first == "account":
                save_account(connection, "twin", PASSWORD, "physician")
            else:
                save_client(connection, TWIN)
            other = pool.submit(_make_client if first == "account" else _make_account, database_url)
            time.sleep(0.5)
            assert not other.done(), "it has to wait for what the first one becomes"
        with pytest.raises(ConflictError):
            other.result(10)
    with transaction(database_url) as connection:
        accounts = connection.execute(text("SELECT count(*) FROM identity.account WHERE name = 'twin'")).scalar_one()
        clients = connection.execute(text("SELECT count(*) FROM identity.client WHERE client_id = 'twin'")).scalar_one()
    assert accounts + clients == 1


def test_a_name_is_free_again_when_its_client_is_gone(database_url: str):
    migrate(database_url)
    _make_client(database_url)
    _make_client(database_url)  # again: the same client, replaced
    with transaction(database_url) as connection:
        connection.execute(text("DELETE FROM identity.client WHERE client_id = 'twin'"))
    _make_account(database_url)
    _make_account(database_url)
    with pytest.raises(ConflictError):
        _make_client(database_url)


async def test_the_web_process_answers_a_conflict(database_url: str):
    migrate(database_url)
    _make_client(database_url)
    database = IdentityDatabase(database_url)
    try:
        with pytest.raises(ConflictError):
            await database.run(lambda connection: save_account(connection, "twin", PASSWORD, "physician"))
    finally:
        await database.close()
