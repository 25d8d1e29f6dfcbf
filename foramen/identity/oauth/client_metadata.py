"""Client metadata as apps send it when they apply for registration: strictly checked, made into a `Client`. Pure.

RFC 7591 §2 (metadata), §3.2.2 (errors), §5 (security considerations); RFC 9126 §6. What is not listed here is ignored,
as §2 asks; a software statement is refused (`registration`): to ignore it would ignore what somebody vouched for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authlib.oauth2.rfc7591 import ClientMetadataClaims, InvalidClientMetadataError
from authlib.oauth2.rfc7591.errors import InvalidRedirectURIError

from foramen.identity.oauth.client_checks import (
    AUTH_METHODS,
    GRANT_TYPES,
    PRIVATE_KEY,
    check_client,
    check_web_uri,
    public_keys,
)
from foramen.identity.oauth.clients import Client
from foramen.kernel.access_context import ADMINISTRATOR, parse_scopes
from foramen.kernel.errors import InvalidRequestError

LOGOUT_URI, LOGOUT_SESSION = "backchannel_logout_uri", "backchannel_logout_session_required"
_TEXTS = {
    "client_name": 100,
    "scope": 2000,
    "token_endpoint_auth_method": 50,
    "software_id": 100,
    "software_version": 50,
    "id_token_signed_response_alg": 10,
}
_URIS = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "jwks_uri", "launch_url", LOGOUT_URI)
_LISTS = {"redirect_uris": 10, "grant_types": 3, "response_types": 3, "contacts": 5}
_LONGEST_URI = 500
ID_TOKEN_ALG = "id_token_signed_response_alg"  # noqa: S105  the name of a field
_KEPT = (
    *("client_uri", "logo_uri", "tos_uri", "policy_uri", "contacts", "software_id", "software_version", ID_TOKEN_ALG),
    *(LOGOUT_URI, LOGOUT_SESSION),
)
"""Shown to the administrator who approves; never fetched and never shown to the people who sign in."""
_ID_TOKEN_ALGORITHMS = ("RS256", "ES256")
DEFAULT_SCOPE = "openid fhirUser"
REQUIRE_PUSHED = "require_pushed_authorization_requests"


class SmartClientMetadata(ClientMetadataClaims):  # type: ignore[misc]
    """Authlib's metadata with our rules before its own."""

    REGISTERED_CLAIMS = [  # noqa: RUF012
        *ClientMetadataClaims.REGISTERED_CLAIMS,
        *(REQUIRE_PUSHED, ID_TOKEN_ALG, "launch_url", LOGOUT_URI, LOGOUT_SESSION),
    ]

    def validate(self, now: Any = None, leeway: int = 0) -> None:
        """Check everything and fill in the defaults of RFC 7591 §2.

        Raises
        ------
        InvalidClientMetadataError, InvalidRedirectURIError
            RFC 7591 §3.2.2
        """
        _check_shape(self)
        self.setdefault("token_endpoint_auth_method", "client_secret_basic")
        self.setdefault("grant_types", ["authorization_code"])
        uses_code = "authorization_code" in self["grant_types"]
        self.setdefault("response_types", ["code"] if uses_code else [])
        if uses_code:
            self.setdefault("scope", DEFAULT_SCOPE)
        self["scope"] = " ".join(self.get("scope", "").split())
        super().validate(now, leeway)
        _check_meaning(self)


def _faulty(text: str) -> InvalidClientMetadataError:
    return InvalidClientMetadataError(text)


def _check_shape(metadata: Mapping[str, Any]) -> None:
    """Check types and lengths, so that everything after works with what it expects."""
    for name, longest in _TEXTS.items():
        if name in metadata:
            _check_text(name, metadata[name], longest)
    for name, most in _LISTS.items():
        items = metadata.get(name, [])
        if not isinstance(items, list) or len(items) > most:
            raise _faulty(f"{name} is an array of at most {most} strings")
        for item in items:
            _check_text(name, item, _LONGEST_URI)
        if len(set(items)) != len(items):
            raise _faulty(f"{name} names something twice")
    for name in _URIS:
        if name in metadata:
            _check_text(name, metadata[name], _LONGEST_URI)
            _check_uri(name, metadata[name])
    for uri in metadata.get("redirect_uris", []):
        try:
            check_web_uri(uri, "A redirect URI")
        except InvalidRequestError as error:
            raise InvalidRedirectURIError(error.message) from error
    if "jwks" in metadata:
        try:
            public_keys(metadata["jwks"])
        except InvalidRequestError as error:
            raise _faulty(error.message) from error
    for name in (REQUIRE_PUSHED, LOGOUT_SESSION):
        if not isinstance(metadata.get(name, False), bool):
            raise _faulty(f"{name} is true or false")


