"""Digests and message authentication codes behind one interface: SHA-256 (FIPS 180-4) or SM3 (GB/T 32905-2016).

SHA-256 by OpenSSL through `hashlib`, SM3 by OpenSSL through `cryptography`; HMAC (RFC 2104) with either.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

DigestName = Literal["SHA-256", "SM3"]


class DigestAlgorithm(Protocol):
    """A digest of 32 bytes, and the message authentication code made with it."""

    name: DigestName

    def digest(self, data: bytes) -> bytes:
        """Return the digest, 32 bytes."""

    def mac(self, key: bytes, data: bytes) -> bytes:
        """Return the HMAC, 32 bytes."""


class _Sha256:
    name: DigestName = "SHA-256"

    def digest(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    def mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, "sha256")


class _Sm3:
    name: DigestName = "SM3"

    def digest(self, data: bytes) -> bytes:
        state = hashes.Hash(hashes.SM3())
        state.update(data)
        return state.finalize()

    def mac(self, key: bytes, data: bytes) -> bytes:
        state = HMAC(key, hashes.SM3())
        state.update(data)
        return state.finalize()


_DIGESTS: dict[str, DigestAlgorithm] = {"SHA-256": _Sha256(), "SM3": _Sm3()}


def digest_algorithm(name: str) -> DigestAlgorithm:
    """Return the digest of this name.

    Raises
    ------
    ValueError
        There is no such algorithm here.
    """
    found = _DIGESTS.get(name)
    if found is None:
        raise ValueError("unknown digest algorithm")
    return found


def same(one: bytes, other: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one, other)
