"""Signatures behind one interface: ES256 (FIPS 186-5, RFC 7518 §3.4) or SM2 with SM3 (GB/T 32918.2-2016).

Keys are PEM (PKCS #8, SubjectPublicKeyInfo) and signatures DER with either, so that any other tool can read them.
"""

from __future__ import annotations

from typing import Literal, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from foramen.kernel.errors import InteropError

SignatureName = Literal["ES256", "SM2"]


class SignatureError(InteropError):
    """A signature does not fit what was signed, or the key."""


class AlgorithmUnavailableError(InteropError):
    """The installation cannot compute an algorithm; another one never takes its place."""


class SignatureAlgorithm(Protocol):
    """Makes key pairs, signs and verifies."""

    name: SignatureName

    def new_key(self) -> bytes:
        """Return a new private key (PEM, PKCS #8, not encrypted)."""

    def public_key(self, private: bytes) -> bytes:
        """Return the public key of a private key (PEM)."""

    def sign(self, private: bytes, data: bytes) -> bytes:
        """Return the signature (DER)."""

    def verify(self, public: bytes, data: bytes, signature: bytes) -> None:
        """Check a signature; raises `SignatureError` when it does not fit."""


class _Es256:
    name: SignatureName = "ES256"

    def new_key(self) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, form, plain)

    def public_key(self, private: bytes) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return _private(private).public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, private: bytes, data: bytes) -> bytes:
        return _private(private).sign(data, ec.ECDSA(hashes.SHA256()))

    def verify(self, public: bytes, data: bytes, signature: bytes) -> None:
        try:
            key = serialization.load_pem_public_key(public)
            if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
                raise SignatureError("The key is no key of ES256")
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as exc:
            raise SignatureError("The signature does not fit") from exc


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (UnsupportedAlgorithm, ValueError, TypeError) as exc:
        raise SignatureError("The private key cannot be read") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError("The key is no key of ES256")
    return key


def signature_algorithm(name: str) -> SignatureAlgorithm:
    """Return the algorithm of this name.

    Raises
    ------
    ValueError
        There is no such algorithm here.
    AlgorithmUnavailableError
        SM2, and there is no OpenSSL of the system that has it.
    """
    if name == "ES256":
        return _Es256()
    if name == "SM2":
        from foramen.kernel.crypto.sm2 import Sm2  # its module asks the system's OpenSSL

        return Sm2()
    raise ValueError("unknown signature algorithm")
