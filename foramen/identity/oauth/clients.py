"""Registered OAuth clients: public, confidential with a secret, or with a key (private_key_jwt).

RFC 6749 §2; redirect URIs are compared exactly (RFC 9700 §2.1). What may be registered: `client_checks`.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import ClientMixin
from joserfc.jwk import KeySet
from sqlalchemy import ColumnElement, Connection, bindparam, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.oauth.client_checks import PRIVATE_KEY, PUBLIC, SECRET, check_client
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.passwords import client_secret_matches
from foramen.kernel.errors import ConflictError

__all__ = ["PRIVATE_KEY", "PUBLIC", "SECRET", "Client", "check_client", "find_client", "list_clients", "save_client"]

PENDING, APPROVED, REJECTED, WITHDRAWN = "pending", "approved", "rejected", "withdrawn"
_OURS = "foramen-"
_SECRET_DIGEST = "sha256:"  # noqa: S105  a prefix


def generated_secret_hash(secret: str) -> str:
    """Digest of a secret that we drew ourselves: 256 random bits need no slow hash (RFC 6749 §10.10)."""
    return f"{_SECRET_DIGEST}{digest(secret)}"


@dataclass(frozen=True, slots=True)
class Client(ClientMixin):  # type: ignore[misc]
    """One registration, with the answers Authlib asks for."""

    client_id: str
    auth_method: str
    scope: str
    redirect_uris: tuple[str, ...] = ()
    launch_url: str | None = None
    name_zh: str = ""
    name_en: str = ""
    first_party: bool = False
    secret_hash: str | None = None
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None
    grant_types: tuple[str, ...] | None = None
    require_pushed: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    status: str = APPROVED

    def get_client_id(self) -> str:
        """Client id."""
        return self.client_id

    def get_default_redirect_uri(self) -> str | None:
        """None: SMART requires the redirect URI in every request."""
        return None

    def get_allowed_scope(self, scope: str | None) -> str:
        """Return the scope as asked; what is granted is decided once the person is known (`scopes.grant`)."""
        return scope or ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether the URI is registered, character by character."""
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        """Whether the secret is right."""
        if self.secret_hash is None:
            return False
        if self.secret_hash.startswith(_SECRET_DIGEST):
            return hmac.compare_digest(self.secret_hash, generated_secret_hash(client_secret))
        return client_secret_matches(self.secret_hash, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Whether the client uses this method: always exactly the one it registered."""
        return method == self.auth_method

    def check_response_type(self, response_type: str) -> bool:
        """Authorization code only, and only with somewhere to send it."""
        return response_type == "code" and self.check_grant_type("authorization_code")

    def check_grant_type(self, grant_type: str) -> bool:
        """Code and refresh for clients with a redirect URI; client_credentials for confidential ones; as registered."""
        if self.grant_types is not None and grant_type not in self.grant_types:
            return False
        if grant_type in ("authorization_code", "refresh_token"):
            return bool(self.redirect_uris)
        return grant_type == "client_credentials" and self.auth_method != PUBLIC

    @property
    def id_token_algorithm(self) -> str:
        """Algorithm of its id_tokens: as registered, else RS256 (OpenID Connect Core §15.1); ES256 for our own apps."""
        return str(self.metadata.get("id_token_signed_response_alg", "ES256" if self.first_party else "RS256"))

    @property
    def logout_uri(self) -> str | None:
        """Where it wants to be told that a person signed out (OpenID Connect Back-Channel Logout 1.0 §2.2)."""
        return self.metadata.get("backchannel_logout_uri")

    def keys(self) -> KeySet:
        """Return the public keys registered by value."""
        return KeySet.import_key_set(self.jwks or {"keys": []})  # type: ignore[arg-type]


_FIELDS = (
    *("client_id", "auth_method", "scope", "redirect_uris", "launch_url", "name_zh", "name_en"),
    *("first_party", "secret_hash", "jwks", "jwks_uri", "grant_types", "require_pushed", "metadata", "status"),
)
CLIENT_COLUMNS = tuple(tables.client.c[name] for name in _FIELDS)
"""A registration, in the order `client_from` takes it."""


def client_from(row: Sequence[Any]) -> Client:
    """Make a client of values of `CLIENT_COLUMNS`."""
    values = dict(zip(_FIELDS, row, strict=True))
    values["redirect_uris"] = tuple(values["redirect_uris"])
    values["grant_types"] = None if values["grant_types"] is None else tuple(values["grant_types"])
    return Client(**values)


_BY_ID = select(*CLIENT_COLUMNS).where(
    tables.client.c.disabled.is_(False), tables.client.c.client_id == bindparam("wanted")
)  # built once: making it again costs more than asking


def find_registration(connection: Connection, client_id: str) -> Client | None:
    """Return a client that is not disabled, whether or not it was approved."""
    row = connection.execute(_BY_ID, {"wanted": client_id}).one_or_none()
    return client_from(row) if row else None


def any_registration(connection: Connection, client_id: str) -> Client | None:
    """Return a client, a disabled one too."""
    row = connection.execute(select(*CLIENT_COLUMNS).where(tables.client.c.client_id == client_id)).one_or_none()
    return client_from(row) if row else None


def find_client(connection: Connection, client_id: str) -> Client | None:
    """Return a client that may act, or None."""
    client = find_registration(connection, client_id)
    return client if client is not None and client.status == APPROVED else None


def list_clients(connection: Connection, *, status: str | None = None) -> list[Client]:
    """Return all clients, or those in one state, by id; disabled ones too."""
    statement = select(*CLIENT_COLUMNS).order_by(tables.client.c.client_id)
    if status is not None:
        statement = statement.where(tables.client.c.status == status)
    return [client_from(row) for row in connection.execute(statement)]


def stored_values(client: Client) -> dict[str, Any]:
    """Return the columns of a registration, without its id."""
    values = {name: getattr(client, name) for name in _FIELDS if name != "client_id"}
    values["redirect_uris"] = list(client.redirect_uris)
    values["grant_types"] = None if client.grant_types is None else list(client.grant_types)
    return values


def save_client(connection: Connection, client: Client) -> None:
    """Register a client, or replace its registration. One of our own that was disabled stays so.

    Raises
    ------
    InvalidRequestError
        Id, scope, redirect URI or keys cannot be accepted.
    ConflictError
        The id is new here, and an account has it for a name.
    """
    check_client(client)
    if _named(connection, tables.account.c.name, client.client_id) and not _named(
        connection, tables.client.c.client_id, client.client_id
    ):
        raise ConflictError("There is an account of this name")
    values = stored_values(client)
    statement = insert(tables.client).values(client_id=client.client_id, created_at=utc_now(), disabled=False, **values)
    changed = values if client.first_party else {**values, "disabled": False}
    connection.execute(statement.on_conflict_do_update(index_elements=["client_id"], set_=changed))


def check_account_name(connection: Connection, name: str) -> None:
    """Refuse a name that a client has for its id: both are `sub` of tokens, and the audit would not tell them apart.

    Names that begin with ``foramen-`` are kept for what acts here without a registration.

    Raises
    ------
    ConflictError
        See above.
    """
    if name.startswith(_OURS) or _named(connection, tables.client.c.client_id, name):
        raise ConflictError("There is a client of this name")


def _named(connection: Connection, column: ColumnElement[str], name: str) -> bool:
    return connection.execute(select(column).where(column == name)).one_or_none() is not None
