"""Schemas brought up to date by numbered SQL files, each applied once. Safe when two processes migrate at once."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql


def apply_numbered(database_url: str, schema: LiteralString, folder: Path, lock: int) -> None:
    """Bring a schema up to date; does nothing when it is.

    Parameters
    ----------
    database_url : PostgreSQL
    schema : made where it is not there; `schema_version` in it remembers which files were applied
    folder : holds ``NNNN_name.sql``
    lock : advisory lock of this schema's migrations
    """
    versions = sql.Identifier(schema, "schema_version")
    with psycopg.connect(database_url, autocommit=True) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (version integer PRIMARY KEY)").format(versions))
        done = {row[0] for row in connection.execute(sql.SQL("SELECT version FROM {}").format(versions))}
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql")):
            version = int(path.name[:4])
            if version not in done:
                connection.execute(path.read_bytes())
                connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(versions), (version,))
