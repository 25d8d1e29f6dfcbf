"""Bring the schema `terminology` up to date: numbered SQL files, applied once each under an advisory lock."""

from __future__ import annotations

from pathlib import Path

import psycopg

_LOCK = 0x5445524D  # "TERM"
_FOLDER = Path(__file__).with_name("migrations")


def migrate(database_url: str) -> None:
    """Create or upgrade the schema; does nothing when it is current, safe when several processes start at once.

    Parameters
    ----------
    database_url : PostgreSQL URL
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        try:
            connection.execute("CREATE SCHEMA IF NOT EXISTS terminology")
            connection.execute("CREATE TABLE IF NOT EXISTS terminology.migration (number integer PRIMARY KEY)")
            done = {row[0] for row in connection.execute("SELECT number FROM terminology.migration")}
            for path in sorted(_FOLDER.glob("*.sql")):
                number = int(path.name[:4])
                if number not in done:
                    with connection.transaction():
                        connection.execute(path.read_text(encoding="utf-8").encode())
                        connection.execute("INSERT INTO terminology.migration VALUES (%s)", (number,))
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
