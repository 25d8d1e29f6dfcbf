"""A browser on its way to a provider and back: once, ten minutes, in the browser where it began.

RFC 6749 §10.12 (state), RFC 9700 §4.7 (CSRF), §4.4 (mix-up: one state, one provider), OpenID Connect Core §15.5.2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete

from foramen.identity import tables
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.sealed_columns import journey_purpose
from foramen.identity.sealing import DataKeys

SIGN_IN, LINK, SIGN_OUT = "sign-in", "link", "sign-out"
LIFETIME = timedelta(minutes=10)
_TABLE = tables.federation_request


@dataclass(frozen=True, slots=True)
class Pending:
    """What was begun. `session_digest`: whose session a link is for; `fresh`: the person must prove themselves anew."""

    purpose: str
    session_digest: str | None
    fresh: bool
    destination: dict[str, str]
    created_at: datetime


def derived(secret: str, purpose: str, state: str, browser: str) -> str:
    """Derive nonce or PKCE verifier from state and cookie, which are stored as digests only: 43 characters, 256 bits.

    A stolen table opens no sign-in under way.
    """
    mac = hmac.new(secret.encode(), f"federation {purpose}\0{state}\0{browser}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()


def begin(
    connection: Connection,
    keys: DataKeys,
    *,
    provider: str,
    browser: str,
    purpose: str,
    now: datetime,
    destination: dict[str, str] | None = None,
    session_digest: str | None = None,
    fresh: bool = False,
) -> str:
    """Note a new journey; returns its state."""
    state = new_opaque_token()
    key = digest(state)
    connection.execute(
        _TABLE.insert().values(
            state_digest=key,
            provider=provider,
            browser_digest=digest(browser),
            purpose=purpose,
            session_digest=session_digest,
            fresh=fresh,
            sealed_destination=keys.seal(json.dumps(destination or {}).encode(), journey_purpose(key)),
            created_at=now,
            expires_at=now + LIFETIME,
        )
    )
    return state


def take(
    connection: Connection, keys: DataKeys, *, provider: str, state: str, browser: str | None, now: datetime
) -> Pending | None:
    """Return a journey and end it; None when it is unknown, over, used, another browser's or another provider's."""
    column = _TABLE.c
    row = connection.execute(
        delete(_TABLE)
        .where(
            column.state_digest == digest(state),
            column.provider == provider,
            column.browser_digest == digest(browser or ""),
            column.expires_at > now,
        )
        .returning(
            column.purpose,
            column.session_digest,
            column.fresh,
            column.sealed_destination,
            column.created_at,
        )
    ).one_or_none()
    if row is None or not browser:
        return None
    destination = json.loads(keys.unseal(row.sealed_destination, journey_purpose(digest(state))))
    return Pending(row.purpose, row.session_digest, row.fresh, destination, row.created_at)
