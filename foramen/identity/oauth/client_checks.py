"""What a registration must look like before it is stored: id, scopes, addresses, keys. Pure.

RFC 6749 §2, RFC 7591 §5, RFC 8252 §7, RFC 9700 §2.1; SMART App Launch (RS384 with RSA keys, ES384 with P-384 keys).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

from foramen.identity.oauth.scopes import unknown_scopes
from foramen.kernel.access_context import GATEWAY
from foramen.kernel.errors import InvalidRequestError

if TYPE_CHECKING:
    from foramen.identity.oauth.clients import Client

PUBLIC, SECRET, PRIVATE_KEY = "none", "client_secret_basic", "private_key_jwt"
AUTH_METHODS = (PRIVATE_KEY, SECRET, PUBLIC)
GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_KEYS = 16
_MIN_RSA_BITS = 2048
_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def check_client(client: Client) -> None:
    """Refuse a registration that would be unsafe or could not work.

    Raises
    ------
    InvalidRequestError
        Id, scope, redirect URI, grant type or keys cannot be accepted.
    """
    if not _CLIENT_ID.fullmatch(client.client_id):
        raise InvalidRequestError("A client id has 1 to 128 letters, digits or ._:-")
    unknown = [text for text in unknown_scopes(client.scope) if not (client.first_party and text == GATEWAY)]
    if unknown:
        raise InvalidRequestError(f"Not a SMART scope: {unknown[0]}")
    if client.auth_method == PUBLIC and not client.redirect_uris:
        raise InvalidRequestError("A public client needs a redirect URI")
    if not client.first_party:  # our own apps live on our own origin, whatever it is
        for uri in (*client.redirect_uris, *filter(None, [client.launch_url])):
            check_redirect_uri(uri)
    _check_grant_types(client)
    if client.auth_method == PRIVATE_KEY:
        _check_key_source(client)


def check_redirect_uri(uri: str) -> None:
    """HTTPS anywhere, HTTP on loopback, or a private-use scheme with a dot (RFC 8252 §7.1); never a fragment.

    Raises
    ------
    InvalidRequestError
        The URI is something else.
    """
    parts = _split(uri)
    private_use = parts is not None and "." in parts.scheme
    if parts is None or parts.fragment or "#" in uri or not (_is_web(uri) or private_use):
        raise InvalidRequestError("A redirect URI is https, http on loopback or a private-use scheme, without #")


def check_web_uri(uri: str, what: str) -> None:
    """Refuse what is neither https nor http on loopback, or hides something: user info, `*`, a fragment.

    Raises
    ------
    InvalidRequestError
        The URI is something else; `what` names it.
    """
    parts = _split(uri)
    if (
        parts is None
        or not _is_web(uri)
        or any(mark in uri for mark in "#*@\\ ")
        or not uri.isascii()
        or not uri.isprintable()
    ):
        raise InvalidRequestError(f"{what} is https, or http on loopback, without #, *, @ and spaces")


def _split(uri: str) -> Any:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_web(uri: str) -> bool:
    parts = _split(uri)
    if parts is None or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _check_grant_types(client: Client) -> None:
    if client.grant_types is None:
        return
    if not client.grant_types or not set(client.grant_types) <= set(GRANT_TYPES):
        raise InvalidRequestError(f"A grant type is one of {', '.join(GRANT_TYPES)}")
    if "client_credentials" in client.grant_types and client.auth_method == PUBLIC:
        raise InvalidRequestError("client_credentials needs a client that authenticates")
    if "authorization_code" in client.grant_types and not client.redirect_uris:
        raise InvalidRequestError("authorization_code needs a redirect URI")


def _check_key_source(client: Client) -> None:
    if (client.jwks is None) == (client.jwks_uri is None):
        raise InvalidRequestError("private_key_jwt needs exactly one of jwks and jwks_uri")
    if client.jwks_uri is not None:
        check_web_uri(client.jwks_uri, "jwks_uri")
    else:
        public_keys(client.jwks)


def public_keys(jwks: Any) -> KeySet:
    """Read the public keys of a client.

    Parameters
    ----------
    jwks : a JWK Set (RFC 7517 §5), at most 16 keys

    Raises
    ------
    InvalidRequestError
        It holds no key, a private or symmetric one, a short RSA key or another curve than P-384.
    """
    try:
        if len(jwks["keys"]) > MAX_KEYS:
            raise InvalidRequestError(f"A JWKS holds at most {MAX_KEYS} keys")
        keys = KeySet.import_key_set(jwks)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidRequestError("The JWKS holds no usable key") from exc
    if not keys.keys:
        raise InvalidRequestError("The JWKS holds no usable key")
    for key in keys.keys:
        if not isinstance(key, (RSAKey, ECKey)) or (isinstance(key, ECKey) and key.curve_name != "P-384"):
            raise InvalidRequestError("A client's key is RSA (RS384) or EC P-384 (ES384)")
        if key.is_private:
            raise InvalidRequestError("The JWKS holds a private key; register the public one only")
        if isinstance(key, RSAKey) and key.raw_value.key_size < _MIN_RSA_BITS:
            raise InvalidRequestError(f"An RSA key has at least {_MIN_RSA_BITS} bits")
    return keys


def usable_keys(jwks: Any) -> KeySet:
    """Read the keys of a fetched JWKS that we can verify with, leaving out what other parties use (RFC 7517 §5).

    Raises
    ------
    InvalidRequestError
        None is left.
    """
    found = []
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    for item in (listed if isinstance(listed, list) else [])[:MAX_KEYS]:
        try:
            found += public_keys({"keys": [item]}).keys
        except InvalidRequestError:
            continue
    if not found:
        raise InvalidRequestError("The JWKS holds no usable key")
    return KeySet(found)
