"""Delete what has run out: requests, launches, codes, tokens, sessions, seen assertions."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func

from foramen.identity import tables
from foramen.identity.database import IdentityDatabase, utc_now
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

_TABLES = (
    tables.authorization_request,
    tables.launch,
    tables.session,
    tables.used_assertion,
    tables.pushed_request,
    tables.partial_sign_in,
    tables.passkey_challenge,
    tables.failure_budget,
    tables.access_token,
    # Deleting a family deletes its codes and refresh tokens. A code is kept as long as its family, so that its
    # second use is recognised and revokes what the first one gave.
    tables.token_family,
)
# A token that has just run out is still named in answers ("expired", not "unknown").
_KEEP = timedelta(hours=1)
_KEEP_CLIENTS = timedelta(days=30)


def delete_expired(connection: Connection) -> int:
    """Delete expired rows, and registrations that nobody approved or that were given up; returns how many."""
    before = utc_now() - _KEEP
    rows = connection.execute(delete(tables.client).where(_given_up(before - _KEEP_CLIENTS))).rowcount
    for table in _TABLES:
        rows += connection.execute(delete(table).where(table.c.expires_at < before)).rowcount
    return rows


def _given_up(before: datetime) -> ColumnElement[bool]:
    """Registrations that nobody ever decided on, or that were rejected or withdrawn, a month ago."""
    columns = tables.client.c
    never_decided = (columns.status == "pending") & columns.decided_at.is_(None)
    ended = columns.status.in_(("rejected", "withdrawn"))
    age = func.coalesce(columns.decided_at, columns.created_at)
    return columns.registration_digest.is_not(None) & (never_decided | ended) & (age < before)


async def keep_house(database: IdentityDatabase, pause_s: float = 600.0) -> None:
    """Clean up now and then, until cancelled."""
    while True:
        try:
            await database.run(delete_expired)
        except UpstreamError:
            get_log().warning("expired rows not deleted", part="identity")
        await asyncio.sleep(pause_s)
