"""Discovery: `/.well-known/openid-configuration` and `/fhir/.well-known/smart-configuration`.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html; OpenID Connect Discovery 1.0; RFC 8414; RFC 9126 §5;
RFC 9207. Everything is read from what serves: the route table, the grants, the authentication methods, the scopes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from foramen.identity.environment import MOUNT, Environment
from foramen.identity.oauth.authorization_server import GRANT_TYPES
from foramen.identity.oauth.client_assertion import ALGORITHMS
from foramen.identity.oauth.clients import PRIVATE_KEY
from foramen.identity.oauth.grants import CLIENT_AUTH_METHODS, RequiredCodeChallenge
from foramen.identity.oauth.introspection import IntrospectionEndpoint
from foramen.identity.oauth.revocation import RevocationEndpoint
from foramen.identity.oauth.scopes import PLAIN_SCOPES
from foramen.identity.oauth.signing import ID_TOKEN_ALGORITHMS
from foramen.identity.people.authentication_context import ACR_VALUES
from foramen.identity.routes import ENDPOINTS
from foramen.kernel.access_context import ADMINISTRATOR

Document = Callable[[Environment, Request], Awaitable[Response]]
_RESOURCE_SCOPES = ("patient/*.rs", "user/*.rs", "user/*.cruds", "system/*.rs", "system/*.cruds")
_OPENID_ONLY = ("userinfo_endpoint", "end_session_endpoint")
_HEADERS = {"Cache-Control": "public, max-age=60"}


def capabilities() -> list[str]:
    """Return SMART's capabilities as far as something here serves them."""
    paths = {endpoint.path: endpoint for endpoint in ENDPOINTS}
    known = {
        "launch-ehr": "launch" in PLAIN_SCOPES,
        "launch-standalone": "launch/patient" in PLAIN_SCOPES,
        "authorize-post": "POST" in paths["/authorize"].methods,
        "client-public": "none" in CLIENT_AUTH_METHODS,
        "client-confidential-symmetric": "client_secret_basic" in CLIENT_AUTH_METHODS,
        "client-confidential-asymmetric": PRIVATE_KEY in CLIENT_AUTH_METHODS,
        "sso-openid-connect": {"openid", "fhirUser"} <= set(PLAIN_SCOPES),
        "context-banner": "/launch" in paths,
        "context-ehr-patient": "/launch" in paths,
        "context-ehr-encounter": "/launch" in paths,
        "context-standalone-patient": "/patient" in paths,
        "context-standalone-encounter": "/encounter" in paths and "launch/encounter" in PLAIN_SCOPES,
        "permission-offline": "offline_access" in PLAIN_SCOPES,
        "permission-online": "online_access" in PLAIN_SCOPES,
        "permission-patient": True,
        "permission-user": True,
        "permission-v1": True,
        "permission-v2": True,
    }
    return [name for name, served in known.items() if served]


def _with_algorithms(endpoint: str, methods: list[str]) -> dict[str, Any]:
    described: dict[str, Any] = {f"{endpoint}_auth_methods_supported": methods}
    if PRIVATE_KEY in methods:
        described[f"{endpoint}_auth_signing_alg_values_supported"] = ALGORITHMS
    return described


def _shared(env: Environment) -> dict[str, Any]:
    base = f"{env.settings.origin}{MOUNT}"
    registers = env.settings.client_registration
    return {
        "issuer": env.settings.issuer,
        **{
            endpoint.metadata: f"{base}{endpoint.path}"
            for endpoint in ENDPOINTS
            if endpoint.metadata
            and endpoint.metadata not in _OPENID_ONLY
            and (registers or endpoint.metadata != "registration_endpoint")
        },
        **_with_algorithms("token_endpoint", CLIENT_AUTH_METHODS),
        **_with_algorithms("introspection_endpoint", IntrospectionEndpoint.CLIENT_AUTH_METHODS),
        **_with_algorithms("revocation_endpoint", RevocationEndpoint.CLIENT_AUTH_METHODS),
        "grant_types_supported": list(GRANT_TYPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "scopes_supported": [*PLAIN_SCOPES, *_RESOURCE_SCOPES, ADMINISTRATOR],
        "code_challenge_methods_supported": RequiredCodeChallenge.SUPPORTED_CODE_CHALLENGE_METHOD,
        "authorization_response_iss_parameter_supported": True,
        "require_pushed_authorization_requests": False,
    }


async def smart_configuration(env: Environment, request: Request) -> Response:
    """Describe the server to SMART apps."""
    content = {**_shared(env), "capabilities": capabilities()}
    return JSONResponse(content, headers=_HEADERS)


async def openid_configuration(env: Environment, request: Request) -> Response:
    """Describe the server to OpenID Connect clients."""
    base = f"{env.settings.origin}{MOUNT}"
    claims = ["sub", "iss", "aud", "exp", "iat", "at_hash", "auth_time", "acr", "amr", "nonce", "sid"]
    content = {
        **_shared(env),
        **{endpoint.metadata: f"{base}{endpoint.path}" for endpoint in ENDPOINTS if endpoint.metadata in _OPENID_ONLY},
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ID_TOKEN_ALGORITHMS),
        "acr_values_supported": list(ACR_VALUES),
        "claims_supported": [*claims, "fhirUser", "preferred_username"],
        "prompt_values_supported": ["none", "login", "consent"],
        "ui_locales_supported": ["zh-CN", "en"],
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
    return JSONResponse(content, headers=_HEADERS)
