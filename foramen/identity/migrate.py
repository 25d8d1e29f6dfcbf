"""Bring schema `identity` to the newest version; safe when two processes do it at once.

Numbered SQL files under `migrations/`; a PostgreSQL advisory lock holds the second process back.
"""

from __future__ import annotations

from importlib import resources

from sqlalchemy import text

from foramen.identity.database import transaction

_ADVISORY_LOCK = 0x1DE47117


def migrate(database_url: str) -> None:
    """Create or upgrade the schema; does nothing when it is current.

    Parameters
    ----------
    database_url : PostgreSQL URL
    """
    scripts = sorted(
        (
            file
            for file in resources.files("foramen.identity").joinpath("migrations").iterdir()
            if file.name[:1].isdigit()
        ),
        key=lambda file: file.name,
    )
    with transaction(database_url) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS identity"))
        connection.execute(
            text(
                "CREATE TABLE IF NOT EXISTS identity.migration "
                "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        )
        applied = set(connection.execute(text("SELECT name FROM identity.migration")).scalars())
        for script in scripts:
            if script.name not in applied and script.name.endswith(".sql"):
                connection.exec_driver_sql(script.read_text(encoding="utf-8"))
                connection.execute(text("INSERT INTO identity.migration (name) VALUES (:name)"), {"name": script.name})
