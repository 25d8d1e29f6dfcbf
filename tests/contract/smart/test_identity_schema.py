"""The migrations make exactly the tables the code speaks of; they and the bootstrap can be repeated, also at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib import resources
from pathlib import Path

from sqlalchemy import MetaData, text

from foramen.identity import tables
from foramen.identity.app import bootstrap, ensure_user, migrate
from foramen.identity.database import transaction, utc_now
from foramen.identity.housekeeping import delete_expired
from foramen.identity.people.sessions import start_session
from foramen.kernel.settings import Settings

MIGRATIONS = resources.files("foramen.identity").joinpath("migrations")


def test_tables_and_migrations_agree(empty_database_url: str):
    migrate(empty_database_url)
    found = MetaData(schema="identity")
    with transaction(empty_database_url) as connection:
        found.reflect(connection)
    names = set(found.tables) - {"identity.migration"}
    assert names == set(tables.metadata.tables)
    for name in names:
        real = {column.name: (column.nullable, str(column.type)) for column in found.tables[name].columns}
        written = {
            column.name: (bool(column.nullable), str(column.type)) for column in tables.metadata.tables[name].columns
        }
        assert {key: value[0] for key, value in real.items()} == {key: value[0] for key, value in written.items()}, name


def test_migrating_twice_at_once_is_harmless(empty_database_url: str):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(migrate, [empty_database_url] * 3))
    with transaction(empty_database_url) as connection:
        applied = connection.execute(text("SELECT name FROM identity.migration ORDER BY name")).scalars().all()
    assert applied == sorted(script.name for script in MIGRATIONS.iterdir() if script.name.endswith(".sql"))


def test_bootstrap_follows_the_origin_and_makes_no_users(database_url: str, tmp_path: Path):
    migrate(database_url)
    for port in (8101, 8102, 8102):
        bootstrap(Settings(home=tmp_path, port=port), database_url)
    with transaction(database_url) as connection:
        uris = connection.execute(text("SELECT redirect_uris FROM identity.client WHERE client_id = 'portal'"))
        assert uris.scalar_one() == ["http://127.0.0.1:8102/"]
        assert connection.execute(text("SELECT count(*) FROM identity.client")).scalar_one() == 6
        assert connection.execute(text("SELECT count(*) FROM identity.account")).scalar_one() == 0
        keys = connection.execute(text("SELECT jwks::text FROM identity.client WHERE jwks IS NOT NULL")).scalars()
        assert all('"d"' not in jwks for jwks in keys)


def test_housekeeping_deletes_what_has_run_out_only(database_url: str):
    migrate(database_url)
    ensure_user(database_url, "surgeon", "a long password", "physician", "dr1")
    with transaction(database_url) as connection:
        start_session(connection, "surgeon", None, utc_now() - timedelta(days=2))
        start_session(connection, "surgeon", None, utc_now())
        assert delete_expired(connection) == 1
        assert connection.execute(text("SELECT count(*) FROM identity.session")).scalar_one() == 1
