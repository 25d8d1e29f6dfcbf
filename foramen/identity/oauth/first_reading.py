"""What the authorization and the token endpoint ask first, each in one statement: client, code, session and account.

Code, account and session are held (in this order) until the transaction ends: neither sign-out nor a change of rights
falls between what is read here and what is issued by it. Rights are read by a statement of their own, afterwards: one
that had to wait for a lock still sees the rights of before it waited
(https://www.postgresql.org/docs/18/transaction-iso.html#XACT-READ-COMMITTED).

`checked_issuing` reads the same without a hold, and checks what was read when it writes.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, literal, select, true

from foramen.identity import tables
from foramen.identity.oauth.clients import CLIENT_COLUMNS, Client, client_from
from foramen.identity.oauth.token_families import CODE_COLUMNS, FAMILY_COLUMNS, Family, family_from
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.accounts import ACCOUNT_COLUMNS, Account
from foramen.identity.people.sessions import SESSION_COLUMNS, Session, live_sessions, locked, note_seen, session_from

ONE = select(literal(1).label("one")).subquery()
CLIENT = and_(tables.client.c.client_id == bindparam("client"), tables.client.c.disabled.is_(False))
_C, _S, _A = len(CLIENT_COLUMNS), len(SESSION_COLUMNS), len(ACCOUNT_COLUMNS)
_K, _F = len(CODE_COLUMNS), len(FAMILY_COLUMNS)

_WHO = locked(live_sessions()).cte("who")
AUTHORIZATION = select(*CLIENT_COLUMNS, *_WHO.c).select_from(
    ONE.outerjoin(tables.client, CLIENT).outerjoin(_WHO, true())
)

_CODE, _FAMILY, _PERSON, _SESSION = tables.authorization_code, tables.token_family, tables.account, tables.session
_FOUND = (
    select(*CODE_COLUMNS, *(column.label(f"of_{column.name}") for column in FAMILY_COLUMNS))
    .join_from(_CODE, _FAMILY, _FAMILY.c.family == _CODE.c.family)
    .where(_CODE.c.code_digest == bindparam("code"), _FAMILY.c.revoked_at.is_(None))
    .with_for_update(of=_CODE)
    .cte("found")
)
_BEHIND = (
    select(*ACCOUNT_COLUMNS)
    .join_from(_FOUND, _PERSON, _PERSON.c.name == _FOUND.c.of_account)
    .where(_PERSON.c.disabled.is_(False))
    .with_for_update(read=True, key_share=True, of=_PERSON)
    .cte("behind")
)
_ALIVE = (
    select(*SESSION_COLUMNS[: _S - _A])
    .select_from(_FOUND.join(_BEHIND, true()).join(_SESSION, _SESSION.c.session_digest == _FOUND.c.of_session_digest))
    .where(
        _SESSION.c.account == _BEHIND.c.name,
        _SESSION.c.expires_at > bindparam("now"),
        _SESSION.c.last_seen_at > bindparam("idle_since"),
    )
    .with_for_update(read=True, key_share=True, of=_SESSION)
    .cte("alive")
)
EXCHANGE = select(*CLIENT_COLUMNS, *_FOUND.c, *_BEHIND.c, *_ALIVE.c).select_from(
    ONE.outerjoin(tables.client, CLIENT).outerjoin(_FOUND, true()).outerjoin(_BEHIND, true()).outerjoin(_ALIVE, true())
)


@dataclass(frozen=True, slots=True)
class Opening:
    """The client a browser was sent by, and its live session: either may be missing."""

    client: Client | None
    session: Session | None
    last_seen_at: datetime | None = None

    def note_seen(self, connection: Connection, now: datetime, idle_s: int) -> None:
        """Note that the person of the session was here."""
        if self.session is not None and self.last_seen_at is not None:
            note_seen(connection, self.session.session_digest, self.last_seen_at, now, idle_s)


def opening_asked(client_id: str, session_cookie: str | None, now: datetime, idle_s: int) -> dict[str, Any]:
    """Return the parameters of `AUTHORIZATION`."""
    session = digest(session_cookie) if session_cookie else ""
    return {"client": client_id, "session": session, "now": now, "idle_since": now - timedelta(seconds=idle_s)}


def code_asked(code: str, client_id: str, now: datetime, idle_s: int) -> dict[str, Any]:
    """Return the parameters of `EXCHANGE`."""
    return {"client": client_id, "code": digest(code), "now": now, "idle_since": now - timedelta(seconds=idle_s)}


def read_opening(
    connection: Connection,
    client_id: str,
    session_cookie: str | None,
    now: datetime,
    idle_s: int,
    two_factor_roles: Container[str],
) -> Opening:
    """Read what an authorization request needs; the session is held as by `live_session` with `lock`.

    Parameters
    ----------
    client_id : as the request names it, whatever that is
    """
    asked = opening_asked(client_id, session_cookie, now, idle_s)
    row = connection.execute(AUTHORIZATION, asked).one()
    client, who = row[:_C], row[_C:]
    session = session_from(who, two_factor_roles) if who[0] is not None else None
    return Opening(client_from(client) if client[0] is not None else None, session, who[4])


@dataclass(frozen=True, slots=True)
class CodeReading:
    """A code as it was found, with who stands behind it now.

    `session` and `account` are None where they are over, or may not act.
    """

    client: Client | None
    family: Family | None
    used: bool = False
    expires_at: datetime | None = None
    account: Account | None = None
    session: Session | None = None


def read_code(
    connection: Connection, code: str, client_id: str, now: datetime, idle_s: int, two_factor_roles: Container[str]
) -> CodeReading:
    """Read a code, the client that brings it, and who stands behind the code; a concurrent use is waited for.

    Nothing is decided here: whose code it is, whether it was used and whether it is over, the grant looks at.
    """
    asked = code_asked(code, client_id, now, idle_s)
    row = connection.execute(EXCHANGE, asked).one()
    ends = (_C, _C + _K, _C + _K + _F, _C + _K + _F + _A)
    client = client_from(row[: ends[0]]) if row[0] is not None else None
    if row[ends[0]] is None:
        return CodeReading(client, None)
    redirect_uri, challenge, expires_at, used_at = row[ends[0] : ends[1]]
    family = family_from(row[ends[1] : ends[2]], redirect_uri, challenge, digest(code))
    person, alive = row[ends[2] : ends[3]], row[ends[3] :]
    account = Account(*person) if person[0] is not None else None
    session = session_from((*alive, *person), two_factor_roles) if alive[0] is not None else None
    return CodeReading(client, family, used_at is not None, expires_at, account, session)
