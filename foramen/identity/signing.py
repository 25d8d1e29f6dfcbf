"""Sign access tokens (RFC 9068) and id_tokens (OpenID Connect Core §2) with the server's ES256 key.

Claims of the access token are those `foramen.kernel.tokens` reads.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from authlib.oidc.core.util import create_half_hash
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from foramen.kernel.secret_files import read_or_create_key
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import ALGORITHM, TOKEN_TYPE

ID_TOKEN_LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed access token with what must be remembered of it."""

    text: str
    jti: str
    expires_at: datetime
    expires_in_s: int


class TokenSigner:
    """Signs with the key `signing` of FORAMEN_HOME/secrets."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key: ECKey = read_or_create_key(settings.home, "signing")

    def public_keys(self) -> dict[str, Any]:
        """Return the JWKS to publish."""
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "kid": self._key.kid, "alg": ALGORITHM, "use": "sig"}]}

    def key_set(self) -> KeySet:
        """Return the public keys to verify with."""
        return KeySet.import_key_set(self.public_keys())  # type: ignore[arg-type]

    def access_token(
        self,
        *,
        subject: str,
        client_id: str,
        scope: str,
        now: datetime,
        lifetime_s: int | None = None,
        patient: str | None = None,
        encounter: str | None = None,
        fhir_user: str | None = None,
        institution: str | None = None,
    ) -> AccessToken:
        """Sign an access token for `/fhir` and `/dicom-web`."""
        lifetime_s = lifetime_s or self._settings.access_token_s
        issued, jti = int(now.timestamp()), str(uuid.uuid4())
        claims: dict[str, Any] = {
            "iss": self._settings.issuer,
            "aud": self._settings.origin,
            "sub": subject,
            "client_id": client_id,
            "scope": scope,
            "iat": issued,
            "exp": issued + lifetime_s,
            "jti": jti,
        }
        optional = {"patient": patient, "encounter": encounter, "fhirUser": fhir_user, "institution": institution}
        claims.update({name: value for name, value in optional.items() if value is not None})
        expires_at = datetime.fromtimestamp(issued + lifetime_s, UTC)
        return AccessToken(self._sign(TOKEN_TYPE, claims), jti, expires_at, lifetime_s)

    def id_token(
        self,
        *,
        subject: str,
        client_id: str,
        scope: str,
        now: datetime,
        access_token: str,
        fhir_user: str | None,
        nonce: str | None,
        signed_in_at: datetime | None,
    ) -> str:
        """Sign an id_token; fhirUser is an absolute URL and only there when its scope was granted."""
        issued = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": self._settings.issuer,
            "aud": client_id,
            "sub": subject,
            "iat": issued,
            "exp": issued + int(ID_TOKEN_LIFETIME.total_seconds()),
            "at_hash": create_half_hash(access_token, ALGORITHM).decode(),
        }
        granted = scope.split()
        if nonce:
            claims["nonce"] = nonce
        if signed_in_at is not None:
            claims["auth_time"] = int(signed_in_at.timestamp())
        if fhir_user and "fhirUser" in granted:
            claims["fhirUser"] = f"{self._settings.fhir_base}/{fhir_user}"
        if "profile" in granted:
            claims["preferred_username"] = subject
        return self._sign("JWT", claims)

    def _sign(self, kind: str, claims: dict[str, Any]) -> str:
        header = {"alg": ALGORITHM, "typ": kind, "kid": str(self._key.kid)}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])
