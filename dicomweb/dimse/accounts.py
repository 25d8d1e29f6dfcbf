"""AE accounts in the database: read for each association, written by `foramen aet`."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from dicomweb.database import Database
from dicomweb.dimse.application_entity import ApplicationEntity
from foramen.kernel.errors import NotFoundError

_COLUMNS = "ae_title, rights, host, port, institution, every_institution, any_address, use_tls, tls_fingerprint, active"


class Accounts:
    """The accounts as the running process reads them: never cached, so that a withdrawal counts at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, ae_title: str) -> ApplicationEntity | None:
        """Return an active account; None: unknown or withdrawn, which are the same to a caller."""
        query = f"SELECT {_COLUMNS} FROM dicomweb.application_entity WHERE ae_title = $1 AND active"  # noqa: S608  constant
        async with self._database.connection() as connection:
            row = await connection.fetchrow(query, ae_title.strip())
        return None if row is None else _account(dict(row))


def save_account(database_url: str, account: ApplicationEntity) -> None:
    """Add an account or replace it."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """INSERT INTO dicomweb.application_entity (ae_title, rights, host, port, institution, every_institution,
                                                        any_address, use_tls, tls_fingerprint, active)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
               ON CONFLICT (ae_title) DO UPDATE SET rights = EXCLUDED.rights, host = EXCLUDED.host,
                   port = EXCLUDED.port, institution = EXCLUDED.institution,
                   every_institution = EXCLUDED.every_institution, any_address = EXCLUDED.any_address,
                   use_tls = EXCLUDED.use_tls, tls_fingerprint = EXCLUDED.tls_fingerprint, active = EXCLUDED.active""",
            (
                *(account.ae_title, sorted(account.rights), account.host, account.port, account.institution),
                *(account.every_institution, account.any_address, account.use_tls, account.tls_fingerprint),
                account.active,
            ),
        )


def list_accounts(database_url: str) -> list[ApplicationEntity]:
    """All accounts, withdrawn ones too."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM dicomweb.application_entity ORDER BY ae_title")  # noqa: S608  constant
        return [_account(row) for row in rows]


def get_account(database_url: str, ae_title: str) -> ApplicationEntity:
    """Return one account.

    Raises
    ------
    NotFoundError
        There is none.
    """
    found = next((item for item in list_accounts(database_url) if item.ae_title == ae_title), None)
    if found is None:
        raise NotFoundError("No such AE account")
    return found


def remove_account(database_url: str, ae_title: str) -> None:
    """Remove an account, with the rules that name it.

    Raises
    ------
    NotFoundError
        There is none.
    """
    with psycopg.connect(database_url) as connection:
        done = connection.execute("DELETE FROM dicomweb.application_entity WHERE ae_title = %s", (ae_title,))
        if done.rowcount == 0:
            raise NotFoundError("No such AE account")


def _account(row: dict[str, Any]) -> ApplicationEntity:
    return ApplicationEntity(**row | {"rights": frozenset(row["rights"])})
