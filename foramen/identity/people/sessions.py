"""Sign-in sessions as rows: idle and absolute time-out, a new id at every sign-in, ended by sign-out or disabling.

OWASP Session Management Cheat Sheet.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, literal, select, update

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.oauth.logout_notices import tell_apps
from foramen.identity.oauth.token_families import revoke_family
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.people.accounts import ACCOUNT_COLUMNS, Account

PASSWORD, TOTP, PASSKEY, RECOVERY_CODE = "password", "totp", "passkey", "recovery-code"
ABSOLUTE_TIMEOUT_S = 12 * 3600
_DEVICE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Session:
    """A live session.

    `factors` says how its person proved who they are: "password", "totp", "passkey", "recovery-code";
    `authenticated_at` when they did so last.
    """

    session_digest: str
    account: Account
    signed_in_at: datetime
    factors: frozenset[str] = frozenset({PASSWORD})
    authenticated_at: datetime | None = None

    @property
    def has_second_factor(self) -> bool:
        """Whether two factors stand behind it; a passkey is two (a device, and the PIN or finger it asked for)."""
        return two_factors(self.factors)


def two_factors(factors: Collection[str]) -> bool:
    """Whether these are two factors: a passkey with user verification alone is."""
    return PASSKEY in factors or len(set(factors)) > 1


def start_session(
    connection: Connection,
    account: str,
    replaced_cookie: str | None,
    now: datetime,
    *,
    factors: Collection[str] = (PASSWORD,),
    lifetime_s: int = ABSOLUTE_TIMEOUT_S,
    address: str | None = None,
    device: str | None = None,
) -> str:
    """Start a session with a fresh id (against session fixation) and return the cookie value.

    Signing in again as the same person keeps what the old session opened; signing in as somebody else ends it.

    Parameters
    ----------
    factors : how the person proved who they are
    lifetime_s : seconds after which the session ends, however busy
    address, device : from where, and the browser's name of itself: shown to the person in the list of sessions
    """
    cookie = new_opaque_token()
    connection.execute(
        tables.session.insert().values(
            session_digest=digest(cookie),
            account=account,
            signed_in_at=now,
            last_seen_at=now,
            expires_at=now + timedelta(seconds=lifetime_s),
            factors=sorted(factors),
            authenticated_at=now,
            address=address,
            device=device[:_DEVICE_LENGTH] if device else None,
        )
    )
    if replaced_cookie:
        _await_issuing(connection, digest(replaced_cookie))
        for table in (tables.token_family, tables.break_glass, tables.app_session):
            connection.execute(
                update(table)
                .where(table.c.session_digest == digest(replaced_cookie), table.c.account == account)
                .values(session_digest=digest(cookie))
            )
        end_session(connection, digest(replaced_cookie))
    return cookie


def renew_session(connection: Connection, session_digest: str) -> str:
    """Give a session a new id and return its cookie value; whatever else is known of it, in any table, stays.

    For every change of what a session may do, so that a cookie somebody saw before does not rise with it: when the
    person proved who they are does not change by it.
    """
    cookie, session = new_opaque_token(), tables.session
    _await_issuing(connection, session_digest)
    kept = [column for column in session.c if column.name != "session_digest"]
    copied = select(literal(digest(cookie)), *kept).where(session.c.session_digest == session_digest)
    connection.execute(session.insert().from_select(["session_digest", *(column.name for column in kept)], copied))
    for table in tables.metadata.sorted_tables:
        if table is not session and "session_digest" in table.c:
            mine = table.c.session_digest == session_digest
            connection.execute(update(table).where(mine).values(session_digest=digest(cookie)))
    connection.execute(delete(session).where(session.c.session_digest == session_digest))
    return cookie


def _await_issuing(connection: Connection, session_digest: str) -> None:
    """Wait for what is being issued by a session, so that what is done next with all it opened misses nothing."""
    mine = tables.session.c.session_digest == session_digest
    connection.execute(select(tables.session.c.account).where(mine).with_for_update())


_COLUMN = tables.session.c
SESSION_COLUMNS = (
    *(_COLUMN.session_digest, _COLUMN.signed_in_at, _COLUMN.factors, _COLUMN.authenticated_at, _COLUMN.last_seen_at),
    *ACCOUNT_COLUMNS,
)
"""A session and its account, in the order `session_from` takes them."""


def live_sessions() -> Select[Any]:
    """Return the query of one live session and its account; parameters `session`, `now`, `idle_since`."""
    return (
        select(*SESSION_COLUMNS)
        .join_from(tables.session, tables.account, tables.account.c.name == _COLUMN.account)
        .where(
            _COLUMN.session_digest == bindparam("session"),
            _COLUMN.expires_at > bindparam("now"),
            _COLUMN.last_seen_at > bindparam("idle_since"),
            tables.account.c.disabled.is_(False),
        )
    )


def locked(query: Select[Any]) -> Select[Any]:
    """Return a query of session and account that holds both: neither ends before what is issued by it can be seen.

    Always the account first, as everybody else does who locks both.
    """
    return query.with_for_update(read=True, key_share=True, of=(tables.account, tables.session))


_LIVE = live_sessions()
_LIVE_LOCKED = locked(_LIVE)


def live_session(
    connection: Connection,
    session_digest: str,
    now: datetime,
    idle_s: int,
    *,
    seen: bool = True,
    two_factor_roles: Container[str] = (),
    lock: bool = False,
) -> Session | None:
    """Return a session that is neither idle nor over; `seen` notes that its person was here.

    A session with one factor is none for who has a role of `two_factor_roles`, however it came about. With `lock` the
    end of the session, and changes of its account's rights, wait until this transaction has ended.
    """
    asked = {"session": session_digest, "now": now, "idle_since": now - timedelta(seconds=idle_s)}
    row = connection.execute(_LIVE_LOCKED if lock else _LIVE, asked).one_or_none()
    if row is None:
        return None
    found = session_from(row, two_factor_roles)
    if found is not None and seen:
        note_seen(connection, session_digest, row.last_seen_at, now, idle_s)
    return found


def session_from(values: Sequence[Any], two_factor_roles: Container[str]) -> Session | None:
    """Make a session of values of `SESSION_COLUMNS`; None where it would need a second factor."""
    session_digest, signed_in_at, factors, authenticated_at, _, *person = values
    account, proved = Account(*person), frozenset(factors)
    if account.role in two_factor_roles and not two_factors(proved):
        return None
    return Session(session_digest, account, signed_in_at, proved, authenticated_at or signed_in_at)


def note_seen(connection: Connection, session_digest: str, last: datetime, now: datetime, idle_s: int) -> None:
    """Note that the person of a session was here, now and then only: that spares a write at each request."""
    if now - last > timedelta(seconds=min(30, idle_s / 10)):
        connection.execute(
            update(tables.session).where(_COLUMN.session_digest == session_digest).values(last_seen_at=now)
        )


def end_session(connection: Connection, session_digest: str) -> str | None:
    """End a session and revoke the tokens that live with it (all but offline_access); returns whose it was.

    The session goes first: that waits for codes and tokens being issued by it, which are then there to be revoked.
    """
    _await_issuing(connection, session_digest)
    tell_apps(connection, tables.app_session.c.session_digest == session_digest, utc_now())
    owner = connection.execute(
        delete(tables.session)
        .where(tables.session.c.session_digest == session_digest)
        .returning(tables.session.c.account)
    ).scalar_one_or_none()
    families = connection.execute(
        select(tables.token_family.c.family).where(
            tables.token_family.c.session_digest == session_digest, tables.token_family.c.revoked_at.is_(None)
        )
    ).scalars()
    for family in families.all():
        revoke_family(connection, family)
    return owner


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session as its person sees it."""

    session_digest: str
    signed_in_at: datetime
    last_seen_at: datetime
    factors: tuple[str, ...]
    address: str | None
    device: str | None


