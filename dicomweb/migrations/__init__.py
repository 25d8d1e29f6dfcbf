"""Tables of the gateway (schema `dicomweb`), by numbered files; each is applied once. Safe when two migrate at once."""

from __future__ import annotations

from pathlib import Path

import psycopg

FOLDER = Path(__file__).parent
_LOCK = 0x666F72616D656E01  # advisory lock of this schema's migrations


def migrate(database_url: str) -> None:
    """Bring the schema `dicomweb` up to date; does nothing when it is."""
    with psycopg.connect(database_url, autocommit=True) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("CREATE SCHEMA IF NOT EXISTS dicomweb")
        connection.execute("CREATE TABLE IF NOT EXISTS dicomweb.schema_version (version integer PRIMARY KEY)")
        done = {row[0] for row in connection.execute("SELECT version FROM dicomweb.schema_version")}
        for path in sorted(FOLDER.glob("[0-9][0-9][0-9][0-9]_*.sql")):
            version = int(path.name[:4])
            if version not in done:
                connection.execute(path.read_bytes())
                connection.execute("INSERT INTO dicomweb.schema_version VALUES (%s)", (version,))
