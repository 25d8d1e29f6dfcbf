"""Back-channel logout: a signed word of the provider that a session out there is over.

https://openid.net/specs/openid-connect-backchannel-1_0.html §2.4, §2.6
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from joserfc.jwk import KeySet

from foramen.identity.federation.oidc import verified_claims
from foramen.identity.federation.outside_identity import OutsideRefused
from foramen.identity.federation.providers import Provider

EVENT = "http://schemas.openid.net/event/backchannel-logout"
LONGEST_AGE_S = 600
"""How old a logout token may be; its id is remembered for as long."""
_TYPES = (None, "JWT", "logout+jwt", "application/logout+jwt")


@dataclass(frozen=True, slots=True)
class OutsideLogout:
    """A session that is over out there: one (`sid`), or all of a subject."""

    issuer: str
    jti: str
    issued_at: datetime
    subject: str | None = None
    sid: str | None = None


def verify_logout_token(provider: Provider, keys: KeySet, token: str) -> OutsideLogout:
    """Verify a logout token.

    Raises
    ------
    OutsideRefused
        It is none, is not for us, is too old, or is an id_token.
    """
    header, claims = verified_claims(provider, keys, token)
    listed = claims.get("aud")
    audiences = listed if isinstance(listed, list) else [listed]
    now, skew = time.time(), provider.settings.clock_skew_s
    events = claims.get("events")
    issued, expires = claims.get("iat"), claims.get("exp")
    if not _is_time(issued) or not _is_time(expires):
        raise OutsideRefused("logout token: times")
    right = {
        "typ": header.get("typ") in _TYPES,
        "iss": claims.get("iss") == provider.issuer,
        "aud": provider.client_id in audiences,
        "iat": now - LONGEST_AGE_S - skew <= issued <= now + skew,
        "exp": now - skew < expires,
        "events": isinstance(events, dict) and isinstance(events.get(EVENT), dict),
        "nonce": "nonce" not in claims,
        "jti": _is_text(claims.get("jti")),
        "sub": _is_text(claims.get("sub")) or (claims.get("sub") is None and _is_text(claims.get("sid"))),
        "sid": claims.get("sid") is None or _is_text(claims.get("sid")),
    }
    for name, good in right.items():
        if not good:
            raise OutsideRefused(f"logout token: {name}")
    return OutsideLogout(
        provider.issuer, claims["jti"], datetime.fromtimestamp(issued, UTC), claims.get("sub"), claims.get("sid")
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 255


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**40
