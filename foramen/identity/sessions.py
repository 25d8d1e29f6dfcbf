"""Sign-in sessions as rows: idle and absolute time-out, a new id at every sign-in, ended by sign-out or disabling.

OWASP Session Management Cheat Sheet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update

from foramen.identity import tables
from foramen.identity.accounts import Account, find_account
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.token_families import revoke_family

ABSOLUTE_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Session:
    """A live session."""

    session_digest: str
    account: Account
    signed_in_at: datetime


def start_session(connection: Connection, account: str, replaced_cookie: str | None, now: datetime) -> str:
    """Start a session with a fresh id (against session fixation) and return the cookie value.

    Signing in again as the same person keeps what the old session opened; signing in as somebody else ends it.
    """
    cookie = new_opaque_token()
    connection.execute(
        tables.session.insert().values(
            session_digest=digest(cookie),
            account=account,
            signed_in_at=now,
            last_seen_at=now,
            expires_at=now + ABSOLUTE_TIMEOUT,
        )
    )
    if replaced_cookie:
        column = tables.token_family.c
        connection.execute(
            update(tables.token_family)
            .where(column.session_digest == digest(replaced_cookie), column.account == account)
            .values(session_digest=digest(cookie))
        )
        end_session(connection, digest(replaced_cookie))
    return cookie


def live_session(
    connection: Connection, session_digest: str, now: datetime, idle_s: int, *, seen: bool = True
) -> Session | None:
    """Return a session that is neither idle nor over; `seen` notes that its person was here."""
    column = tables.session.c
    row = connection.execute(
        select(column.account, column.signed_in_at, column.last_seen_at).where(
            column.session_digest == session_digest,
            column.expires_at > now,
            column.last_seen_at > now - timedelta(seconds=idle_s),
        )
    ).one_or_none()
    account = find_account(connection, row.account) if row else None
    if row is None or account is None:
        return None
    if seen and now - row.last_seen_at > timedelta(seconds=min(30, idle_s / 10)):  # spares a write at each request
        connection.execute(
            update(tables.session).where(column.session_digest == session_digest).values(last_seen_at=now)
        )
    return Session(session_digest, account, row.signed_in_at)


def end_session(connection: Connection, session_digest: str) -> str | None:
    """End a session and revoke the tokens that live with it (all but offline_access); returns whose it was."""
    families = connection.execute(
        select(tables.token_family.c.family).where(
            tables.token_family.c.session_digest == session_digest, tables.token_family.c.revoked_at.is_(None)
        )
    ).scalars()
    for family in families.all():
        revoke_family(connection, family)
    return connection.execute(
        delete(tables.session)
        .where(tables.session.c.session_digest == session_digest)
        .returning(tables.session.c.account)
    ).scalar_one_or_none()
