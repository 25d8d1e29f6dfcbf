"""Verification of access tokens: the one verifier behind FHIR, DICOMweb and the apps.

RFC 9068 (JWT profile for access tokens), RFC 8725 (JWT best practice): fixed algorithm, issuer, audience, type.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, KeySet

from foramen.kernel.access_context import AccessContext, BreakGlass, parse_scopes
from foramen.kernel.errors import NotAuthenticatedError

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105  RFC 9068 §2.1 media type
_MAX_TOKEN_BYTES = 8192
_CACHE_SIZE = 4096
_CLOCK_SKEW_S = 60
_KNOWN_HEADERS = frozenset(("alg", "typ", "kid"))
"""Anything else (jku, jwk, x5u, x5c, crit…) is none of ours, whoever signed it (RFC 8725 §3.10)."""


def _refuse(text: str, issue_code: str = "login") -> NotAuthenticatedError:
    return NotAuthenticatedError(
        text,
        issue_code=issue_code,
        headers={"WWW-Authenticate": f'Bearer realm="foramen", error="invalid_token", error_description="{text}"'},
    )


class TokenVerifier:
    """Checks signature, issuer, audience and times of a bearer token; caches what it has verified."""

    def __init__(self, keys: KeySet | ECKey, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._verified: OrderedDict[str, tuple[float, AccessContext]] = OrderedDict()

    def set_keys(self, keys: KeySet | ECKey) -> None:
        """Verify with other keys from now on; what was verified with the old ones is verified again."""
        self._keys, self._verified = keys, OrderedDict()

    def refresh_keys(self) -> bool:
        """Look for keys made meanwhile, when a token names one that is not known; whether there are any."""
        return False

    def verify(self, token: str) -> AccessContext:
        """Turn a token into its access context.

        Raises
        ------
        NotAuthenticatedError
            Malformed, forged, foreign or expired; carries ``WWW-Authenticate`` (RFC 6750 §3).
        """
        now = time.time()
        cached = self._verified.get(token)
        if cached is not None and cached[0] > now:
            return cached[1]
        if len(token) > _MAX_TOKEN_BYTES:
            raise _refuse("The token is too long")
        try:
            decoded = self._decode(token)
        except (JoseError, ValueError) as exc:
            raise _refuse("The token is not valid") from exc
        context, expires = self._context(decoded.header, decoded.claims, now)
        self._verified[token] = (expires, context)
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return context

    def _decode(self, token: str) -> jwt.Token:
        try:
            return jwt.decode(token, self._keys, algorithms=[ALGORITHM])
        except InvalidKeyIdError:
            if not self.refresh_keys():
                raise
            return jwt.decode(token, self._keys, algorithms=[ALGORITHM])

    def _context(self, header: dict[str, Any], claims: dict[str, Any], now: float) -> tuple[AccessContext, float]:
        expires, audience = claims.get("exp"), claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not _KNOWN_HEADERS.issuperset(header):
            raise _refuse("The token has a header of somebody else")
        if header.get("typ") != TOKEN_TYPE or claims.get("iss") != self._issuer or self._audience not in audiences:
            raise _refuse("The token was issued for something else")
        if not isinstance(expires, int | float) or expires <= now:
            raise _refuse("The token has expired", "expired")
        for name in ("iat", "nbf"):
            moment = claims.get(name, 0)
            if not isinstance(moment, int | float) or moment > now + _CLOCK_SKEW_S:
                raise _refuse("The token is not valid yet")
        if not isinstance(claims.get("sub"), str) or not isinstance(claims.get("client_id"), str):
            raise _refuse("The token lacks its subject or client")
        scope_text = str(claims.get("scope", ""))
        break_glass, expires = _break_glass(claims.get("break_glass"), float(expires), now)
        return (
            AccessContext(
                subject=claims["sub"],
                client_id=claims["client_id"],
                scopes=parse_scopes(scope_text),
                scope_text=scope_text,
                patient=claims.get("patient"),
                encounter=claims.get("encounter"),
                fhir_user=claims.get("fhirUser"),
                institution=claims.get("institution"),
                token_id=str(claims.get("jti", "")),
                lenders=tuple(one["sub"] for one in claims.get("delegated_by", ())),
                break_glass=break_glass,
                every_institution=claims.get("every_institution") is True,
            ),
            expires,
        )


def _break_glass(claim: Any, expires: float, now: float) -> tuple[BreakGlass | None, float]:
    """Read the emergency access of a token; the token is good for no longer than that lasts.

    A claim that is not understood makes the token invalid: nobody is to guess what it was meant to lift.
    """
    if claim is None:
        return None, expires
    found = claim if isinstance(claim, dict) else {}
    name, patient, until = found.get("id"), found.get("patient"), found.get("until")
    if not (isinstance(name, str) and isinstance(patient, str) and isinstance(until, int | float) and name and patient):
        raise _refuse("The token is not valid")
    if until <= now:
        raise _refuse("The token has expired", "expired")
    return BreakGlass(name, patient), min(expires, float(until))


def bearer_token(authorization: str | None) -> str:
    """Take the token out of an Authorization header (RFC 6750 §2.1); tokens in URLs are never read."""
    if not authorization:
        raise NotAuthenticatedError(
            "A bearer token is required", headers={"WWW-Authenticate": 'Bearer realm="foramen"'}
        )
    kind, _, token = authorization.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise _refuse("The Authorization header holds no bearer token")
    return token.strip()
