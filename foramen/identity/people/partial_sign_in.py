"""A sign-in whose password was right and whose second factor is still to come: ten minutes, its own cookie.

It is no session: nothing that asks for a session finds it, so that no page can forget to check how far it got.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from foramen.identity import tables
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.people.accounts import Account, find_account

LIFETIME = timedelta(minutes=10)


def begin_partial(connection: Connection, account: str, now: datetime) -> str:
    """Note that the password of `account` was right; returns the cookie value, new each time."""
    cookie = new_opaque_token()
    connection.execute(
        tables.partial_sign_in.insert().values(
            sign_in_digest=digest(cookie), account=account, created_at=now, expires_at=now + LIFETIME
        )
    )
    return cookie


def find_partial(connection: Connection, cookie: str | None, now: datetime) -> Account | None:
    """Return whose password was right in this browser, if the account may still act."""
    if not cookie:
        return None
    column = tables.partial_sign_in.c
    account = connection.execute(
        select(column.account).where(column.sign_in_digest == digest(cookie), column.expires_at > now)
    ).scalar_one_or_none()
    return find_account(connection, account) if account else None


def end_partial(connection: Connection, cookie: str | None) -> None:
    """Forget a sign-in under way: it is complete, or another took its place."""
    if cookie:
        column = tables.partial_sign_in.c
        connection.execute(delete(tables.partial_sign_in).where(column.sign_in_digest == digest(cookie)))


def end_partials(connection: Connection, account: str) -> None:
    """Forget every sign-in under way of an account: what it has to show has changed."""
    connection.execute(delete(tables.partial_sign_in).where(tables.partial_sign_in.c.account == account))
