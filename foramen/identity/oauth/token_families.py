"""Everything that descends from one authorization: its code, refresh tokens and access tokens, revoked together.

RFC 9700 §4.14 (rotation and reuse detection), RFC 6749 §4.1.2 (a code used twice revokes what it gave).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, TokenMixin
from sqlalchemy import Connection, bindparam, or_, select, update

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.opaque_tokens import digest, new_opaque_token

CODE_LIFETIME = timedelta(seconds=60)
REFRESH_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Family(AuthorizationCodeMixin, TokenMixin):  # type: ignore[misc]
    """One authorization. As a code or a refresh token it answers what Authlib asks."""

    client_id: str
    account: str | None
    scope: str
    session_digest: str | None = None
    launch_context: dict[str, Any] = field(default_factory=dict)
    nonce: str | None = None
    signed_in_at: datetime | None = None
    family: uuid.UUID = field(default_factory=uuid.uuid4)
    redirect_uri: str = ""
    code_challenge: str = ""
    token_digest: str = ""
    factors: list[str] | None = None

    code_challenge_method = "S256"

    def get_redirect_uri(self) -> str:
        """Redirect URI the code was sent to."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """Granted scope."""
        return self.scope

    def check_client(self, client: Any) -> bool:
        """Whether it was issued to this client."""
        return bool(self.client_id == client.client_id)


_FIELDS = (
    *(
        "client_id",
        "account",
        "scope",
        "session_digest",
        "launch_context",
        "nonce",
        "signed_in_at",
        "family",
        "factors",
    ),
)
_COLUMNS = tuple(tables.token_family.c[name] for name in _FIELDS)


def save_family(connection: Connection, family: Family, lifetime: timedelta) -> None:
    """Store a new family; it can be revoked for as long as a token of it may live."""
    values = {name: getattr(family, name) for name in _FIELDS}
    connection.execute(_INSERT_FAMILY, {"expires_at": utc_now() + lifetime, **values})


def save_code(connection: Connection, code: str, family: Family) -> None:
    """Store an authorization code of 60 seconds."""
    values = {
        "code_digest": digest(code),
        "family": family.family,
        "redirect_uri": family.redirect_uri,
        "code_challenge": family.code_challenge,
        "expires_at": utc_now() + CODE_LIFETIME,
    }
    connection.execute(_INSERT_CODE, values)


_CODE = (
    select(
        tables.authorization_code.c.redirect_uri,
        tables.authorization_code.c.code_challenge,
        tables.authorization_code.c.expires_at,
        tables.authorization_code.c.used_at,
        *_COLUMNS,
    )
    .join(tables.token_family, tables.token_family.c.family == tables.authorization_code.c.family)
    .where(tables.authorization_code.c.code_digest == bindparam("code"), tables.token_family.c.revoked_at.is_(None))
    .with_for_update(of=tables.authorization_code)
)
_CODE_USED = (
    update(tables.authorization_code)
    .where(tables.authorization_code.c.code_digest == bindparam("code"))
    .values(used_at=bindparam("moment"))
)
_INSERT_FAMILY, _INSERT_CODE = tables.token_family.insert(), tables.authorization_code.insert()
_INSERT_ACCESS_TOKEN, _INSERT_REFRESH_TOKEN = tables.access_token.insert(), tables.refresh_token.insert()
_PROLONG_FAMILY = (
    update(tables.token_family)
    .where(tables.token_family.c.family == bindparam("of_family"))
    .values(expires_at=bindparam("until"))
)


def find_code(connection: Connection, code: str, client_id: str) -> Family | None:
    """Return what a code stands for; a second use revokes the family. Waits for a concurrent use of the same code."""
    row = connection.execute(_CODE, {"code": digest(code)}).one_or_none()
    if row is None or row.client_id != client_id:
        return None
    if row.used_at is not None:
        revoke_family(connection, row.family)
        return None
    if row.expires_at <= utc_now():
        return None
    values = {name: getattr(row, name) for name in _FIELDS}
    return Family(**values, redirect_uri=row.redirect_uri, code_challenge=row.code_challenge, token_digest=digest(code))


def mark_code_used(connection: Connection, code_digest: str) -> None:
    """Note that a code was exchanged."""
    connection.execute(_CODE_USED, {"code": code_digest, "moment": utc_now()})


def new_refresh_token(connection: Connection, family: uuid.UUID) -> str:
    """Store and return the next refresh token of a family; the family lives at least as long."""
    token, expires = new_opaque_token(), utc_now() + REFRESH_LIFETIME
    values = {"token_digest": digest(token), "family": family, "expires_at": expires}
    connection.execute(_INSERT_REFRESH_TOKEN, values)
    connection.execute(_PROLONG_FAMILY, {"of_family": family, "until": expires})
    return token


def find_refresh_token(connection: Connection, token: str, client_id: str | None) -> Family | None:
    """Return what a refresh token stands for; the use of one that was rotated away revokes the family."""
    columns = tables.refresh_token.c
    row = connection.execute(
        select(columns.family, columns.expires_at, columns.used_at)
        .where(columns.token_digest == digest(token))
        .with_for_update()
    ).one_or_none()
    family = _live_family(connection, row.family) if row else None
    if row is None or family is None or (client_id is not None and family.client_id != client_id):
        return None
    if row.used_at is not None:
        revoke_family(connection, row.family)
        return None
    if row.expires_at <= utc_now():
        return None
    return Family(**{name: getattr(family, name) for name in _FIELDS}, token_digest=digest(token))


def client_of_refresh_token(connection: Connection, token: str) -> str | None:
    """Return whose refresh token it is, used or not: that says nothing about whether it may be used."""
    columns = tables.refresh_token.c
    return connection.execute(
        select(tables.token_family.c.client_id)
        .join(tables.refresh_token, columns.family == tables.token_family.c.family)
        .where(columns.token_digest == digest(token))
    ).scalar_one_or_none()


def mark_refresh_token_used(connection: Connection, token_digest: str) -> None:
    """Note that a refresh token was rotated away."""
    connection.execute(
        update(tables.refresh_token)
        .where(tables.refresh_token.c.token_digest == token_digest)
        .values(used_at=utc_now())
    )


def record_access_token(connection: Connection, jti: str, family: uuid.UUID, expires_at: datetime) -> None:
    """Remember an issued access token, so that it can be revoked and introspected."""
    connection.execute(_INSERT_ACCESS_TOKEN, {"jti": jti, "family": family, "expires_at": expires_at})


def family_of_access_token(connection: Connection, jti: str) -> Family | None:
    """Return the family of an access token that is neither over nor revoked."""
    columns = tables.access_token.c
    family = connection.execute(
        select(columns.family).where(columns.jti == jti, columns.revoked_at.is_(None), columns.expires_at > utc_now())
    ).scalar_one_or_none()
    return _live_family(connection, family) if family else None


def revoke_access_token(connection: Connection, jti: str) -> None:
    """Revoke one access token."""
    connection.execute(
        update(tables.access_token)
        .where(tables.access_token.c.jti == jti, tables.access_token.c.revoked_at.is_(None))
        .values(revoked_at=utc_now())
    )


def revoke_family(connection: Connection, family: uuid.UUID) -> None:
    """Revoke every token of an authorization."""
    now = utc_now()
    connection.execute(
        update(tables.token_family)
        .where(tables.token_family.c.family == family, tables.token_family.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    connection.execute(
        update(tables.access_token)
        .where(tables.access_token.c.family == family, tables.access_token.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def revoke_client(connection: Connection, client_id: str) -> None:
    """Revoke every token of a client."""
    now = utc_now()
    families = select(tables.token_family.c.family).where(tables.token_family.c.client_id == client_id)
    connection.execute(
        update(tables.access_token)
        .where(tables.access_token.c.family.in_(families), tables.access_token.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    connection.execute(
        update(tables.token_family)
        .where(tables.token_family.c.client_id == client_id, tables.token_family.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def revoked_since(connection: Connection, moment: datetime) -> set[str]:
    """Return the ids of access tokens revoked since `moment` that have not run out."""
    token, family = tables.access_token.c, tables.token_family.c
    # Of the family too: a token that was being issued while the family was revoked is not marked itself.
    rows = connection.execute(
        select(token.jti)
        .join_from(tables.access_token, tables.token_family, token.family == family.family)
        .where(or_(token.revoked_at >= moment, family.revoked_at >= moment), token.expires_at > utc_now())
    )
    return set(rows.scalars())


def _live_family(connection: Connection, family: uuid.UUID) -> Family | None:
    row = connection.execute(
        select(*_COLUMNS).where(tables.token_family.c.family == family, tables.token_family.c.revoked_at.is_(None))
    ).one_or_none()
    return Family(**row._mapping) if row else None


def peek_refresh_token(connection: Connection, token: str) -> Family | None:
    """Return what a live refresh token stands for, without counting as a use of it."""
    columns = tables.refresh_token.c
    family = connection.execute(
        select(columns.family).where(
            columns.token_digest == digest(token), columns.used_at.is_(None), columns.expires_at > utc_now()
        )
    ).scalar_one_or_none()
    return _live_family(connection, family) if family else None
