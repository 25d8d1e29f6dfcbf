"""A WebAuthn authenticator in software (ES256, attestation `none`), with every part that an attacker could change.

https://www.w3.org/TR/webauthn-3/#sctn-authenticator-data
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Authenticator:
    """One passkey."""

    origin: str
    rp_id: str
    flags: int = UP | UV
    count: int = 0
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    user_handle: str = ""

    def _client_data(self, kind: str, challenge: str, origin: str | None) -> bytes:
        return json.dumps(
            {"type": f"webauthn.{kind}", "challenge": challenge, "origin": origin or self.origin}
        ).encode()

    def _data(self, flags: int, rest: bytes = b"") -> bytes:
        self.count += 1
        return hashlib.sha256(self.rp_id.encode()).digest() + struct.pack(">BI", flags, self.count) + rest

    def create(self, options: dict[str, Any], *, origin: str | None = None, flags: int | None = None) -> str:
        """Answer `navigator.credentials.create()`."""
        self.user_handle = options["user"]["id"]
        numbers = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.credential_id)) + self.credential_id + cbor2.dumps(cose)
        data = self._data((self.flags if flags is None else flags) | AT, attested)
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        response = {
            "clientDataJSON": b64(self._client_data("create", options["challenge"], origin)),
            "attestationObject": b64(attestation),
            "transports": ["internal", "a-transport-of-the-future"],
        }
        return self._credential(response)

    def get(
        self, options: dict[str, Any], *, origin: str | None = None, flags: int | None = None, **change: Any
    ) -> str:
        """Answer `navigator.credentials.get()`; `change` overwrites parts of the response."""
        client_data = self._client_data("get", options["challenge"], origin)
        data = self._data(self.flags if flags is None else flags)
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": b64(client_data),
            "authenticatorData": b64(data),
            "signature": b64(signature),
            "userHandle": self.user_handle,
            **change,
        }
        return self._credential({key: value for key, value in response.items() if value is not None})

    def _credential(self, response: dict[str, Any]) -> str:
        identifier = b64(self.credential_id)
        return json.dumps({"id": identifier, "rawId": identifier, "type": "public-key", "response": response})
