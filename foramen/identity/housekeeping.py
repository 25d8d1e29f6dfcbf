"""Delete what has run out: requests, launches, codes, tokens, sessions, seen assertions."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from sqlalchemy import Connection, delete

from foramen.identity import tables
from foramen.identity.database import IdentityDatabase, utc_now
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

_TABLES = (
    tables.authorization_request,
    tables.launch,
    tables.session,
    tables.used_assertion,
    tables.access_token,
    # Deleting a family deletes its codes and refresh tokens. A code is kept as long as its family, so that its
    # second use is recognised and revokes what the first one gave.
    tables.token_family,
)
# A token that has just run out is still named in answers ("expired", not "unknown").
_KEEP = timedelta(hours=1)


def delete_expired(connection: Connection) -> int:
    """Delete expired rows; returns how many."""
    before = utc_now() - _KEEP
    return sum(connection.execute(delete(table).where(table.c.expires_at < before)).rowcount for table in _TABLES)


async def keep_house(database: IdentityDatabase, pause_s: float = 600.0) -> None:
    """Clean up now and then, until cancelled."""
    while True:
        try:
            await database.run(delete_expired)
        except UpstreamError:
            get_log().warning("expired rows not deleted", part="identity")
        await asyncio.sleep(pause_s)
