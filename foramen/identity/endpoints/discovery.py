"""Discovery: `/.well-known/openid-configuration` and `/fhir/.well-known/smart-configuration`.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html; OpenID Connect Discovery 1.0; RFC 8414; RFC 9207
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from foramen.identity.client_assertion import ALGORITHMS
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.scopes import PLAIN_SCOPES
from foramen.kernel.tokens import ALGORITHM

Document = Callable[[Environment, Request], Awaitable[Response]]
_AUTH_METHODS = ["client_secret_basic", "private_key_jwt", "none"]
_SCOPES = [*PLAIN_SCOPES, "patient/*.rs", "user/*.rs", "user/*.cruds", "system/*.rs", "system/*.cruds"]
CAPABILITIES = [
    "launch-ehr",
    "launch-standalone",
    "authorize-post",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
]
_HEADERS = {"Cache-Control": "public, max-age=60"}


def _shared(env: Environment) -> dict[str, Any]:
    base = f"{env.settings.origin}{MOUNT}"
    return {
        "issuer": env.settings.issuer,
        "jwks_uri": f"{base}/jwks",
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "revocation_endpoint": f"{base}/revoke",
        "introspection_endpoint": f"{base}/introspect",
        "token_endpoint_auth_methods_supported": _AUTH_METHODS,
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types_supported": ["code"],
        "scopes_supported": _SCOPES,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }


async def smart_configuration(env: Environment, request: Request) -> Response:
    """Describe the server to SMART apps."""
    content = {**_shared(env), "capabilities": CAPABILITIES}
    return JSONResponse(content, headers=_HEADERS)


async def openid_configuration(env: Environment, request: Request) -> Response:
    """Describe the server to OpenID Connect clients."""
    base = f"{env.settings.origin}{MOUNT}"
    content = {
        **_shared(env),
        "userinfo_endpoint": f"{base}/userinfo",
        "end_session_endpoint": f"{base}/logout",
        "response_modes_supported": ["query"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "fhirUser", "preferred_username"],
        "prompt_values_supported": ["none", "login", "consent"],
        "ui_locales_supported": ["zh-CN", "en"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
    return JSONResponse(content, headers=_HEADERS)
