"""private_key_jwt: a client proves itself by a signed assertion that is short-lived and good for one use.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html (RFC 7523)
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from authlib.oauth2.rfc6749 import InvalidClientError
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.oauth.clients import Client
from foramen.identity.oauth.remote_keys import RemoteKeys

ALGORITHMS = ["RS384", "ES384"]
MAX_LIFETIME_S = 300
_CLOCK_SKEW_S = 10
_MAX_ASSERTION_BYTES = 8192
_FOREIGN_KEYS = ("jwk", "x5u", "x5c", "x5t", "x5t#S256")
"""Headers that bring or name a key of the sender's choice (RFC 7515 §4.1, RFC 8725 §3.10)."""


def _refuse(description: str) -> InvalidClientError:
    return InvalidClientError(description=description)


class ClientAssertion(JWTBearerClientAssertion):  # type: ignore[misc]
    """Authlib's flow with SMART's rules: only RS384 and ES384, exp at most five minutes ahead, exact audience.

    `remote` holds the keys that clients publish at a URL.
    """

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, connection: Connection, origin: str, remote: RemoteKeys) -> None:
        super().__init__()
        self._connection, self._origin, self._remote = connection, origin, remote
        self._audiences: tuple[str, ...] = (f"{origin}/auth/token",)
        self._header: dict[str, Any] = {}

    def __call__(self, query_client: Any, request: Any) -> Any:
        """Return the client that signed the assertion in the form, or None when there is no assertion."""
        form = request.form
        assertion = form.get("client_assertion")
        if assertion is None or form.get("client_assertion_type") != self.CLIENT_ASSERTION_TYPE:
            return None
        if len(assertion) > _MAX_ASSERTION_BYTES:
            raise _refuse("The assertion is too long")
        if request.endpoint == "par":  # RFC 9126 §2: the token endpoint or this one
            self._audiences = (f"{self._origin}/auth/token", f"{self._origin}/auth/par")
        try:
            self._header = extract_compact(assertion.encode("ascii")).headers()
            client = super().__call__(query_client, request)
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            raise _refuse("The assertion cannot be read") from exc
        if form.get("client_id", client.client_id) != client.client_id:
            raise _refuse("client_id and assertion name different clients")
        return client

    def resolve_client_public_key(self, client: Client) -> KeySet:
        """Return the registered keys. A key in the header is never used, and `jku` only compared, as SMART says.

        Raises
        ------
        InvalidClientError
            No kid, a foreign key, or keys that cannot be fetched.
        KeysNeeded
            The keys are published at a URL and not here yet.
        """
        if client.auth_method != self.CLIENT_AUTH_METHOD:
            raise _refuse("The client is not registered for private_key_jwt")
        kid = self._header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise _refuse("The header of the assertion has no kid")
        if any(name in self._header for name in _FOREIGN_KEYS):
            raise _refuse("The header of the assertion brings a key")
        if "jku" in self._header and (client.jwks_uri is None or self._header["jku"] != client.jwks_uri):
            raise _refuse("jku is not the registered jwks_uri")
        if client.jwks_uri is None:
            return client.keys()
        keys = self._remote.known(client.jwks_uri, kid)
        if keys is None:
            raise _refuse("The keys of the client cannot be fetched from its jwks_uri")
        return keys

    def process_assertion_claims(self, assertion: str, resolve_key: Any) -> Any:
        """Check signature and claims.

        Raises
        ------
        InvalidClientError
            Wrong algorithm, key, issuer, audience, time or a jti seen before.
        """
        try:
            claims = jwt.decode(assertion, resolve_key, algorithms=ALGORITHMS).claims
        except (JoseError, ValueError) as exc:
            raise _refuse("The signature of the assertion cannot be verified") from exc
        self.verify_claims(claims)
        return claims

    def verify_claims(self, claims: dict[str, Any]) -> None:
        """Check the claims of SMART's asymmetric client authentication."""
        now, expires, jti = time.time(), claims.get("exp"), claims.get("jti")
        if claims.get("iss") != claims.get("sub"):
            raise _refuse("iss and sub differ")
        audience = claims.get("aud")
        if audience not in self._audiences and audience not in [[one] for one in self._audiences]:
            raise _refuse("The audience is not the token endpoint")
        if not isinstance(expires, int | float) or isinstance(expires, bool) or expires <= now - _CLOCK_SKEW_S:
            raise _refuse("The assertion has expired")
        if expires > now + MAX_LIFETIME_S + _CLOCK_SKEW_S:
            raise _refuse("exp lies more than five minutes ahead")
        not_before = claims.get("nbf", 0)
        if not isinstance(not_before, int | float) or not_before > now + _CLOCK_SKEW_S:
            raise _refuse("The assertion is not valid yet")
        if not isinstance(jti, str) or not 0 < len(jti) <= 256:
            raise _refuse("The assertion has no jti")
        if not self._first_use(claims["sub"], jti, float(expires)):
            raise _refuse("The assertion was used before")

    def _first_use(self, client_id: str, jti: str, expires: float) -> bool:
        """Whether this jti is new; two requests at once cannot both be the first."""
        statement = insert(tables.used_assertion).values(
            client_id=client_id, jti=jti, expires_at=datetime.fromtimestamp(expires + 2 * _CLOCK_SKEW_S, UTC)
        )
        return self._connection.execute(statement.on_conflict_do_nothing()).rowcount == 1
