"""Read a signed token: decode it, verify it against a key set, and say what of it is as it should be. Pure.

RFC 7515, RFC 7519 §7.2, RFC 9068 §4; OpenID Connect Core §3.1.3.7 and §3.1.3.6 (at_hash)
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import orjson
from authlib.oidc.core.util import create_half_hash
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

ALGORITHMS = ["ES256", "RS256"]
_CLOCK_SKEW_S = 60
Check = tuple[str, bool, str]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A token taken apart, not verified."""

    header: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)


def decode(token: str) -> Decoded | None:
    """Decode header and claims; None: it is no signed JWT, as a refresh token is not."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        header, claims = (orjson.loads(_bytes(part)) for part in parts[:2])
    except (binascii.Error, ValueError):
        return None
    return Decoded(header, claims) if isinstance(header, dict) and isinstance(claims, dict) else None


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(token: str, jwks: Any, *, issuer: str, audience: str, now: float) -> list[Check]:
    """Verify signature, issuer, audience and time.

    Parameters
    ----------
    jwks : the key set as published, not trusted to be one
    audience : who the token has to be for
    now : seconds since 1970

    Returns
    -------
    Findings: name, whether it is as it should be, what was found.
    """
    decoded = decode(token)
    if decoded is None:
        return [("signature", False, "not a signed JWT")]
    claims = decoded.claims
    audiences = claims.get("aud") if isinstance(claims.get("aud"), list) else [claims.get("aud")]
    return [
        _signature(token, jwks, decoded),
        ("iss", claims.get("iss") == issuer, str(claims.get("iss"))),
        ("aud", audience in (audiences or []), str(claims.get("aud"))),
        ("exp", _number(claims.get("exp")) > now, _seconds(claims.get("exp"), now)),
        ("iat", _number(claims.get("iat")) <= now + _CLOCK_SKEW_S, _seconds(claims.get("iat"), now)),
    ]


def _signature(token: str, jwks: Any, decoded: Decoded) -> Check:
    said = f"{decoded.header.get('alg')}, kid {decoded.header.get('kid')}"
    try:
        keys = KeySet.import_key_set(jwks)
        jwt.decode(token, keys, algorithms=ALGORITHMS)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        return ("signature", False, f"{said}: {type(error).__name__}")
    return ("signature", True, said)


def verify_id_token(token: str, *, nonce: str, access_token: str) -> list[Check]:
    """Check what an id_token says beside that: `nonce`, and `at_hash` of the access token it came with."""
    decoded = decode(token) or Decoded()
    algorithm = str(decoded.header.get("alg", ""))
    wanted = create_half_hash(access_token, algorithm).decode() if algorithm in ALGORITHMS else None
    at_hash = decoded.claims.get("at_hash")
    return [
        ("nonce", decoded.claims.get("nonce") == nonce, str(decoded.claims.get("nonce"))),
        ("at_hash", wanted is not None and at_hash == wanted, str(at_hash)),
    ]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _seconds(value: Any, now: float) -> str:
    return f"{value} ({int(_number(value) - now):+d} s)" if isinstance(value, (int, float)) else str(value)
