"""Opaque tokens (codes, launches, sessions, refresh tokens): 256 random bits; the database keeps only the digest.

RFC 6749 §10.10 (entropy), RFC 9700 §4.14 (refresh token protection).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets


def new_opaque_token() -> str:
    """Return a new random token of 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """SHA-256 of a token; enough for values with full entropy, so that a stolen table opens nothing."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token(secret: str, binding: str) -> str:
    """Return the form token bound to a session or a pre-sign-in cookie (OWASP: HMAC double submit)."""
    return hmac.new(secret.encode(), f"csrf:{binding}".encode(), hashlib.sha256).hexdigest()


def csrf_matches(secret: str, binding: str, presented: str) -> bool:
    """Whether a form carries the token of its own binding."""
    return bool(binding) and hmac.compare_digest(csrf_token(secret, binding).encode(), presented.encode())
