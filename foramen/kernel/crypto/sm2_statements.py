"""Signed statements with SM2 and SM3 (GB/T 32918): the compact form of JWS (RFC 7515), with an `alg` of our own.

No `alg` of SM2 is registered for JOSE, so other tools check them by hand: the signature (DER) is over the text before
the second full stop, `openssl dgst -sm3 -sigopt distid:1234567812345678 -verify key.pem -signature …`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from foramen.kernel.crypto.signatures import SignatureError, signature_algorithm

SM2 = "SM2"


@dataclass(frozen=True, slots=True)
class Sm2StatementSigner:
    """Signs statements with a private SM2 key (PEM); `kind` is the `typ` of the header and is checked."""

    private: bytes = field(repr=False)
    kind: str

    def sign(self, statement: bytes) -> str:
        """Return the compact form."""
        header = {"alg": SM2, "typ": self.kind, "kid": self.public()["kid"]}
        signed = f"{_encoded(json.dumps(header, separators=(',', ':')).encode())}.{_encoded(statement)}"
        return f"{signed}.{_encoded(signature_algorithm(SM2).sign(self.private, signed.encode()))}"

    def public(self) -> dict[str, Any]:
        """Return the public key: as a JWK names things, with the key itself as PEM (no `crv` of SM2 is registered)."""
        pem = signature_algorithm(SM2).public_key(self.private)
        return {"alg": SM2, "use": "sig", "kid": hashlib.sha256(pem).hexdigest()[:16], "pem": pem.decode()}


def verified_sm2_statement(text: str, key: dict[str, Any], kind: str) -> bytes:
    """Return what a statement says after its signature was checked; see `verified_statement`.

    Raises
    ------
    SignatureError
        Not such a statement, another kind or algorithm, or signed by another key.
    """
    signed, _, signature = text.strip().rpartition(".")
    head, _, payload = signed.partition(".")
    try:
        header, statement, made = json.loads(_decoded(head)), _decoded(payload), _decoded(signature)
        public = str(key["pem"]).encode()
    except (binascii.Error, ValueError, KeyError) as exc:
        raise SignatureError("The signature does not fit") from exc
    if not isinstance(header, dict) or header.get("alg") != SM2:
        raise SignatureError("The signature does not fit")
    signature_algorithm(SM2).verify(public, signed.encode(), made)
    if header.get("typ") != kind:
        raise SignatureError("The signature is of another kind of statement")
    return statement


def algorithm_of(text: str) -> str:
    """Return the `alg` that a statement names, to choose among keys of one's own; "" when it names none."""
    try:
        header = json.loads(_decoded(text.strip().partition(".")[0]))
    except (binascii.Error, ValueError):
        return ""
    return str(header.get("alg", "")) if isinstance(header, dict) else ""


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
