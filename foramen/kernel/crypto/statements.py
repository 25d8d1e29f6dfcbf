"""Signed statements: JWS (RFC 7515) with ES256 (RFC 7518 §3.4); those with SM2 are checked by `sm2_statements`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from foramen.kernel.crypto.signatures import SignatureError
from foramen.kernel.crypto.sm2_statements import SM2, verified_sm2_statement

SIGNATURE_ALGORITHM = "ES256"


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
    key : public JWK (EC, P-256), or a key of SM2; it decides the algorithm, and a key named inside is never used
    kind : `typ` the header must have

    Raises
    ------
    SignatureError
        Not a JWS, another kind or algorithm, or signed by another key.
    """
    if key.get("alg") == SM2:
        return verified_sm2_statement(text, key, kind)
    try:
        signed = jws.deserialize_compact(text.strip(), ECKey.import_key(cast(Any, key)), [SIGNATURE_ALGORITHM])
    except (JoseError, ValueError) as exc:
        raise SignatureError("The signature does not fit") from exc
    if signed.headers().get("typ") != kind:
        raise SignatureError("The signature is of another kind of statement")
    return signed.payload