def _check_text(name: str, value: Any, longest: int) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise _faulty(f"{name} holds text of 1 to {longest} printable characters")


def _check_uri(name: str, value: str) -> None:
    try:
        check_web_uri(value, name)
    except InvalidRequestError as error:
        raise _faulty(error.message) from error


def _check_meaning(metadata: Mapping[str, Any]) -> None:
    grant_types, method = metadata["grant_types"], metadata["token_endpoint_auth_method"]
    if method not in AUTH_METHODS:
        raise _faulty(f"token_endpoint_auth_method is one of {', '.join(AUTH_METHODS)}")
    if not grant_types or not set(grant_types) <= set(GRANT_TYPES):
        raise _faulty(f"A grant type is one of {', '.join(GRANT_TYPES)}")
    if metadata.get(ID_TOKEN_ALG, "RS256") not in _ID_TOKEN_ALGORITHMS:
        raise _faulty(f"{ID_TOKEN_ALG} is one of {', '.join(_ID_TOKEN_ALGORITHMS)}")
    uses_code = "authorization_code" in grant_types
    if metadata["response_types"] != (["code"] if uses_code else []):
        raise _faulty("response_types is code with authorization_code and empty without it (RFC 7591 section 2.1)")
    if "refresh_token" in grant_types and not uses_code:
        raise _faulty("refresh_token comes with authorization_code only")
    if uses_code and not metadata.get("redirect_uris"):
        raise InvalidRedirectURIError("authorization_code needs a redirect URI")
    if method != PRIVATE_KEY and ("jwks" in metadata or "jwks_uri" in metadata):
        raise _faulty("jwks and jwks_uri are for private_key_jwt")
    if LOGOUT_URI in metadata and not uses_code:
        raise _faulty(f"{LOGOUT_URI} comes with authorization_code only")
    _check_scope(metadata["scope"].split(), grant_types)


def _check_scope(scopes: list[str], grant_types: list[str]) -> None:
    contexts = {one.context for one in parse_scopes(" ".join(scopes))}
    if ADMINISTRATOR in scopes:
        raise _faulty("This scope is given by an administrator only")
    if not scopes:
        raise _faulty("scope is missing")
    if "client_credentials" not in grant_types and "system" in contexts:
        raise _faulty("system/ scopes need client_credentials")
    if "authorization_code" not in grant_types and contexts - {"system"}:
        raise _faulty("patient/ and user/ scopes need authorization_code")


def client_of(client_id: str, metadata: Mapping[str, Any], *, secret_hash: str | None, status: str) -> Client:
    """Make the registration of checked metadata.

    Raises
    ------
    InvalidClientMetadataError
        Scope or keys cannot be accepted.
    """
    name = metadata.get("client_name", client_id)
    client = Client(
        client_id=client_id,
        auth_method=metadata["token_endpoint_auth_method"],
        scope=metadata["scope"],
        redirect_uris=tuple(metadata.get("redirect_uris", ())),
        launch_url=metadata.get("launch_url"),
        name_zh=name,
        name_en=name,
        secret_hash=secret_hash,
        jwks=metadata.get("jwks"),
        jwks_uri=metadata.get("jwks_uri"),
        grant_types=tuple(metadata["grant_types"]),
        require_pushed=metadata.get(REQUIRE_PUSHED, False),
        metadata={name: metadata[name] for name in _KEPT if name in metadata},
        status=status,
    )
    try:
        check_client(client)
    except InvalidRequestError as error:
        raise _faulty(error.message) from error
    return client


def metadata_of(client: Client) -> dict[str, Any]:
    """Return the metadata of a registration, as RFC 7591 §3.2.1 asks the server to repeat it."""
    optional = {"launch_url": client.launch_url, "jwks": client.jwks, "jwks_uri": client.jwks_uri}
    grant_types = client.grant_types or ()
    return {
        "client_name": client.name_en,
        "redirect_uris": list(client.redirect_uris),
        "token_endpoint_auth_method": client.auth_method,
        "grant_types": list(grant_types),
        "response_types": ["code"] if "authorization_code" in grant_types else [],
        "scope": client.scope,
        REQUIRE_PUSHED: client.require_pushed,
        **{name: value for name, value in optional.items() if value is not None},
        **client.metadata,
    }
