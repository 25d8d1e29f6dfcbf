"""Token introspection (RFC 7662) for confidential clients: their own tokens, or any if they may read everything.

https://hl7.org/fhir/smart-app-launch/STU2.2/token-introspection.html
"""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc7662 import IntrospectionEndpoint as AuthlibIntrospectionEndpoint

from foramen.identity.oauth.clients import Client
from foramen.identity.oauth.revocation import PresentedToken, recognise

INTROSPECT_ANY_SCOPE = "system/*.rs"
_ACCESS_CLAIMS = (
    "scope",
    "client_id",
    "sub",
    "aud",
    "iss",
    "exp",
    "iat",
    "jti",
    "patient",
    "encounter",
    "delegated_by",
    "break_glass",
)


class IntrospectionEndpoint(AuthlibIntrospectionEndpoint):  # type: ignore[misc]
    """Say whether a token lives and what it carries."""

    CLIENT_AUTH_METHODS = ["private_key_jwt", "client_secret_basic"]  # noqa: RUF012  Authlib's attribute

    def check_params(self, request: Any, client: Client) -> None:
        """Ask for the token only: it is recognised without the hint (RFC 7662 §2.1)."""
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token'")

    def query_token(self, token_string: str, token_type_hint: str | None) -> PresentedToken | None:
        """Find the token (Authlib hook)."""
        return recognise(self.server, token_string)

    def check_permission(self, token: PresentedToken, client: Client, request: Any) -> bool:
        """Whether this client may know; to others every token looks dead."""
        return token.check_client(client) or INTROSPECT_ANY_SCOPE in client.scope.split()

    def introspect_token(self, token: PresentedToken) -> dict[str, Any]:
        """Describe the token (SMART: scope, client_id, patient, fhirUser as a URL…)."""
        if token.claims is None:
            return self._refresh_token(token)
        payload = {name: token.claims[name] for name in _ACCESS_CLAIMS if name in token.claims}
        if "fhirUser" in token.claims:
            payload["fhirUser"] = f"{self.server.settings.fhir_base}/{token.claims['fhirUser']}"
        if token.family.account is not None:
            payload["username"] = token.family.account
        context = {key: value for key, value in token.family.launch_context.items() if key not in payload}
        return {"active": True, "token_type": "Bearer", **payload, **context}

    def _refresh_token(self, token: PresentedToken) -> dict[str, Any]:
        described = {
            "active": True,
            "client_id": token.family.client_id,
            "scope": token.family.scope,
            "iss": self.server.settings.issuer,
        }
        if token.family.account is not None:
            described |= {"sub": token.family.account, "username": token.family.account}
        return described
