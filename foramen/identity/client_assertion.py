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
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.clients import Client

ALGORITHMS = ["RS384", "ES384"]
MAX_LIFETIME_S = 300
_CLOCK_SKEW_S = 10
_MAX_ASSERTION_BYTES = 8192


def _refuse(description: str) -> InvalidClientError:
    return InvalidClientError(description=description)


class ClientAssertion(JWTBearerClientAssertion):  # type: ignore[misc]
    """Authlib's flow with SMART's rules: only RS384 and ES384, exp at most five minutes ahead, exact audience."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, connection: Connection, audience: str) -> None:
        super().__init__()
        self._connection = connection
        self._audience = audience

    def __call__(self, query_client: Any, request: Any) -> Any:
        """Return the client that signed the assertion in the form, or None when there is no assertion."""
        form = request.form
        assertion = form.get("client_assertion")
        if assertion is None or form.get("client_assertion_type") != self.CLIENT_ASSERTION_TYPE:
            return None
        if len(assertion) > _MAX_ASSERTION_BYTES:
            raise _refuse("The assertion is too long")
        try:
            client = super().__call__(query_client, request)
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            raise _refuse("The assertion cannot be read") from exc
        if form.get("client_id", client.client_id) != client.client_id:
            raise _refuse("client_id and assertion name different clients")
        return client

    def resolve_client_public_key(self, client: Client) -> KeySet:
        """Return the registered keys; a `jku` or `jwk` in the assertion's header is never followed."""
        if client.auth_method != self.CLIENT_AUTH_METHOD:
            raise _refuse("The client is not registered for private_key_jwt")
        return client.keys()

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
        if claims.get("aud") not in (self._audience, [self._audience]):
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
