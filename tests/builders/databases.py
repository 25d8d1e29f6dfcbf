"""Databases for tests, copied from one that is migrated once: a copy costs a tenth of making all tables.

https://www.postgresql.org/docs/18/manage-ag-templatedbs.html
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from dicomweb.migrations import migrate as migrate_dicomweb
from fhir_server.app import migrate as migrate_fhir
from foramen.identity.app import migrate as migrate_identity

MEMORY = Path("/dev/shm")
ENOUGH = 4 << 30
"""Bytes for the databases of a run: each worker's hold some 100 MB, and PostgreSQL keeps up to 256 MB of its log."""
TEMPLATE = "foramen_template"


def folder_in_memory() -> Path | None:
    """A file system in memory (tmpfs) with room for databases, or None."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH
    return MEMORY if roomy else None


def url_of(postgres_url: str, name: str) -> str:
    """URL of a database of this server."""
    parts = urlsplit(postgres_url)
    return parts._replace(path=f"/{name}").geturl()


def new_database(postgres_url: str, template: str = TEMPLATE) -> str:
    """Make a database as a copy of a template; nobody drops it before the server ends."""
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if template == TEMPLATE:
            _ensure_template(connection, postgres_url)
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return url_of(postgres_url, name)


@contextlib.contextmanager
def database(postgres_url: str, template: str = TEMPLATE) -> Iterator[str]:
    """A database for a while."""
    url = new_database(postgres_url, template)
    yield url
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(urlsplit(url).path[1:]))
    # What a test left behind may connect again at the same moment: then it stays until the server ends.
    with psycopg.connect(postgres_url, autocommit=True) as connection, contextlib.suppress(psycopg.errors.ObjectInUse):
        connection.execute(drop)


def _ensure_template(connection: psycopg.Connection, postgres_url: str) -> None:
    """Migrate the template, once for each server."""
    if connection.execute("SELECT datname FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
        return
    making = "foramen_template_making"
    connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(making)))
    for migrate in (migrate_fhir, migrate_identity, migrate_dicomweb):
        migrate(url_of(postgres_url, making))
    # A database can be copied while nobody is connected to it; engines keep connections.
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (making,))
    connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*map(sql.Identifier, (making, TEMPLATE))))
    connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(TEMPLATE)))
