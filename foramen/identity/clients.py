"""Registered OAuth clients: public, confidential with a secret, or with a key (private_key_jwt).

RFC 6749 §2; redirect URIs are compared exactly (RFC 9700 §2.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import ClientMixin
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey
from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.passwords import client_secret_matches
from foramen.identity.scopes import unknown_scopes
from foramen.kernel.errors import InvalidRequestError

PUBLIC, SECRET, PRIVATE_KEY = "none", "client_secret_basic", "private_key_jwt"
_CLIENT_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
        return self.secret_hash is not None and client_secret_matches(self.secret_hash, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Whether the client uses this method: always exactly the one it registered."""
        return method == self.auth_method

    def check_response_type(self, response_type: str) -> bool:
        """Authorization code only, and only with somewhere to send it."""
        return response_type == "code" and bool(self.redirect_uris)

    def check_grant_type(self, grant_type: str) -> bool:
        """Code and refresh for clients with a redirect URI; client_credentials for confidential ones."""
        if grant_type in ("authorization_code", "refresh_token"):
            return bool(self.redirect_uris)
        return grant_type == "client_credentials" and self.auth_method != PUBLIC

    def keys(self) -> KeySet:
        """Return the public keys of a private_key_jwt client."""
        return KeySet.import_key_set(self.jwks or {"keys": []})  # type: ignore[arg-type]


_FIELDS = (
    *("client_id", "auth_method", "scope", "redirect_uris", "launch_url", "name_zh", "name_en"),
    *("first_party", "secret_hash", "jwks"),
)
_COLUMNS = tuple(tables.client.c[name] for name in _FIELDS)


def _client(row: Any) -> Client:
    values = dict(zip(_FIELDS, row, strict=True))
    values["redirect_uris"] = tuple(values["redirect_uris"])
    return Client(**values)


def find_client(connection: Connection, client_id: str) -> Client | None:
    """Return a client that may act, or None."""
    row = connection.execute(
        select(*_COLUMNS).where(tables.client.c.client_id == client_id, tables.client.c.disabled.is_(False))
    ).one_or_none()
    return _client(row) if row else None


def list_clients(connection: Connection) -> list[Client]:
    """Return all clients, by id."""
    return [_client(row) for row in connection.execute(select(*_COLUMNS).order_by(tables.client.c.client_id))]


def save_client(connection: Connection, client: Client) -> None:
    """Register a client, or replace its registration.

    Raises
    ------
    InvalidRequestError
        Id, scope, redirect URI or keys cannot be accepted.
    """
    check_client(client)
    values = {name: getattr(client, name) for name in _FIELDS if name != "client_id"}
    values["redirect_uris"] = list(client.redirect_uris)
    values["disabled"] = False
    statement = insert(tables.client).values(client_id=client.client_id, created_at=utc_now(), **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["client_id"], set_=values))


def check_client(client: Client) -> None:
    """Refuse a registration that would be unsafe or could not work."""
    if not _CLIENT_ID.match(client.client_id):
        raise InvalidRequestError("A client id has 1 to 128 letters, digits or ._:-")
    unknown = unknown_scopes(client.scope)
    if unknown:
        raise InvalidRequestError(f"Not a SMART scope: {unknown[0]}")
    if client.auth_method == PUBLIC and not client.redirect_uris:
        raise InvalidRequestError("A public client needs a redirect URI")
    if not client.first_party:  # our own apps live on our own origin, whatever it is
        for uri in (*client.redirect_uris, *filter(None, [client.launch_url])):
            _check_uri(uri)
    if client.auth_method == PRIVATE_KEY:
        _check_keys(client)


def _check_uri(uri: str) -> None:
    """HTTPS anywhere, HTTP on loopback, or a private-use scheme with a dot (RFC 8252 §7.1); never a fragment."""
    parts = urlsplit(uri)
    loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK
    private_use = "." in parts.scheme
    if parts.fragment or not (loopback or private_use or (parts.scheme == "https" and parts.hostname)):
        raise InvalidRequestError("A redirect URI is https, http on loopback or a private-use scheme, without #")


def _check_keys(client: Client) -> None:
    try:
        keys = client.keys().keys
    except (JoseError, ValueError, KeyError, TypeError) as exc:
        raise InvalidRequestError("The JWKS holds no usable key") from exc
    for key in keys:
        if key.is_private:
            raise InvalidRequestError("The JWKS holds a private key; register the public one only")
        if not isinstance(key, RSAKey) and not (isinstance(key, ECKey) and key.curve_name == "P-384"):
            raise InvalidRequestError("A client's key is RSA (RS384) or EC P-384 (ES384)")
