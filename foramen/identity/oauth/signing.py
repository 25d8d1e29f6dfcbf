"""Sign access tokens (RFC 9068) and id_tokens (OpenID Connect Core §2) with the server's keys of today.

Claims of the access token are those `foramen.kernel.tokens` reads.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from authlib.oidc.core.util import create_half_hash
from joserfc.jwk import KeySet

from foramen.identity.oauth.signing_keys import RSA_ALGORITHM, SigningKeys
from foramen.identity.sealing import DataKeys, protect_files
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import ALGORITHM, TOKEN_TYPE

ID_TOKEN_LIFETIME = timedelta(minutes=5)
ID_TOKEN_ALGORITHMS = (RSA_ALGORITHM, ALGORITHM)
_LONGEST_ORDINARY_S = 3600
_LOGOUT_LIFETIME = timedelta(minutes=2)
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed access token with what must be remembered of it."""

    text: str
    jti: str
    expires_at: datetime
    expires_in_s: int


class TokenSigner:
    """Signs with the active key of FORAMEN_HOME/secrets."""

    def __init__(self, settings: Settings, data_keys: DataKeys | None = None) -> None:
        self._settings = settings
        protect_files(settings, data_keys)
        self.keys = SigningKeys(settings.home, max(settings.access_token_s, _LONGEST_ORDINARY_S))

    def public_keys(self) -> dict[str, Any]:
        """Return the JWKS to publish: the key that signs, the one that will, and those with living tokens."""
        return {"keys": [key.public() for key in self.keys.all()]}

    def key_set(self) -> KeySet:
        """Return the public keys to verify with."""
        return self.keys.key_set()

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
        lenders: Sequence[str] = (),
        break_glass: Mapping[str, Any] | None = None,
        every_institution: bool = False,
    ) -> AccessToken:
        """Sign an access token for `/fhir` and `/dicom-web`.

        `lenders`: whose permissions are among those it uses; `break_glass`: emergency access it carries (`id`,
        `patient`, `until`); `every_institution`: no institution bounds it.
        """
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
        if lenders:  # Each in the form of RFC 8693 §4.1, not as `act`: there the one who acts would be the lender.
            claims["delegated_by"] = [{"sub": name} for name in lenders]
        if break_glass is not None:
            claims["break_glass"] = dict(break_glass)
        if every_institution:
            claims["every_institution"] = True
        expires_at = datetime.fromtimestamp(issued + lifetime_s, UTC)
        if lifetime_s > max(self._settings.access_token_s, _LONGEST_ORDINARY_S):
            self.keys.note_token(self.keys.active(), issued + lifetime_s)
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
        authentication: Mapping[str, Any] | None = None,
        alg: str = ALGORITHM,
        sid: uuid.UUID | None = None,
    ) -> str:
        """Sign an id_token; fhirUser is an absolute URL and only there when its scope was granted.

        `authentication` holds the claims that say how the person signed in (`amr`, `acr`); `alg` is one of
        `ID_TOKEN_ALGORITHMS`, as the client registered.
        """
        issued = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": self._settings.issuer,
            "aud": client_id,
            "sub": subject,
            "iat": issued,
            "exp": issued + int(ID_TOKEN_LIFETIME.total_seconds()),
            "at_hash": create_half_hash(access_token, alg).decode(),
            **(authentication or {}),
        }
        if sid is not None:
            claims["sid"] = str(sid)
        granted = scope.split()
        if nonce:
            claims["nonce"] = nonce
        if signed_in_at is not None:
            claims["auth_time"] = int(signed_in_at.timestamp())
        if fhir_user and "fhirUser" in granted:
            claims["fhirUser"] = f"{self._settings.fhir_base}/{fhir_user}"
        if "profile" in granted:
            claims["preferred_username"] = subject
        return self._sign("JWT", claims, alg)

    def logout_token(
        self, *, subject: str, client_id: str, sid: uuid.UUID, jti: uuid.UUID, now: datetime, alg: str
    ) -> str:
        """Sign a logout token (Back-Channel Logout 1.0 §2.4): never with a nonce, good for two minutes."""
        issued = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": self._settings.issuer,
            "aud": client_id,
            "sub": subject,
            "sid": str(sid),
            "iat": issued,
            "exp": issued + int(_LOGOUT_LIFETIME.total_seconds()),
            "jti": str(jti),
            "events": {_LOGOUT_EVENT: {}},
        }
        return self._sign("logout+jwt", claims, alg)

    def _sign(self, kind: str, claims: dict[str, Any], alg: str = ALGORITHM) -> str:
        return self.keys.active(alg).sign_token(kind, claims)
