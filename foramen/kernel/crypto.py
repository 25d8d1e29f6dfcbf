"""Digests, message authentication codes and signatures behind one interface: international or 国密 algorithms.

SHA-256 (FIPS 180-4) by OpenSSL through `hashlib`; SM3 (GB/T 32905-2016) by OpenSSL through `cryptography`; HMAC
(RFC 2104) with either. Signatures are JWS (RFC 7515) with ES256; SM2 is not offered, ADR 0022 says why.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from foramen.kernel.errors import InteropError

DigestName = Literal["SHA-256", "SM3"]
SIGNATURE_ALGORITHM = "ES256"


class SignatureError(InteropError):
    """A signature does not fit what was signed, or the key."""


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


@dataclass(frozen=True, slots=True)
class StatementSigner:
    """Signs statements (JWS, compact) with a private EC key; `kind` is the `typ` of the header and is checked."""

    key: ECKey
    kind: str

    def sign(self, statement: bytes) -> str:
        """Return the compact JWS."""
        header = {"alg": SIGNATURE_ALGORITHM, "typ": self.kind, "kid": str(self.key.kid)}
        return jws.serialize_compact(header, statement, self.key, algorithms=[SIGNATURE_ALGORITHM])

    def public(self) -> dict[str, Any]:
        """Return the public key as a JWK."""
        return {**self.key.as_dict(private=False), "kid": self.key.kid, "alg": SIGNATURE_ALGORITHM, "use": "sig"}


def verified_statement(text: str, key: dict[str, Any], kind: str) -> bytes:
    """Return what a compact JWS says after its signature was checked.

    Parameters
    ----------
    key : public JWK (EC, P-256); a key named inside the JWS is never used
    kind : `typ` the header must have

    Raises
    ------
    SignatureError
        Not a JWS, another kind or algorithm, or signed by another key.
    """
    try:
        signed = jws.deserialize_compact(text.strip(), ECKey.import_key(cast(Any, key)), [SIGNATURE_ALGORITHM])
    except (JoseError, ValueError) as exc:
        raise SignatureError("The signature does not fit") from exc
    if signed.headers().get("typ") != kind:
        raise SignatureError("The signature is of another kind of statement")
    return signed.payload