def list_sessions(connection: Connection, account: str, now: datetime, idle_s: int) -> list[ListedSession]:
    """Return an account's live sessions, the newest first."""
    column = tables.session.c
    rows = connection.execute(
        select(
            column.session_digest,
            column.signed_in_at,
            column.last_seen_at,
            column.factors,
            column.address,
            column.device,
        )
        .where(
            column.account == account,
            column.expires_at > now,
            column.last_seen_at > now - timedelta(seconds=idle_s),
        )
        .order_by(column.signed_in_at.desc())
    )
    return [ListedSession(row[0], row[1], row[2], tuple(row[3]), row[4], row[5]) for row in rows]


def end_own_session(connection: Connection, account: str, session_digest: str) -> bool:
    """End a session if it is the account's own; returns whether it was."""
    column = tables.session.c
    owner = connection.execute(select(column.account).where(column.session_digest == session_digest)).scalar()
    if owner != account:
        return False
    return end_session(connection, session_digest) is not None


def end_other_sessions(connection: Connection, account: str, kept: str) -> int:
    """End all sessions of an account but one; returns how many."""
    column = tables.session.c
    others = connection.execute(
        select(column.session_digest).where(column.account == account, column.session_digest != kept)
    ).scalars()
    return sum(end_session(connection, session_digest) is not None for session_digest in others.all())


def add_factor(
    connection: Connection, session_digest: str, factor: str, now: datetime, *, proves_person: bool = True
) -> None:
    """Note that the person of a session has just proved one factor more.

    `proves_person`: not so for a factor set up just now, which anybody with the session could have done.
    """
    column = tables.session.c
    factors = connection.execute(
        select(column.factors).where(column.session_digest == session_digest).with_for_update()
    ).scalar_one_or_none()
    if factors is not None:
        proved = {"authenticated_at": now} if proves_person else {}
        connection.execute(
            update(tables.session)
            .where(column.session_digest == session_digest)
            .values(factors=sorted({*factors, factor}), **proved)
        )
