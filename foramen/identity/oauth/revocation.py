"""Token revocation (RFC 7009): a refresh token takes its whole family with it, an access token only itself.

https://www.rfc-editor.org/rfc/rfc7009
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc7009 import RevocationEndpoint as AuthlibRevocationEndpoint
from joserfc import jwt
from joserfc.errors import JoseError

from foramen.identity.oauth import token_families
from foramen.identity.oauth.grants import CLIENT_AUTH_METHODS
from foramen.identity.oauth.token_families import Family
from foramen.kernel.tokens import ALGORITHM


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """A token somebody sent us, recognised: an access token has claims, a refresh token has none."""

    family: Family
    claims: dict[str, Any] | None = None

    def check_client(self, client: Any) -> bool:
        """Whether it was issued to this client."""
        return self.family.check_client(client)

    def is_expired(self) -> bool:
        """Expired tokens are not found at all."""
        return False

    def is_revoked(self) -> bool:
        """Revoked tokens are not found at all."""
        return False


def recognise(server: Any, token: str) -> PresentedToken | None:
    """Find what a presented token is, whatever the hint says; None when it is nothing that still lives."""
    try:
        claims = jwt.decode(token, server.signer.key_set(), algorithms=[ALGORITHM]).claims
    except (JoseError, ValueError):
        family = token_families.peek_refresh_token(server.connection, token)
        return PresentedToken(family) if family else None
    family = token_families.family_of_access_token(server.connection, str(claims.get("jti", "")))
    return PresentedToken(family, claims) if family else None


class RevocationEndpoint(AuthlibRevocationEndpoint):  # type: ignore[misc]
    """Revoke; unknown tokens are answered like revoked ones (RFC 7009 §2.2)."""

    CLIENT_AUTH_METHODS = CLIENT_AUTH_METHODS

    def check_params(self, request: Any, client: Any) -> None:
        """Ask for the token only: a hint that is not understood is ignored (RFC 7009 §2.2.1)."""
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token'")

    def query_token(self, token_string: str, token_type_hint: str | None) -> PresentedToken | None:
        """Find the token (Authlib hook)."""
        return recognise(self.server, token_string)

    def revoke_token(self, token: PresentedToken, request: Any) -> None:
        """Revoke it (Authlib hook)."""
        if token.claims is None:
            token_families.revoke_family(self.server.connection, token.family.family)
        else:
            token_families.revoke_access_token(self.server.connection, str(token.claims["jti"]))
