"""Argon2id for passwords and client secrets. RFC 9106 §4 (second recommended option) for passwords.

https://www.rfc-editor.org/rfc/rfc9106#section-4
"""

from __future__ import annotations

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from foramen.identity.people.password_policy import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, normalised
from foramen.kernel.errors import InvalidRequestError

_PASSWORDS = PasswordHasher()
# Client secrets are 256 random bits that we made ourselves: guessing is hopeless, so the cost may be smaller.
_SECRETS = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@cache
def _nobody() -> str:
    """Hash that is checked when there is no such account, so that the answer takes as long."""
    return _PASSWORDS.hash("nobody has this password")


def hash_password(password: str) -> str:
    """Hash a password; whether it is a good one is decided before (`password_policy`).

    Raises
    ------
    InvalidRequestError
        Shorter than 12 or longer than 256 characters.
    """
    password = normalised(password)
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise InvalidRequestError(f"A password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")
    return _PASSWORDS.hash(password)


def password_matches(password_hash: str | None, password: str) -> bool:
    """Check a password; without a hash the same work is done and the answer is no."""
    password = normalised(password)
    try:
        matches = _PASSWORDS.verify(password_hash or _nobody(), password[:MAX_PASSWORD_LENGTH])
    except (VerificationError, InvalidHashError):
        return False
    return matches and password_hash is not None and len(password) <= MAX_PASSWORD_LENGTH


def hash_client_secret(secret: str) -> str:
    """Hash a client secret made by us."""
    return _SECRETS.hash(secret)


def client_secret_matches(secret_hash: str, secret: str) -> bool:
    """Check a client secret."""
    try:
        return _SECRETS.verify(secret_hash, secret)
    except (VerificationError, InvalidHashError):
        return False
