"""Discovery is complete and true: every endpoint answers, every method and algorithm named is the one that works."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oidc.discovery import OpenIDProviderMetadata
from starlette.applications import Starlette
from starlette.routing import Route

from foramen.identity.app import IdentityService
from foramen.identity.oauth.authorization_server import GRANTS
from foramen.identity.routes import ENDPOINTS
from tests.contract.smart.conftest import ORIGIN, Smart


async def documents(smart: Smart) -> tuple[dict[str, Any], dict[str, Any]]:
    async with smart.http() as http:
        openid = (await http.get("/.well-known/openid-configuration")).json()
        return openid, (await http.get("/fhir/.well-known/smart-configuration")).json()


@pytest.mark.requirement("rfc8414")
async def test_the_documents_are_what_their_standards_ask(smart: Smart):
    openid, described = await documents(smart)
    https = {key: _https(value) for key, value in openid.items()}
    OpenIDProviderMetadata(https).validate()
    AuthorizationServerMetadata(https).validate()
    for name in ("authorization_endpoint", "token_endpoint", "capabilities", "grant_types_supported", "jwks_uri",
                 "code_challenge_methods_supported", "issuer", "introspection_endpoint", "revocation_endpoint",
                 "registration_endpoint", "scopes_supported", "response_types_supported",
                 "token_endpoint_auth_methods_supported", "pushed_authorization_request_endpoint"):  # fmt: skip
        assert described[name], name
    assert "plain" not in described["code_challenge_methods_supported"]
    for endpoint in ("token", "introspection", "revocation"):
        assert described[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert "none" not in described["introspection_endpoint_auth_methods_supported"]
    assert described["authorization_response_iss_parameter_supported"] is True


def _https(value: Any) -> Any:
    return value.replace("http://", "https://") if isinstance(value, str) else value


async def test_every_endpoint_named_is_served_and_every_one_served_is_named(smart: Smart):
    openid, described = await documents(smart)
    named = {key: value for key, value in openid.items() if key.endswith("_endpoint") or key == "jwks_uri"}
    assert set(named) == {endpoint.metadata for endpoint in ENDPOINTS if endpoint.metadata}
    assert {key: value for key, value in described.items() if key in named}.items() <= named.items()
    async with smart.http() as http:
        for name, url in named.items():
            assert url.startswith(f"{ORIGIN}/auth/")
            assert (await http.get(url)).status_code != 404, name
            assert (await http.post(url)).status_code != 404, name


async def test_every_grant_that_is_served_is_named_and_others_are_refused(smart: Smart):
    _, described = await documents(smart)
    assert set(described["grant_types_supported"]) == {grant.GRANT_TYPE for grant, _ in GRANTS}
    async with smart.http() as http:
        for grant_type in described["grant_types_supported"]:
            answer = await http.post("/auth/token", data={"grant_type": grant_type})
            assert answer.json()["error"] != "unsupported_grant_type"
        answer = await http.post("/auth/token", data={"grant_type": "urn:ietf:params:oauth:grant-type:device_code"})
        assert answer.json()["error"] == "unsupported_grant_type"


async def test_encounters_are_claimed_when_they_can_be_picked(smart: Smart):
    _, described = await documents(smart)
    can = (
        any(endpoint.path == "/encounter" for endpoint in ENDPOINTS)
        and "launch/encounter" in described["scopes_supported"]
    )
    assert ("context-standalone-encounter" in described["capabilities"]) is can


async def test_a_closed_registration_is_not_named(smart: Smart):
    service = IdentityService(smart.settings.model_copy(update={"client_registration": False}), smart.database_url)
    app = Starlette(routes=[Route("/openid", service.openid_configuration)])
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as http:
            assert "registration_endpoint" not in (await http.get("/openid")).json()
    finally:
        await service.stop()
