"""Sessions and authorizations of apps as administrators see them, and ending them.

OWASP Session Management Cheat Sheet (administrators can see and end sessions); RFC 7009 (revocation).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.oauth.token_families import revoke_family
from foramen.identity.people import accounts, sessions
from foramen.identity.people.accounts import Account
from foramen.identity.rights.administration import MANAGE_ACCOUNTS, note, reach, require
from foramen.kernel.errors import NotFoundError

_SESSION, _FAMILY, _ACCOUNT = tables.session.c, tables.token_family.c, tables.account.c


@dataclass(frozen=True, slots=True)
class AccountSession:
    """One live session; `apps` are the client ids of what was opened with it."""

    session_digest: str
    account: str
    signed_in_at: datetime
    last_seen_at: datetime
    factors: tuple[str, ...]
    address: str | None
    device: str | None
    apps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """What one app holds for one account: a family of tokens."""

    family: uuid.UUID
    account: str
    client_id: str
    scope: str
    since: datetime | None
    expires_at: datetime
    session_digest: str | None

    @property
    def offline(self) -> bool:
        """Whether it goes on after the person has left."""
        return self.session_digest is None


def search_sessions(
    connection: Connection, administrator: Account, *, account: str = "", idle_s: int, offset: int, limit: int
) -> tuple[list[AccountSession], int]:
    """Return a part of the live sessions, the one used last first, and how many there are in all.

    Parameters
    ----------
    account : part of the account's name; empty asks nothing
    idle_s : seconds after which an unused session is over

    Raises
    ------
    ForbiddenError
        The administrator may not manage accounts.
    """
    now = utc_now()
    conditions = [
        reach(connection, administrator, MANAGE_ACCOUNTS).condition(_ACCOUNT.institution),
        _SESSION.expires_at > now,
        _SESSION.last_seen_at > now - timedelta(seconds=idle_s),
        ~_ACCOUNT.disabled,
    ]
    if account:
        conditions.append(_SESSION.account.icontains(account, autoescape=True))
    both = tables.session.join(tables.account, _SESSION.account == _ACCOUNT.name)
    total = connection.execute(select(func.count()).select_from(both).where(*conditions)).scalar_one()
    names = ("session_digest", "account", "signed_in_at", "last_seen_at", "factors", "address", "device")
    apps = (
        select(func.array_agg(_FAMILY.client_id.distinct()))
        .where(_FAMILY.session_digest == _SESSION.session_digest, _FAMILY.revoked_at.is_(None))
        .scalar_subquery()
    )
    rows = connection.execute(
        select(*(_SESSION[name] for name in names), apps)
        .select_from(both)
        .where(*conditions)
        .order_by(_SESSION.last_seen_at.desc(), _SESSION.session_digest)
        .offset(offset)
        .limit(limit)
    )
    return [AccountSession(*row[:4], tuple(row[4]), row[5], row[6], tuple(row[7] or ())) for row in rows], total


def end_session_of(connection: Connection, administrator: Account, session_digest: str) -> str:
    """End a session with the tokens that live with it; returns whose it was.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such session.
    """
    owner = connection.execute(
        select(_SESSION.account).where(_SESSION.session_digest == session_digest)
    ).scalar_one_or_none()
    if owner is None:
        raise NotFoundError("There is no such session")
    target = accounts.require_account(connection, owner)
    _require(connection, administrator, target, "There is no such session")
    sessions.end_session(connection, session_digest)
    note(connection, administrator, target, "ended", "session")
    return str(owner)


def end_all_sessions(connection: Connection, administrator: Account, name: str) -> None:
    """End all sessions of an account and all its tokens, those of apps that may go on without it too.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    """
    target = accounts.require_account(connection, name)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    accounts.end_access(connection, name)
    note(connection, administrator, target, "all ended", "session")


def search_authorizations(
    connection: Connection,
    administrator: Account,
    *,
    account: str = "",
    client_id: str = "",
    offset: int,
    limit: int,
) -> tuple[list[Authorization], int]:
    """Return a part of what apps hold for people now, newest first, and how many there are in all.

    Raises
    ------
    ForbiddenError
        The administrator may not manage accounts.
    """
    conditions = [
        reach(connection, administrator, MANAGE_ACCOUNTS).condition(_ACCOUNT.institution),
        *_live(),
    ]
    if account:
        conditions.append(_FAMILY.account.icontains(account, autoescape=True))
    if client_id:
        conditions.append(_FAMILY.client_id == client_id)
    both = tables.token_family.join(tables.account, _FAMILY.account == _ACCOUNT.name)
    total = connection.execute(select(func.count()).select_from(both).where(*conditions)).scalar_one()
    rows = connection.execute(
        select(*_columns())
        .select_from(both)
        .where(*conditions)
        .order_by(_FAMILY.signed_in_at.desc().nulls_last(), _FAMILY.family)
        .offset(offset)
        .limit(limit)
    )
    return [Authorization(*row) for row in rows], total


def find_authorization(connection: Connection, administrator: Account, family: uuid.UUID) -> Authorization:
    """Return what an app holds for an account within reach.

    Raises
    ------
    NotFoundError
        There is none, or it has ended.
    """
    row = connection.execute(select(*_columns()).where(_FAMILY.family == family, *_live())).one_or_none()
    owner = accounts.any_account(connection, row.account) if row is not None and row.account else None
    within = reach(connection, administrator, MANAGE_ACCOUNTS)
    if row is None or owner is None or not within.covers(owner.institution):
        raise NotFoundError("There is no such authorization")
    return Authorization(*row)


def revoke_authorization(connection: Connection, administrator: Account, family: uuid.UUID) -> Authorization:
    """Revoke all tokens of an authorization.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is none.
    """
    found = find_authorization(connection, administrator, family)
    target = accounts.require_account(connection, found.account)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    revoke_family(connection, family)
    note(connection, administrator, target, f"authorization of {found.client_id} ended", "withdraw")
    return found


def _require(connection: Connection, administrator: Account, target: Account, absent: str) -> None:
    """Ask the policy; another institution's session is answered in the words of one that does not exist."""
    try:
        require(connection, administrator, MANAGE_ACCOUNTS, target)
    except NotFoundError as error:
        raise NotFoundError(absent) from error


def _live() -> tuple[ColumnElement[bool], ...]:
    return (and_(_FAMILY.revoked_at.is_(None), _FAMILY.expires_at > utc_now(), _FAMILY.account.is_not(None)),)


def _columns() -> tuple[ColumnElement[Any], ...]:
    names = ("family", "account", "client_id", "scope", "signed_in_at", "expires_at", "session_digest")
    return tuple(_FAMILY[name] for name in names)
