"""Backend services, refresh, revocation, introspection and discovery, as clients see them."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PRIVATE_KEY, Client, save_client
from foramen.identity.oauth.revocation_list import watch
from foramen.kernel.errors import NotAuthenticatedError
from foramen.kernel.fhir_client import BackendServiceAuth
from foramen.kernel.secret_files import read_or_create_key
from tests.contract.smart.conftest import CLIENT_SECRET, ORIGIN, App, Smart, sign_in

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def post(smart: Smart, path: str = "/auth/token", **options) -> httpx.Response:
    async with smart.http() as http:
        return await http.post(path, **options)


async def by_assertion(smart: Smart, assertion: str, scope: str = "system/Patient.rs", **more: str) -> httpx.Response:
    data = {
        "grant_type": "client_credentials",
        "scope": scope,
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
        **more,
    }
    return await post(smart, data={key: value for key, value in data.items() if value})


async def signed_in(smart: Smart, app: App) -> dict:
    browser = smart.browser()
    await sign_in(browser, app)
    return (await app.exchange(browser.answer["code"])).json()


def unsigned(**claims) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."


@pytest.mark.requirement("hl7.fhir.uv.smart-app-launch_2.2.0#backend-services")
@pytest.mark.parametrize("client_id", ["foramen-intake", "foramen-worker"])
async def test_our_own_services_get_tokens_with_their_key_files(smart: Smart, client_id: str):
    key = read_or_create_key(smart.settings.home, client_id, "P-384")
    endpoint = f"{ORIGIN}/auth/token"
    auth = BackendServiceAuth(client_id, key, "system/Task.rus system/Patient.cruds", endpoint, endpoint)
    async with smart.http() as http:
        response = await http.send(auth._token_request())
    body = response.json()
    assert response.status_code == 200, body
    assert response.headers["cache-control"] == "no-store"
    context = smart.service.verifier().verify(body["access_token"])
    assert (context.subject, context.client_id, context.fhir_user) == (client_id, client_id, None)
    assert "system/Patient.rs" in body["scope"]
    assert "cruds" not in body["scope"]
    assert "refresh_token" not in body


async def test_rsa_keys_work_too(smart: Smart):
    key = RSAKey.generate_key(2048, parameters={"kid": "r1"}, private=True)
    with transaction(smart.database_url) as connection:
        jwks = {"keys": [key.as_dict(private=False)]}
        save_client(connection, Client("rsa", PRIVATE_KEY, "system/Patient.rs", jwks=jwks))
    assert (await by_assertion(smart, smart.assertion("rsa", key=key, alg="RS384"))).status_code == 200
    weaker = await by_assertion(smart, smart.assertion("rsa", key=key, alg="RS256"))
    assert weaker.json()["error"] == "invalid_client"


async def test_assertion_is_good_once(smart: Smart):
    assertion = smart.assertion()
    assert (await by_assertion(smart, assertion)).status_code == 200
    again = await by_assertion(smart, assertion)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_client")


async def test_assertion_sent_twice_at_once_is_good_once(smart: Smart):
    assertion = smart.assertion()
    answers = await asyncio.gather(*(by_assertion(smart, assertion) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) + 86_400},  # the list is made long before the tests run
        {"exp": int(time.time()) - 60},
        {"exp": "tomorrow"},
        {"exp": None},
        {"aud": "https://evil.example/token"},
        {"aud": f"{ORIGIN}/auth"},
        {"aud": [f"{ORIGIN}/auth/token", "https://evil.example"]},
        {"iss": "symmetric"},
        {"jti": None},
        {"jti": ""},
        {"jti": {"a": 1}},
        {"nbf": int(time.time()) + 86_400},
        {"sub": "nobody", "iss": "nobody"},
        {"sub": 7, "iss": 7},
        {"sub": "symmetric", "iss": "symmetric"},
    ],
)
async def test_assertion_with_a_faulty_claim_is_refused(smart: Smart, claims):
    answer = await by_assertion(smart, smart.assertion(**claims))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client"), answer.text


async def test_assertion_by_a_wrong_key_or_algorithm_is_refused(smart: Smart):
    now = int(time.time())
    claims = {
        "iss": "asymmetric",
        "sub": "asymmetric",
        "aud": f"{ORIGIN}/auth/token",
        "exp": now + 200,
        "jti": "j-none",
    }
    stranger = ECKey.generate_key("P-384", parameters={"kid": "asym-1"}, private=True)
    unknown_kid = ECKey.generate_key("P-384", parameters={"kid": "other"}, private=True)
    public = json.dumps(smart.client_key.as_dict(private=False))
    shared = OctKey.import_key(public)
    confused = jwt.encode({"alg": "HS256", "kid": "asym-1"}, claims, shared, algorithms=["HS256"])
    header = {"alg": "ES384", "kid": "own", "jku": "https://evil.example/keys", "jwk": stranger.as_dict(private=False)}
    own_key = jwt.encode(header, claims, stranger, algorithms=["ES384"])
    for assertion in (
        smart.assertion(key=stranger),
        smart.assertion(key=unknown_kid),
        confused,
        own_key,
        unsigned(**claims),
        "not.a.jwt",
        "x" * 9000,
        "ü",
        smart.assertion()[:-10],
    ):
        answer = await by_assertion(smart, assertion)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client"), answer.text


async def test_client_id_beside_an_assertion_must_be_the_same(smart: Smart):
    answer = await by_assertion(smart, smart.assertion(), client_id="foramen-worker")
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize("scope", ["", "system/Observation.rs", "user/*.rs", "nonsense", "patient/*.rs"])
async def test_service_gets_registered_system_scopes_or_nothing(smart: Smart, scope: str):
    answer = await by_assertion(smart, smart.assertion(), scope)
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_scope", "invalid_request")


async def test_secret_client_as_a_service(smart: Smart):
    data = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}
    assert (await post(smart, data=data, auth=("symmetric", CLIENT_SECRET))).json()["scope"] == "system/Patient.rs"
    assert (await post(smart, data=data, auth=("symmetric", "wrong"))).status_code == 401
    assert (await post(smart, data={**data, "client_id": "portal"})).json()["error"] == "invalid_client"
    garbled = {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode()}
    assert (await post(smart, data=data, headers=garbled)).status_code == 401
    both = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": smart.assertion()}
    refused = await post(smart, data={**data, **both}, auth=("symmetric", CLIENT_SECRET))
    assert refused.json()["error"] == "invalid_request"
    assert "secret" not in str(smart.execute("SELECT secret_hash FROM identity.client WHERE client_id = 'symmetric'"))


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"data": {"grant_type": "password", "username": "surgeon"}}, 400, "unsupported_grant_type"),
        ({"data": {"grant_type": 'x"'}}, 400, "unsupported_grant_type"),
        ({"data": {}}, 415, "invalid_request"),
        ({"json": {"grant_type": "client_credentials"}}, 415, "invalid_request"),
        (
            {"content": b"grant_type=a&grant_type=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            400,
            "invalid_request",
        ),
        (
            {"content": b"grant_type=%ff%fe", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            400,
            "invalid_request",
        ),
        (
            {"content": b"a=" + b"x" * 70000, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            413,
            "invalid_request",
        ),
    ],
)
async def test_bad_token_requests_get_oauth_errors(smart: Smart, options, status, error):
    answer = await post(smart, **options)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert "Traceback" not in answer.text


async def test_refresh_rotates_and_keeps_the_launch_context(smart: Smart, growth: App):
    browser = smart.browser()
    await sign_in(browser, growth, prompt="consent")
    await browser.submit(1, patient="p2")
    await browser.submit(decision="allow")
    first = (await growth.exchange(browser.answer["code"])).json()
    second = (await growth.refresh(first["refresh_token"])).json()
    assert second["patient"] == "p2"
    assert second["scope"] == first["scope"]
    assert second["refresh_token"] != first["refresh_token"]
    assert smart.service.verifier().verify(second["access_token"]).patient == "p2"
    assert "id_token" in second


async def test_public_client_need_not_name_itself_but_a_confidential_one_must_authenticate(smart: Smart, portal: App):
    """The JavaScript `fhirclient` sends no client_id when it refreshes."""
    first = await signed_in(smart, portal)
    data = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = (await post(smart, data=data)).json()
    assert second["scope"] == first["scope"]
    assert (await post(smart, data=data)).json()["error"] == "invalid_grant"
    assert (await portal.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    smart.execute(
        "UPDATE identity.token_family SET client_id = 'symmetric', revoked_at = NULL WHERE client_id = 'portal'"
    )
    data["refresh_token"] = second["refresh_token"]
    assert (await post(smart, data=data)).json()["error"] == "invalid_client"
    unknown = await post(smart, data={"grant_type": "refresh_token", "refresh_token": "unknown"})
    assert unknown.json()["error"] == "invalid_client"


async def test_reuse_of_a_rotated_refresh_token_revokes_the_family(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    second = (await portal.refresh(first["refresh_token"])).json()
    assert (await portal.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await portal.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"


async def test_concurrent_refresh_gives_one_answer(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    answers = await asyncio.gather(*(portal.refresh(first["refresh_token"]) for _ in range(3)))
    assert [answer.status_code for answer in answers].count(200) == 1


async def test_refresh_narrows_but_never_widens(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    wider = await portal.refresh(first["refresh_token"], scope="openid user/*.cruds")
    assert wider.json()["error"] == "invalid_scope"
    narrow = (await portal.refresh(first["refresh_token"], scope="openid user/Patient.rs")).json()
    assert narrow["scope"] == "openid user/Patient.rs"


async def test_refresh_token_of_another_client_is_refused(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    assert (await portal.refresh(first["refresh_token"], client_id="result-review")).json()["error"] == "invalid_grant"
    assert (await portal.refresh(first["refresh_token"])).status_code == 200


async def test_offline_access_outlives_the_session_online_access_does_not(smart: Smart, portal: App, growth: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    online = (await portal.exchange(browser.answer["code"])).json()
    await browser.open(growth.url(prompt="consent"))
    await browser.submit(1, patient="p1")
    await browser.submit(decision="allow")
    offline = (await growth.exchange(browser.answer["code"])).json()
    await browser.open("/auth/logout")
    await browser.submit()
    assert (await portal.refresh(online["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await growth.refresh(offline["refresh_token"])).status_code == 200


async def test_a_code_is_worth_nothing_once_its_session_has_ended(smart: Smart, portal: App, growth: App):
    """Signing out revokes what it finds; a code issued in the same moment is one it did not find."""
    browser = smart.browser()
    await sign_in(browser, portal)
    code = browser.answer["code"]
    await browser.open(growth.url(prompt="consent"))
    await browser.submit(1, patient="p1")
    await browser.submit(decision="allow")
    offline = browser.answer["code"]
    smart.execute("DELETE FROM identity.session")
    refused = await portal.exchange(code)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert (await growth.exchange(offline)).status_code == 200, "offline access does not live with the session"


async def test_withdrawn_role_takes_effect_at_the_next_refresh(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    smart.execute("UPDATE identity.account SET role = 'researcher' WHERE name = 'surgeon'")
    try:
        body = (await portal.refresh(first["refresh_token"])).json()
    finally:
        smart.execute("UPDATE identity.account SET role = 'physician' WHERE name = 'surgeon'")
    assert "user/" not in body["scope"]


async def test_a_password_alone_is_not_refreshed_when_the_role_comes_to_need_a_second_factor(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    smart.execute("UPDATE identity.account SET role = 'system-administrator' WHERE name = 'surgeon'")
    try:
        answer = await portal.refresh(first["refresh_token"])
    finally:
        smart.execute("UPDATE identity.account SET role = 'physician' WHERE name = 'surgeon'")
    assert answer.json()["error"] == "invalid_grant"


async def test_offline_access_by_password_ends_when_the_role_comes_to_need_a_second_factor(
    smart: Smart, portal: App, growth: App
):
    browser = smart.browser()
    await sign_in(browser, portal)
    await browser.open(growth.url(prompt="consent"))
    await browser.submit(1, patient="p1")
    await browser.submit(decision="allow")
    first = (await growth.exchange(browser.answer["code"])).json()
    smart.execute("UPDATE identity.account SET role = 'system-administrator' WHERE name = 'surgeon'")
    try:
        answer = await growth.refresh(first["refresh_token"])
    finally:
        smart.execute("UPDATE identity.account SET role = 'physician' WHERE name = 'surgeon'")
    assert answer.json()["error"] == "invalid_grant"


async def test_a_token_issued_while_its_family_was_revoked_is_refused_too(smart: Smart, portal: App):
    tokens = await signed_in(smart, portal)
    verifier = smart.service.verifier()
    verifier.verify(tokens["access_token"])
    # The transaction that issued it was not committed yet when the family was revoked: the token bears no mark.
    smart.execute(
        "UPDATE identity.token_family SET revoked_at = now() WHERE client_id = 'portal' AND revoked_at IS NULL"
    )
    watcher = asyncio.create_task(watch(verifier, smart.service._database, 3600, pause_s=0.1))
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                verifier.verify(tokens["access_token"])
            except NotAuthenticatedError:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the token still works")
    finally:
        watcher.cancel()


@pytest.mark.requirement("rfc7009")
async def test_revoked_tokens_stop_and_the_verifier_learns_it_within_seconds(smart: Smart, portal: App):
    tokens = await signed_in(smart, portal)
    verifier = smart.service.verifier()
    watcher = asyncio.create_task(watch(verifier, smart.service._database, 3600, pause_s=0.1))
    try:
        verifier.verify(tokens["access_token"])
        stranger = await post(smart, "/auth/revoke", data={"token": tokens["access_token"], "client_id": "care-plan"})
        assert stranger.status_code == 400
        answer = await post(smart, "/auth/revoke", data={"token": tokens["access_token"], "client_id": "portal"})
        assert answer.status_code == 200
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                verifier.verify(tokens["access_token"])
            except NotAuthenticatedError:
                break
            await asyncio.sleep(0.05)
        with pytest.raises(NotAuthenticatedError):
            verifier.verify(tokens["access_token"])
    finally:
        watcher.cancel()
    assert (await portal.refresh(tokens["refresh_token"])).status_code == 200
    unknown = await post(smart, "/auth/revoke", data={"token": "unknown", "client_id": "portal"})
    assert unknown.status_code == 200


async def test_revoked_refresh_token_takes_the_family_with_it(smart: Smart, portal: App):
    tokens = await signed_in(smart, portal)
    await post(smart, "/auth/revoke", data={"token": tokens["refresh_token"], "client_id": "portal"})
    assert (await portal.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


@pytest.mark.requirement("rfc7662")
async def test_introspection_for_authenticated_clients_only(smart: Smart, portal: App):
    tokens = await signed_in(smart, portal)
    auth = ("symmetric", CLIENT_SECRET)
    assert (await post(smart, "/auth/introspect", data={"token": tokens["access_token"]})).status_code == 401
    public = await post(smart, "/auth/introspect", data={"token": tokens["access_token"], "client_id": "portal"})
    assert public.status_code == 401
    body = (await post(smart, "/auth/introspect", data={"token": tokens["access_token"]}, auth=auth)).json()
    assert body["active"] is True
    assert body["client_id"] == "portal"
    assert body["scope"] == tokens["scope"]
    assert body["fhirUser"] == f"{ORIGIN}/fhir/Practitioner/dr1"
    refresh = (await post(smart, "/auth/introspect", data={"token": tokens["refresh_token"]}, auth=auth)).json()
    assert refresh["active"] is True
    await post(smart, "/auth/revoke", data={"token": tokens["refresh_token"], "client_id": "portal"})
    for token in (tokens["access_token"], tokens["refresh_token"], "x", unsigned(jti="1")):
        answer = await post(smart, "/auth/introspect", data={"token": token}, auth=auth)
        assert answer.json() == {"active": False}
    other = {"token": (await signed_in(smart, portal))["access_token"]}
    data = {**other, "client_assertion_type": ASSERTION_TYPE, "client_assertion": smart.assertion()}
    assert (await post(smart, "/auth/introspect", data=data)).json() == {"active": False}


@pytest.mark.requirement("hl7.fhir.uv.smart-app-launch_2.2.0#conformance")
async def test_discovery_names_endpoints_that_exist(smart: Smart):
    async with smart.http() as http:
        openid = (await http.get("/.well-known/openid-configuration")).json()
        described = (await http.get("/fhir/.well-known/smart-configuration")).json()
        for document in (openid, described):
            assert document["issuer"] == ORIGIN
            assert document["code_challenge_methods_supported"] == ["S256"]
            for name, url in document.items():
                if name.endswith("_endpoint") or name == "jwks_uri":
                    answer = await http.get(url)
                    assert answer.status_code != 404, name
    required = {"launch-ehr", "client-public", "client-confidential-asymmetric", "permission-v2", "sso-openid-connect"}
    assert required <= set(described["capabilities"])


@pytest.mark.parametrize(
    "path", ["/auth/token", "/auth/jwks", "/auth/userinfo", "/fhir/.well-known/smart-configuration"]
)
async def test_browsers_may_call_what_smart_wants_across_origins(smart: Smart, path: str):
    async with smart.http() as http:
        preflight = await http.options(path, headers={"Origin": "https://app.example.org"})
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        answer = await http.request(
            "POST" if path.endswith("token") else "GET", path, headers={"Origin": "https://a.example"}
        )
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


async def test_pages_and_launch_are_not_open_to_other_origins(smart: Smart, portal: App):
    async with smart.http() as http:
        for path in ("/auth/authorize", "/auth/login", "/auth/launch"):
            answer = await http.options(path, headers={"Origin": "https://a.example"})
            assert "access-control-allow-origin" not in answer.headers
