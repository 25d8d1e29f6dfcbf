"""Which of our sessions came from which session out there, and their end when that one ends.

OpenID Connect Back-Channel Logout 1.0 §2.7: tokens with offline_access outlive the session, all others end with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.federation.logout_token import LONGEST_AGE_S, OutsideLogout
from foramen.identity.federation.outside_identity import OutsideIdentity
from foramen.identity.federation.providers import Provider
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.accounts import Account, end_access
from foramen.identity.people.sessions import PASSWORD, end_session
from foramen.identity.sealed_columns import id_token_purpose
from foramen.identity.sealing import DataKeys
from foramen.identity.security_event import SIGN_OUT, SUCCESS, SecurityEvent

_TABLE = tables.federated_session
_OVER = tables.federation_logout
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a session's origin."""

    provider: str
    issuer: str
    subject: str
    sid: str | None
    sealed_id_token: str | None
    authenticated_at: datetime


def note(
    connection: Connection,
    keys: DataKeys,
    provider: Provider,
    found: OutsideIdentity,
    account: str,
    holder: str,
    factors: Collection[str],
    expires_at: datetime,
) -> None:
    """Note where a session, or a sign-in that waits for its second factor, comes from.

    Parameters
    ----------
    holder : the cookie of the session or of the sign-in under way
    """
    key = digest(holder)
    purpose = id_token_purpose(found.issuer, found.subject)
    sealed = keys.seal(found.id_token.encode(), purpose) if found.id_token else None
    connection.execute(
        _TABLE.insert().values(
            session_digest=key,
            provider=provider.id,
            account=account,
            issuer=found.issuer,
            subject=found.subject,
            sid=found.sid,
            sealed_id_token=sealed,
            factors=sorted(factors),
            # Not said: then never lately, so that nothing that asks for a recent sign-in believes there was one.
            authenticated_at=min(found.authenticated_at or _NEVER, found.issued_at),
            expires_at=expires_at,
        )
    )


def begun_outside(
    connection: Connection, cookie: str | None, account: Account, factors: Collection[str]
) -> tuple[Collection[str], str | None]:
    """Return the factors of a sign-in of which a provider gave the first, and whose it is; else what it was given."""
    if not cookie:
        return factors, None
    found = connection.execute(
        select(_TABLE.c.factors).where(_TABLE.c.session_digest == digest(cookie), _TABLE.c.account == account.name)
    ).scalar_one_or_none()
    if found is None:
        return factors, None
    return [*found, *(factor for factor in factors if factor != PASSWORD)], digest(cookie)


def goes_on(connection: Connection, begun: str | None, session_cookie: str, lifetime_s: int, now: datetime) -> None:
    """Hand what is known of a sign-in under way to the session it has become."""
    if begun is None:
        return
    connection.execute(
        update(_TABLE)
        .where(_TABLE.c.session_digest == begun)
        .values(session_digest=digest(session_cookie), expires_at=now + timedelta(seconds=lifetime_s))
    )
    settle_time(connection, session_cookie)


def settle_time(connection: Connection, session_cookie: str) -> None:
    """Let a session say when its person proved who they are out there, not when they came back here."""
    key, column = digest(session_cookie), tables.session.c
    proved = select(_TABLE.c.authenticated_at).where(_TABLE.c.session_digest == key).scalar_subquery()
    connection.execute(update(tables.session).where(column.session_digest == key).values(authenticated_at=proved))


def origin(connection: Connection, session_cookie: str | None) -> Held | None:
    """Return where a session came from; None: from here."""
    if not session_cookie:
        return None
    columns = ("provider", "issuer", "subject", "sid", "sealed_id_token", "authenticated_at")
    row = connection.execute(
        select(*(_TABLE.c[name] for name in columns)).where(_TABLE.c.session_digest == digest(session_cookie))
    ).one_or_none()
    return Held(*row) if row else None


def id_token_of(keys: DataKeys, held: Held) -> str | None:
    """Return the id_token a session began with: the hint for signing out there."""
    if held.sealed_id_token is None:
        return None
    return keys.unseal(held.sealed_id_token, id_token_purpose(held.issuer, held.subject)).decode()


def ended_meanwhile(connection: Connection, found: OutsideIdentity) -> bool:
    """Whether a sign-out was told while a sign-in of the same session, or of an earlier one, was on its way."""
    column = _OVER.c
    this = (column.sid == found.sid) if found.sid is not None else text("false")
    earlier = (column.sid.is_(None)) & (column.subject == found.subject) & (column.logged_out_at >= found.issued_at)
    return (
        connection.execute(select(column.jti).where(column.issuer == found.issuer, or_(this, earlier))).first()
        is not None
    )


def end_outside(connection: Connection, over: OutsideLogout, now: datetime, address: str | None) -> int | None:
    """End what came from a session that is over out there; returns how many, None when it was told before (replay)."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:issuer, 80))"), {"issuer": f"issuer {over.issuer}"}
    )
    told = connection.execute(
        insert(_OVER)
        .values(
            issuer=over.issuer,
            jti=over.jti,
            subject=over.subject,
            sid=over.sid,
            logged_out_at=over.issued_at,
            expires_at=now + timedelta(seconds=2 * LONGEST_AGE_S),
        )
        .on_conflict_do_nothing()
    )
    if told.rowcount == 0:
        return None
    conditions = [_TABLE.c.issuer == over.issuer]
    if over.sid is not None:
        conditions.append(_TABLE.c.sid == over.sid)
    if over.subject is not None:
        conditions.append(_TABLE.c.subject == over.subject)
    return _end(connection, conditions, address, f"{over.issuer}: session ended there")


def end_of_provider(connection: Connection, provider_id: str, reason: str) -> int:
    """End all sessions that came from a provider, and all access of the accounts it decides on: it is not trusted."""
    provided, link = tables.identity_provider.c, tables.federated_account.c
    issuer = select(provided.issuer).where(provided.id == provider_id).scalar_subquery()
    ended = _end(connection, [_TABLE.c.provider == provider_id], None, reason)
    for name in connection.execute(select(link.account).where(link.issuer == issuer, link.managed)).scalars().all():
        end_access(connection, name)
    return ended


def _end(connection: Connection, conditions: list[Any], address: str | None, reason: str) -> int:
    rows = connection.execute(
        delete(_TABLE).where(*conditions).returning(_TABLE.c.session_digest, _TABLE.c.account)
    ).all()
    for row in rows:
        connection.execute(
            delete(tables.partial_sign_in).where(tables.partial_sign_in.c.sign_in_digest == row.session_digest)
        )
        if end_session(connection, row.session_digest) is not None:
            record(connection, SecurityEvent(SIGN_OUT, SUCCESS, account=row.account, address=address, reason=reason))
    return len(rows)


def forget(connection: Connection, session_cookie: str | None) -> None:
    """Forget where a session came from: it is over."""
    if session_cookie:
        connection.execute(delete(_TABLE).where(_TABLE.c.session_digest == digest(session_cookie)))
