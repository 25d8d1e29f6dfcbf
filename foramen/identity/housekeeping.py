"""Delete what has run out: requests, launches, codes, tokens, sessions, seen assertions; record what was counted."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, func

from foramen.identity import tables
from foramen.identity.bounded_audit import record_rest
from foramen.identity.database import IdentityDatabase, utc_now
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

# Nothing asks for these once they have run out.
_SHORT_LIVED = (
    tables.authorization_request,
    tables.pushed_request,
    tables.passkey_challenge,
    tables.partial_sign_in,
    tables.password_link,
    tables.launch,
    tables.used_assertion,
    tables.failure_budget,
    tables.known_device,
    *(tables.federation_request, tables.federated_session, tables.federation_logout),
)
_TABLES = (
    tables.session,
    tables.access_token,
    # Deleting a family deletes its codes and refresh tokens. A code is kept as long as its family, so that its
    # second use is recognised and revokes what the first one gave.
    tables.token_family,
)
# A token that has just run out is still named in answers ("expired", not "unknown").
_KEEP = timedelta(hours=1)
_KEEP_CLIENTS = timedelta(days=30)
_LONG_LIVED_EACH = 10


def delete_expired(connection: Connection) -> int:
    """Delete expired rows, and registrations that nobody approved or that were given up; returns how many."""
    before = utc_now() - _KEEP
    rows = delete_short_lived(connection)
    rows += connection.execute(delete(tables.client).where(_given_up(before - _KEEP_CLIENTS))).rowcount
    for table in _TABLES:
        rows += connection.execute(delete(table).where(table.c.expires_at < before)).rowcount
    return rows


def delete_short_lived(connection: Connection) -> int:
    """Delete what lives for minutes once it has run out, and record refusals that were counted; returns the number."""
    now = utc_now()
    record_rest(connection, now)
    return sum(connection.execute(delete(table).where(table.c.expires_at < now)).rowcount for table in _SHORT_LIVED)


def _given_up(before: datetime) -> ColumnElement[bool]:
    """Registrations that nobody ever decided on, or that were rejected or withdrawn, a month ago."""
    columns = tables.client.c
    never_decided = (columns.status == "pending") & columns.decided_at.is_(None)
    ended = columns.status.in_(("rejected", "withdrawn"))
    age = func.coalesce(columns.decided_at, columns.created_at)
    return columns.registration_digest.is_not(None) & (never_decided | ended) & (age < before)


async def keep_house(database: IdentityDatabase, pause_s: float = 60.0) -> None:
    """Clean up every minute, long-lived tables every tenth one, until cancelled."""
    for turn in itertools.count():
        try:
            await database.run(delete_short_lived if turn % _LONG_LIVED_EACH else delete_expired)
        except UpstreamError:
            get_log().warning("expired rows not deleted", part="identity")
        await asyncio.sleep(pause_s)
