"""Authlib's authorization server, bound to one database transaction: grants, client authentication, revocation.

https://docs.authlib.org/en/latest/oauth2/authorization-server/ (RFC 6749, 7009, 7523, 7636, 7662, 9126, 9207)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Error, OAuth2Request, UnauthorizedClientError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from sqlalchemy import Connection

from foramen.identity.bounded_audit import record_refusal
from foramen.identity.database import utc_now
from foramen.identity.oauth.client_assertion import ClientAssertion
from foramen.identity.oauth.clients import APPROVED, PENDING, Client, find_registration
from foramen.identity.oauth.first_reading import CodeReading, read_code
from foramen.identity.oauth.grants import (
    AuthorizationCodeGrant,
    ClientCredentialsGrant,
    RefreshTokenGrant,
    RequiredCodeChallenge,
)
from foramen.identity.oauth.introspection import IntrospectionEndpoint
from foramen.identity.oauth.remote_keys import RemoteKeys
from foramen.identity.oauth.revocation import RevocationEndpoint
from foramen.identity.oauth.signing import TokenSigner
from foramen.identity.people.accounts import Account
from foramen.identity.people.second_factor import second_factor_roles
from foramen.identity.people.sessions import Session
from foramen.identity.security_event import REFUSED, SecurityEvent
from foramen.kernel.settings import Settings

GRANTS: tuple[tuple[Any, list[Any] | None], ...] = (
    (AuthorizationCodeGrant, [RequiredCodeChallenge(required=True)]),
    (RefreshTokenGrant, None),
    (ClientCredentialsGrant, None),
)
"""The grants that are served; discovery lists these."""
GRANT_TYPES = tuple(grant.GRANT_TYPE for grant, _ in GRANTS)


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the signed-in person agreed to: the input of an authorization code."""

    session: Session
    scope: str
    launch_context: dict[str, Any] = field(default_factory=dict)

    @property
    def account(self) -> Account:
        """Who agreed."""
        return self.session.account


class FormRequest(OAuth2Request):  # type: ignore[misc]
    """An OAuth request whose parameters were read and checked for repetition at the edge."""

    def __init__(
        self,
        parameters: Mapping[str, str],
        headers: Mapping[str, str],
        method: str = "POST",
        address: str | None = None,
        endpoint: str = "token",
    ) -> None:
        # Authlib refuses plain http except with an environment variable; whether TLS is in front is the supervisor's
        # and the proxy's business, so the check is given a URL that passes.
        super().__init__(method, "https://localhost/", headers=headers)
        self.payload = BasicOAuth2Payload(dict(parameters))
        self.address, self.endpoint = address, endpoint
        self.authorization: Authorization | None = None

    @property
    def form(self) -> dict[str, str]:
        """Parameters of the body."""
        return dict(self.payload.data)

    @property
    def args(self) -> dict[str, str]:
        """Parameters of the query."""
        return dict(self.payload.data)


@dataclass(slots=True)
class Answer:
    """What Authlib wants to say, before it becomes an HTTP response."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def location(self) -> str | None:
        """Where a redirect goes."""
        return self.headers.get("Location")


class SmartAuthorizationServer(AuthorizationServer):  # type: ignore[misc]
    """One request's server: everything it stores, audit included, is one transaction."""

    def __init__(
        self, connection: Connection, settings: Settings, signer: TokenSigner, remote_keys: RemoteKeys
    ) -> None:
        super().__init__()
        self.connection, self.settings, self.signer = connection, settings, signer
        self._clients: dict[str, Client | None] = {}
        self._codes: dict[str, CodeReading] = {}
        self.register_client_auth_method(
            ClientAssertion.CLIENT_AUTH_METHOD, ClientAssertion(connection, settings.origin, remote_keys)
        )
        for grant, extensions in GRANTS:
            self.register_grant(grant, extensions)

    def create_endpoint_response(self, name: str, request: FormRequest) -> Answer:
        """Answer at one of the other endpoints, made when it is asked: most requests are for tokens."""
        for endpoint in (RevocationEndpoint, IntrospectionEndpoint):
            if name == endpoint.ENDPOINT_NAME and name not in self._endpoints:
                self.register_endpoint(endpoint)
        answered: Answer = super().create_endpoint_response(name, request)
        return answered

    def query_client(self, client_id: str) -> Client | None:
        """Find a client that may act (Authlib hook); asked once a transaction.

        Raises
        ------
        UnauthorizedClientError
            The client is registered but no administrator has approved it yet.
        """
        client = self._registration(client_id)
        if client is not None and client.status == PENDING:
            raise UnauthorizedClientError("The client waits for approval by an administrator")
        return client if client is not None and client.status == APPROVED else None

    def approved_client(self, client_id: str) -> Client | None:
        """Return a client that may act, or None."""
        client = self._registration(client_id)
        return client if client is not None and client.status == APPROVED else None

    def _registration(self, client_id: str) -> Client | None:
        if client_id not in self._clients:
            self._clients[client_id] = find_registration(self.connection, client_id)
        return self._clients[client_id]

    def know_client(self, client_id: str, client: Client | None) -> None:
        """Take note of a client that was read in this transaction already, or of that there is none."""
        self._clients[client_id] = client

    def code_reading(self, code: str, client_id: str) -> CodeReading:
        """Return a code with who stands behind it, held; read once a transaction, with the client."""
        known = self._codes.get(code)
        if known is None:
            roles = second_factor_roles(self.settings)
            known = read_code(self.connection, code, client_id, utc_now(), self.settings.session_idle_s, roles)
            self._codes[code] = known
            self._clients.setdefault(client_id, known.client)
        return known

    def save_token(self, token: dict[str, Any], request: FormRequest) -> None:
        """Nothing to do: the grants store what they issue."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nothing listens."""

    def create_oauth2_request(self, request: FormRequest) -> FormRequest:
        """Requests come here already in Authlib's form."""
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Answer:
        """Keep the answer for the HTTP edge."""
        return Answer(status, body, dict(headers))

    def handle_error_response(self, request: FormRequest, error: OAuth2Error) -> Answer:
        """Answer a refusal and leave an audit event."""
        known = request.client.client_id if isinstance(request.client, Client) else None
        record_refusal(
            self.connection,
            SecurityEvent(
                what=request.payload.grant_type if request.payload.grant_type in GRANT_TYPES else request.endpoint,
                outcome=REFUSED,
                client_id=known,
                address=request.address,
                reason=error.error,
            ),
        )
        answer: Answer = super().handle_error_response(request, error)
        return answer

    def error_redirect(self, error: OAuth2Error) -> str | None:
        """Return where an authorization error is sent, with `iss` (RFC 9207 §2), or None when nowhere is trusted."""
        if not error.redirect_uri:
            return None
        location = str(dict(error(None)[2])["Location"])
        separator = "&" if "?" in location else "?"
        return f"{location}{separator}{urlencode({'iss': self.settings.issuer})}"
