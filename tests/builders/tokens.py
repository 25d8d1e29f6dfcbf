"""Signed access tokens for tests, made with the production claim names and a throw-away key."""

from __future__ import annotations

import time
import uuid
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from foramen.kernel.tokens import ALGORITHM, TOKEN_TYPE, TokenVerifier

ORIGIN = "http://127.0.0.1:8000"
KEY = ECKey.generate_key("P-256", parameters={"kid": "test"}, private=True)


def token(scope: str, *, expires_in: float = 3600, key: ECKey = KEY, **claims: Any) -> str:
    """Return a bearer token with this scope; `patient`, `fhirUser`, `sub`… override or add claims."""
    now = time.time()
    body = {
        "iss": ORIGIN,
        "aud": ORIGIN,
        "sub": "tester",
        "client_id": "test-client",
        "scope": scope,
        "iat": int(now),
        "exp": int(now + expires_in),
        "jti": str(uuid.uuid4()),
        **claims,
    }
    return jwt.encode({"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": "test"}, body, key, algorithms=[ALGORITHM])


def verifier() -> TokenVerifier:
    """Return the verifier that accepts `token`'s tokens."""
    return TokenVerifier(KEY, issuer=ORIGIN, audience=ORIGIN)


def bearer(scope: str, **claims: Any) -> dict[str, str]:
    """Return an Authorization header."""
    return {"Authorization": f"Bearer {token(scope, **claims)}"}
