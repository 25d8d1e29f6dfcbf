"""Everything that descends from one authorization: its code, refresh tokens and access tokens, revoked together.

RFC 9700 §4.14 (rotation and reuse detection), RFC 6749 §4.1.2 (a code used twice revokes what it gave).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, TokenMixin
from sqlalchemy import UUID, Connection, Text, bindparam, literal, or_, select, update

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.security_event import SecurityEvent

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
    sid: uuid.UUID | None = None
    """Session of the app it was opened in, where the app is told of its end."""

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
        "sid",
    ),
)
FAMILY_COLUMNS = tuple(tables.token_family.c[name] for name in _FIELDS)
CODE_COLUMNS = tuple(
    tables.authorization_code.c[name] for name in ("redirect_uri", "code_challenge", "expires_at", "used_at")
)


def family_from(values: Sequence[Any], redirect_uri: str, code_challenge: str, token_digest: str) -> Family:
    """Make a family, as the code found, of values of `FAMILY_COLUMNS`."""
    named = dict(zip(_FIELDS, values, strict=True))
    return Family(**named, redirect_uri=redirect_uri, code_challenge=code_challenge, token_digest=token_digest)


def save_family(connection: Connection, family: Family, lifetime: timedelta) -> None:
    """Store a new family; it can be revoked for as long as a token of it may live."""
    values = {name: getattr(family, name) for name in _FIELDS}
    connection.execute(_INSERT_FAMILY, {"expires_at": utc_now() + lifetime, **values})


def _started() -> Any:
    family = tables.token_family.insert().values({name: bindparam(f"of_{name}") for name in (*_FIELDS, "expires_at")})
    return tables.authorization_code.insert().add_cte(family.cte("started"))


START = _started()  # built once: making a statement again costs more than asking it


def save_authorization(connection: Connection, family: Family, lifetime: timedelta, code: str) -> None:
    """Store a new family, as `save_family`, and its authorization code of 60 seconds."""
    now = utc_now()
    values = {
        "code_digest": digest(code),
        "family": family.family,
        "redirect_uri": family.redirect_uri,
        "code_challenge": family.code_challenge,
        "expires_at": now + CODE_LIFETIME,
        "of_expires_at": now + lifetime,
        **{f"of_{name}": getattr(family, name) for name in _FIELDS},
    }
    connection.execute(START, values)


_CODE_USED = (
    update(tables.authorization_code)
    .where(tables.authorization_code.c.code_digest == bindparam("used_code"))
    .values(used_at=bindparam("moment"))
)
_ROTATED = (
    update(tables.refresh_token)
    .where(tables.refresh_token.c.token_digest == bindparam("rotated"))
    .values(used_at=bindparam("moment"))
)
_INSERT_FAMILY = tables.token_family.insert()


def mark_used(connection: Connection, token: Family) -> None:
    """Note that a code or a refresh token was used, though nothing came of it."""
    connection.execute(_CODE_USED, {"used_code": token.token_digest, "moment": utc_now()})
    connection.execute(_ROTATED, {"rotated": token.token_digest, "moment": utc_now()})


def _issued() -> Any:
    following, family = bindparam("following", type_=Text), tables.token_family
    refresh = tables.refresh_token.insert().from_select(
        ["token_digest", "family", "expires_at"],
        select(following, bindparam("of_family", type_=UUID), bindparam("until", type_=MOMENT)).where(
            following.is_not(None)
        ),
    )
    prolonged = (
        update(family)
        .where(family.c.family == bindparam("of_family"), following.is_not(None))
        .values(expires_at=bindparam("until"))
    )
    audit = tables.audit_outbox.insert().values(
        event=bindparam("said"), attempts=literal(0), next_attempt_at=bindparam("moment")
    )
    at_once = (
        *(_CODE_USED.cte("used"), _ROTATED.cte("old")),
        *(prolonged.cte("prolonged"), refresh.cte("next"), audit.cte("told")),
    )
    token = tables.access_token.insert().values(
        jti=bindparam("issued"), family=bindparam("of_family"), expires_at=bindparam("token_until")
    )
    return token.add_cte(*at_once)


MOMENT = tables.access_token.c.expires_at.type
ISSUED = _issued()


def save_issued(
    connection: Connection,
    family: Family,
    *,
    jti: str,
    expires_at: datetime,
    event: SecurityEvent,
    refreshable: bool,
) -> str | None:
    """Keep all that one answer of the token endpoint leaves, by one statement; returns the next refresh token.

    That is: the code or refresh token of `family` is used up, the access token can be revoked and introspected, the
    family lives as long as its refresh token, and the audit knows.

    Parameters
    ----------
    jti, expires_at : of the access token
    refreshable : whether a refresh token is given
    """
    now, token = utc_now(), new_opaque_token() if refreshable else None
    values = {
        "used_code": family.token_digest,
        "rotated": family.token_digest,
        "moment": now,
        "following": digest(token) if token else None,
        "of_family": family.family,
        "until": now + REFRESH_LIFETIME,
        "issued": jti,
        "token_until": expires_at,
        "said": event.resource(now),
    }
    connection.execute(ISSUED, values)
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
        select(*FAMILY_COLUMNS).where(
            tables.token_family.c.family == family, tables.token_family.c.revoked_at.is_(None)
        )
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
