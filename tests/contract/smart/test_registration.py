"""Dynamic registration (RFC 7591, RFC 7592): nothing comes of it before an administrator approves."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import text

from foramen.identity.app import IdentityService
from foramen.identity.database import transaction
from foramen.identity.housekeeping import delete_expired
from foramen.identity.oauth.client_approval import approve_client, disable_client, find_described, reject_client
from foramen.identity.oauth.clients import Client, find_client
from foramen.kernel.errors import ConflictError, NotFoundError
from tests.contract.smart.conftest import ORIGIN, App, Smart, sign_in

CALLBACK = "https://rehab.example.org/callback"
METADATA: dict[str, Any] = {
    "client_name": "SYNTHETIC rehab app",
    "redirect_uris": [CALLBACK],
    "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"],
    "scope": "openid fhirUser offline_access user/Observation.rs",
}


@pytest.fixture(autouse=True)
def fresh(smart: Smart):
    smart.execute("DELETE FROM identity.client WHERE registration_digest IS NOT NULL")
    smart.execute("DELETE FROM identity.failure_budget")


async def register(smart: Smart, **changes: Any) -> httpx.Response:
    content = {key: value for key, value in {**METADATA, **changes}.items() if value is not None}
    async with smart.http() as http:
        return await http.post("/auth/register", json=content)


async def manage(smart: Smart, registered: dict[str, Any], method: str = "GET", **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {registered['registration_access_token']}", **options.pop("headers", {})}
    async with smart.http() as http:
        return await http.request(method, registered["registration_client_uri"], headers=headers, **options)


def decide(smart: Smart, act: Any, client_id: str, **options: Any) -> None:
    with transaction(smart.database_url) as connection:
        act(connection, client_id, **options)


def events(smart: Smart, what: str) -> list[dict[str, Any]]:
    return [row[0] for row in smart.execute(
        "SELECT event FROM identity.audit_outbox WHERE event->'subtype'->0->>'code' = :what ORDER BY id", what=what
    )]  # fmt: skip


async def tokens_of(smart: Smart, client_id: str) -> tuple[App, dict[str, Any]]:
    app = App(smart, client_id, CALLBACK, METADATA["scope"])
    browser = smart.browser()
    await sign_in(browser, app)
    await browser.submit(decision="allow")
    answer = await app.exchange(browser.answer["code"])
    assert answer.status_code == 200, answer.text
    return app, answer.json()


@pytest.mark.requirement("rfc7591")
async def test_a_registration_waits_until_an_administrator_approves_it(smart: Smart):
    answer = await register(smart)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["registration_status"] == "pending"
    assert body["redirect_uris"] == [CALLBACK]
    assert body["response_types"] == ["code"]
    assert "client_secret" not in body
    app = App(smart, body["client_id"], CALLBACK, METADATA["scope"])
    browser = smart.browser()
    page = await browser.open(app.url())
    assert (page.status_code, browser.redirected_to) == (403, None)
    assert "管理员" in page.text
    refused = await app.exchange("guess")
    assert (refused.status_code, refused.json()["error"]) == (400, "unauthorized_client")
    decide(smart, approve_client, body["client_id"])
    _, tokens = await tokens_of(smart, body["client_id"])
    assert tokens["scope"] == METADATA["scope"]
    assert "refresh_token" in tokens
    id_token = jwt.decode(tokens["id_token"], smart.service._signer.key_set(), algorithms=["RS256"])
    assert id_token.claims["sub"] == "surgeon", "RS256 is what clients expect that asked for nothing else"
    assert events(smart, "client-registration")
    assert events(smart, "client-approval")[-1]["outcomeDesc"] == "approved"


async def test_an_administrator_may_approve_less_than_was_asked(smart: Smart):
    body = (await register(smart)).json()
    decide(smart, approve_client, body["client_id"], scope="openid user/Observation.rs")
    _, tokens = await tokens_of(smart, body["client_id"])
    assert tokens["scope"] == "openid user/Observation.rs"
    assert (await manage(smart, body)).json()["scope"] == "openid user/Observation.rs"


async def test_rejected_and_disabled_clients_act_no_more_and_lose_their_tokens(smart: Smart):
    for act in (reject_client, disable_client):
        body = (await register(smart)).json()
        decide(smart, approve_client, body["client_id"])
        app, tokens = await tokens_of(smart, body["client_id"])
        decide(smart, act, body["client_id"])
        assert (await app.refresh(tokens["refresh_token"])).json()["error"] in ("invalid_client", "invalid_grant")
        jti = smart.service.verifier().verify(tokens["access_token"]).token_id
        revoked = smart.execute("SELECT revoked_at IS NOT NULL FROM identity.access_token WHERE jti = :jti", jti=jti)
        assert revoked == [(True,)]
        page = await smart.browser().open(app.url())
        assert page.status_code == 400
    with pytest.raises(NotFoundError):
        decide(smart, approve_client, "nobody")


async def test_grant_types_bind(smart: Smart):
    body = (await register(smart, grant_types=None)).json()
    assert body["grant_types"] == ["authorization_code"]
    decide(smart, approve_client, body["client_id"])
    _, tokens = await tokens_of(smart, body["client_id"])
    assert "refresh_token" not in tokens


async def test_a_service_registers_with_its_key_or_a_secret(smart: Smart):
    key = ECKey.generate_key("P-384", parameters={"kid": "s1"}, private=True)
    service = {"redirect_uris": None, "grant_types": ["client_credentials"], "scope": "system/Patient.rs"}
    jwks = {"keys": [key.as_dict(private=False)]}
    body = (await register(smart, **service, token_endpoint_auth_method="private_key_jwt", jwks=jwks)).json()
    decide(smart, approve_client, body["client_id"])
    data = {
        "grant_type": "client_credentials",
        "scope": "system/Patient.rs",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": smart.assertion(body["client_id"], key=key),
    }
    async with smart.http() as http:
        assert (await http.post("/auth/token", data=data)).status_code == 200
    body = (await register(smart, **service, token_endpoint_auth_method=None)).json()
    assert (body["token_endpoint_auth_method"], body["client_secret_expires_at"]) == ("client_secret_basic", 0)
    decide(smart, approve_client, body["client_id"])
    plain = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}
    async with smart.http() as http:
        good = await http.post("/auth/token", data=plain, auth=(body["client_id"], body["client_secret"]))
        bad = await http.post("/auth/token", data=plain, auth=(body["client_id"], body["client_secret"][::-1]))
    assert (good.status_code, bad.status_code) == (200, 401)
    stored = smart.execute(
        "SELECT to_jsonb(c)::text FROM identity.client c WHERE client_id = :id", id=body["client_id"]
    )
    assert body["client_secret"] not in stored[0][0]
    assert body["registration_access_token"] not in stored[0][0]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uris": ["http://rehab.example.org/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://*.example.org/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://rehab.example.org/cb#x"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://rehab.example.org/cb#"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://rehab.example.org@evil.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https:///cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a.example:port/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://аpple.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://a.example/"}, "invalid_client_metadata"),
        ({"redirect_uris": [f"https://a.example/{n}" for n in range(11)]}, "invalid_client_metadata"),
        ({"redirect_uris": [CALLBACK, CALLBACK]}, "invalid_client_metadata"),
        ({"redirect_uris": [7]}, "invalid_client_metadata"),
        ({"redirect_uris": ["https://a.example/" + "x" * 600]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "client_secret_post"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": ["none"]}, "invalid_client_metadata"),
        ({"grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"], "redirect_uris": None, "scope": "system/*.rs"},
         "invalid_client_metadata"),
        ({"grant_types": ["refresh_token"], "redirect_uris": None}, "invalid_client_metadata"),
        ({"grant_types": []}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"response_types": ["code", "token"]}, "invalid_client_metadata"),
        ({"scope": "user/*.all"}, "invalid_client_metadata"),
        ({"scope": "foramen/admin"}, "invalid_client_metadata"),
        ({"scope": "system/*.rs"}, "invalid_client_metadata"),
        ({"scope": ["openid"]}, "invalid_client_metadata"),
        ({"scope": {"$ne": 1}}, "invalid_client_metadata"),
        ({"client_name": "a‮b"}, "invalid_client_metadata"),
        ({"client_name": "a\nb"}, "invalid_client_metadata"),
        ({"client_name": "x" * 101}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
        ({"logo_uri": "http://a.example/logo.png"}, "invalid_client_metadata"),
        ({"logo_uri": "data:image/svg+xml,x"}, "invalid_client_metadata"),
        ({"tos_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"contacts": "me"}, "invalid_client_metadata"),
        ({"contacts": [{}]}, "invalid_client_metadata"),
        ({"jwks": {"keys": []}}, "invalid_client_metadata"),
        ({"jwks": "x", "token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"jwks": {"keys": ["x"]}, "token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"jwks_uri": "http://a.example/keys", "token_endpoint_auth_method": "private_key_jwt"},
         "invalid_client_metadata"),
        ({"require_pushed_authorization_requests": "yes"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "none"}, "invalid_client_metadata"),
        ({"software_statement": "eyJ"}, "invalid_software_statement"),
    ],
)  # fmt: skip
async def test_faulty_metadata_is_refused_and_leaves_no_trace(smart: Smart, changes: dict[str, Any], error: str):
    answer = await register(smart, **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text
    assert smart.execute("SELECT count(*) FROM identity.client WHERE registration_digest IS NOT NULL") == [(0,)]


async def test_private_weak_and_symmetric_keys_are_refused(smart: Smart):
    private = ECKey.generate_key("P-384", private=True).as_dict(private=True)
    weak = RSAKey.generate_key(1024, private=True).as_dict(private=False)
    curve = ECKey.generate_key("P-256", private=True).as_dict(private=False)
    symmetric = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
    both = {"jwks_uri": "https://a.example/keys", "jwks": {"keys": [curve]}}
    for keys in (private, weak, curve, symmetric):
        changes = {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [keys]}}
        assert (await register(smart, **changes)).json()["error"] == "invalid_client_metadata"
    assert (await register(smart, token_endpoint_auth_method="private_key_jwt", **both)).status_code == 400


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"client_name=x", "application/x-www-form-urlencoded", 415),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"scope": "openid", "scope": "user/*.rs"}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 30000, "application/json", 400),
        (b'{"client_name": "' + b"x" * 40000 + b'"}', "application/json", 413),
    ],
)
async def test_what_is_no_metadata_document_is_refused(smart: Smart, content: bytes, kind: str, status: int):
    async with smart.http() as http:
        answer = await http.post("/auth/register", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert "Traceback" not in answer.text


async def test_floods_of_registrations_are_held_back_also_at_once(smart: Smart):
    limit = smart.settings.client_registrations_per_hour
    smart.execute(
        "INSERT INTO identity.client (client_id, auth_method, scope, name_zh, name_en, registration_digest, "
        "registered_from, status) SELECT 'flood-' || n, 'none', 'openid', '', '', 'x', '127.0.0.1', 'withdrawn' "
        "FROM generate_series(1, :n) n",
        n=limit - 1,
    )
    answers = await asyncio.gather(*(register(smart) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 429, 429, 429]
    assert next(answer for answer in answers if answer.status_code == 429).headers["retry-after"]


async def test_too_many_waiting_registrations_hold_back_everybody(smart: Smart):
    smart.execute(
        "INSERT INTO identity.client (client_id, auth_method, scope, name_zh, name_en, registration_digest, "
        "registered_from, status) SELECT 'wait-' || n, 'none', 'openid', '', '', 'x', '10.0.0.' || n % 200, 'pending' "
        "FROM generate_series(1, :n) n",
        n=smart.settings.client_registrations_pending,
    )
    assert (await register(smart)).status_code == 429


async def register_from(smart: Smart, address: str, **changes: Any) -> httpx.Response:
    content = {key: value for key, value in {**METADATA, **changes}.items() if value is not None}
    transport = httpx.ASGITransport(smart.app, client=(address, 40000))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        return await http.post("/auth/register", json=content)


def flood(smart: Smart, network: str, status: str, number: int) -> None:
    """Registrations made some hours ago (pending) or just now (withdrawn)."""
    smart.execute(
        "INSERT INTO identity.client (client_id, auth_method, scope, name_zh, name_en, registration_digest, "
        "registered_from, status, created_at) SELECT 'seen-' || :f || n, 'none', 'openid', '', '', 'x', :f, :s,"
        " now() - CASE WHEN :s = 'pending' THEN interval '2 hours' ELSE interval '0' END"
        " FROM generate_series(1, :n) n",
        f=network,
        s=status,
        n=number,
    )


async def test_all_addresses_of_a_network_of_64_bits_are_one(smart: Smart):
    flood(smart, "2001:db8:1:2::/64", "withdrawn", smart.settings.client_registrations_per_hour - 1)
    answers = [await register_from(smart, f"2001:db8:1:2::{n:x}") for n in range(3)]
    assert [answer.status_code for answer in answers] == [201, 429, 429]
    assert (await register_from(smart, "2001:db8:1:3::1")).status_code == 201
    flood(smart, "198.51.100.1", "withdrawn", smart.settings.client_registrations_per_hour)
    assert (await register_from(smart, "::ffff:198.51.100.1")).status_code == 429
    assert (await register_from(smart, "198.51.100.2")).status_code == 201


async def test_one_network_cannot_fill_what_may_wait(smart: Smart):
    flood(smart, "192.0.2.7", "pending", smart.settings.client_registrations_pending_per_address)
    assert smart.settings.client_registrations_pending_per_address < smart.settings.client_registrations_pending
    answer = await register_from(smart, "192.0.2.7")
    assert answer.status_code == 429
    assert "wait for approval" in answer.json()["error_description"]
    assert (await register_from(smart, "192.0.2.8")).status_code == 201


async def test_changes_are_counted_also_those_that_are_refused(smart: Smart):
    smart.execute("DELETE FROM identity.failure_budget")
    body = (await register(smart)).json()
    same = {**METADATA, "client_id": body["client_id"]}
    wrong = {**body, "registration_access_token": "wrong"}
    limit = smart.settings.client_registrations_per_hour
    statuses = [(await manage(smart, wrong if n % 2 else body, "PUT", json=same)).status_code for n in range(limit)]
    assert set(statuses) == {200, 401}
    refused = await manage(smart, body, "PUT", json=same)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    assert (await manage(smart, body, "DELETE")).status_code == 429
    assert (await manage(smart, body)).status_code == 200, "reading costs nothing"
    smart.execute("DELETE FROM identity.failure_budget")
    assert (await manage(smart, body, "DELETE")).status_code == 204


async def test_an_approval_waits_for_a_change_under_way_and_can_be_bound_to_what_was_shown(smart: Smart):
    """The row is locked from reading to deciding; a digest of what was shown refuses what came instead."""
    body = (await register(smart)).json()
    with transaction(smart.database_url) as connection:
        seen = find_described(connection, body["client_id"])
    assert seen["redirect_uris"] == [CALLBACK]
    smart.execute(
        "UPDATE identity.client SET redirect_uris = '[\"https://evil.example/cb\"]' WHERE client_id = :id",
        id=body["client_id"],
    )
    with pytest.raises(ConflictError):
        decide(smart, approve_client, body["client_id"], seen=seen["digest"])
    assert smart.execute("SELECT status FROM identity.client WHERE client_id = :id", id=body["client_id"]) == [
        ("pending",)
    ]
    loop = asyncio.get_running_loop()
    with transaction(smart.database_url) as changing:
        changing.execute(
            text("UPDATE identity.client SET launch_url = 'https://late.example/' WHERE client_id = :id"),
            {"id": body["client_id"]},
        )
        waiting = loop.run_in_executor(None, _approved, smart, body["client_id"])
        await asyncio.sleep(0.3)
        assert not waiting.done()
    assert (await waiting).launch_url == "https://late.example/", "what is approved is what is registered"


def _approved(smart: Smart, client_id: str) -> Client:
    with transaction(smart.database_url) as connection:
        return approve_client(connection, client_id)


@pytest.mark.requirement("rfc7592")
async def test_the_client_reads_changes_and_withdraws_its_registration(smart: Smart):
    body = (await register(smart)).json()
    decide(smart, approve_client, body["client_id"])
    app, tokens = await tokens_of(smart, body["client_id"])
    read = (await manage(smart, body)).json()
    assert (read["registration_status"], read["redirect_uris"]) == ("approved", [CALLBACK])
    same = {**METADATA, "client_id": body["client_id"]}
    assert (await manage(smart, body, "PUT", json=same)).json()["registration_status"] == "approved"
    changed = {**same, "redirect_uris": ["https://evil.example/cb"]}
    answer = await manage(smart, body, "PUT", json=changed)
    assert answer.json()["registration_status"] == "pending", "what was not approved must not act"
    again = await manage(smart, body, "PUT", json={**same, "redirect_uris": ["https://evil.example/other"]})
    assert again.json()["error"] == "unauthorized_client", "an approval is for what the administrator saw"
    assert (await manage(smart, body)).json()["redirect_uris"] == ["https://evil.example/cb"]
    with transaction(smart.database_url) as connection:
        assert find_client(connection, body["client_id"]) is None
    assert (await app.refresh(tokens["refresh_token"])).status_code == 400
    assert (await manage(smart, body, "DELETE")).status_code == 204
    assert (await manage(smart, body)).status_code == 401
    assert [event["outcomeDesc"] for event in events(smart, "client-registration")][-3:] == [
        "registered",
        "changed",
        "withdrawn",
    ]


async def test_a_registration_is_managed_with_its_own_token_only(smart: Smart):
    one, two = (await register(smart)).json(), (await register(smart)).json()
    async with smart.http() as http:
        url = one["registration_client_uri"]
        other = {"Authorization": f"Bearer {two['registration_access_token']}"}
        for method in ("GET", "PUT", "DELETE"):
            answer = await http.request(method, url, headers=other, json={**METADATA, "client_id": one["client_id"]})
            assert answer.status_code == 401
        assert (await http.get(url)).status_code == 401
        unknown = await http.get(f"{ORIGIN}/auth/register/nobody", headers=other)
        wrong = await http.get(url, headers=other)
        assert (unknown.status_code, unknown.json()) == (wrong.status_code, wrong.json())
        first_party = await http.get(f"{ORIGIN}/auth/register/portal", headers=other)
        assert first_party.status_code == 401
    for changes in ({"client_id": two["client_id"]}, {"client_secret": 7}, {"client_id_issued_at": 1}, {}):
        content = {**METADATA, **({"client_id": one["client_id"]} if changes else {}), **changes}
        assert (await manage(smart, one, "PUT", json=content)).status_code == 400
    decide(smart, reject_client, one["client_id"])
    content = {**METADATA, "client_id": one["client_id"], "client_name": "again"}
    assert (await manage(smart, one, "PUT", json=content)).status_code == 403
    assert (await manage(smart, one)).json()["registration_status"] == "rejected"


async def test_the_administrator_can_close_registration(smart: Smart):
    settings = smart.settings.model_copy(update={"client_registration": False})
    service = IdentityService(settings, smart.database_url)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url=ORIGIN) as http:
            assert (await http.post("/register", json=METADATA)).status_code == 404
    finally:
        await service.stop()


async def test_registrations_that_led_nowhere_are_deleted_after_a_month(smart: Smart):
    old, changed = (await register(smart)).json(), (await register(smart)).json()
    decide(smart, approve_client, changed["client_id"])
    smart.execute("UPDATE identity.client SET created_at = now() - interval '40 days' WHERE registration_digest <> ''")
    smart.execute("UPDATE identity.client SET status = 'pending' WHERE client_id = :id", id=changed["client_id"])
    with transaction(smart.database_url) as connection:
        delete_expired(connection)
    left = {row[0] for row in smart.execute("SELECT client_id FROM identity.client")}
    assert old["client_id"] not in left
    assert changed["client_id"] in left
    assert "portal" in left
