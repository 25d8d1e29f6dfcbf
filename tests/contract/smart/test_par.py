"""Pushed authorization requests (RFC 9126): authenticated, checked at once; good once, a minute, for their client."""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PRIVATE_KEY, Client, save_client
from tests.contract.smart.conftest import APP, CLIENT_SECRET, ORIGIN, PASSWORD, App, Smart

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture
def symmetric(smart: Smart) -> App:
    return App(smart, "symmetric", APP, "openid user/*.rs")


async def push(smart: Smart, data: dict[str, str], **options: Any) -> httpx.Response:
    async with smart.http() as http:
        return await http.post("/auth/par", data=data, **options)


async def authorize(smart: Smart, client_id: str, request_uri: str, **more: str):
    browser = smart.browser()
    query = urlencode({"client_id": client_id, "request_uri": request_uri, **more})
    page = await browser.open(f"{ORIGIN}/auth/authorize?{query}")
    return browser, page


@pytest.mark.requirement("rfc9126")
async def test_a_pushed_request_leads_to_a_code(smart: Smart, symmetric: App):
    pushed = await push(smart, symmetric.parameters(), auth=("symmetric", CLIENT_SECRET))
    assert pushed.status_code == 201, pushed.text
    assert pushed.headers["cache-control"] == "no-store"
    body = pushed.json()
    assert body["request_uri"].startswith("urn:ietf:params:oauth:request_uri:")
    assert 0 < body["expires_in"] <= 60
    browser, page = await authorize(smart, "symmetric", body["request_uri"], scope="system/*.cruds", state="other")
    assert 'name="password"' in page.text
    await browser.submit(username="surgeon", password=PASSWORD)
    await browser.submit(decision="allow")
    assert browser.answer["state"] == symmetric.state, "what the browser brings beside request_uri must not count"
    assert browser.answer["iss"] == ORIGIN
    data = {
        "grant_type": "authorization_code",
        "code": browser.answer["code"],
        "redirect_uri": APP,
        "code_verifier": symmetric.verifier,
    }
    async with smart.http() as http:
        tokens = (await http.post("/auth/token", data=data, auth=("symmetric", CLIENT_SECRET))).json()
    assert tokens["scope"] == "openid user/*.rs"


async def test_a_request_uri_is_good_once_and_for_its_client_only(smart: Smart, symmetric: App):
    request_uri = (await push(smart, symmetric.parameters(), auth=("symmetric", CLIENT_SECRET))).json()["request_uri"]
    browser, page = await authorize(smart, "growth-app", request_uri)
    assert (page.status_code, browser.redirected_to) == (400, None)
    _, page = await authorize(smart, "symmetric", request_uri)
    assert 'name="password"' in page.text, "a stranger's try must not use it up"
    browser, page = await authorize(smart, "symmetric", request_uri)
    assert (page.status_code, browser.redirected_to) == (400, None)


async def test_a_request_uri_runs_out(smart: Smart, symmetric: App):
    request_uri = (await push(smart, symmetric.parameters(), auth=("symmetric", CLIENT_SECRET))).json()["request_uri"]
    smart.execute("UPDATE identity.pushed_request SET expires_at = now() - interval '1 second'")
    browser, page = await authorize(smart, "symmetric", request_uri)
    assert (page.status_code, browser.redirected_to) == (400, None)


async def test_pushing_needs_the_authentication_of_the_token_endpoint(smart: Smart, symmetric: App):
    assert (await push(smart, symmetric.parameters())).status_code == 401
    wrong = await push(smart, symmetric.parameters(), auth=("symmetric", "wrong"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    other = await push(smart, symmetric.parameters(client_id="growth-app"), auth=("symmetric", CLIENT_SECRET))
    assert other.json()["error"] == "invalid_request"
    parameters = App(smart, "asymmetric", APP, "openid user/*.rs").parameters()
    endpoint, now = f"{ORIGIN}/auth/par", int(time.time())
    assertion = smart.assertion(aud=endpoint)
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
    assert (await push(smart, {**parameters, **proof})).status_code == 201
    assert (await push(smart, {**parameters, **proof})).json()["error"] == "invalid_client", "replayed jti"
    elsewhere = {**proof, "client_assertion": smart.assertion(aud=endpoint, jti=uuid.uuid4().hex, iat=now)}
    async with smart.http() as http:
        data = {"grant_type": "client_credentials", "scope": "system/Patient.rs", **elsewhere}
        assert (await http.post("/auth/token", data=data)).json()["error"] == "invalid_client"
    stored = smart.execute("SELECT parameters::text FROM identity.pushed_request WHERE client_id = 'asymmetric'")
    assert stored
    assert all("client_assertion" not in row[0] for row in stored)
    public = App(smart, "growth-app", APP, "launch/patient patient/Observation.rs")
    assert (await push(smart, public.parameters())).status_code == 201


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "https://evil.example/"}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": None}, "invalid_scope"),
        ({"aud": "https://evil.example/fhir"}, "invalid_request"),
        ({"response_type": "token"}, "invalid_request"),
        ({"response_type": None}, "invalid_request"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"),
        ({"request": "eyJ"}, "invalid_request"),
        ({"prompt": "sometimes"}, "invalid_request"),
    ],
)
async def test_faulty_requests_are_refused_when_pushed(smart: Smart, symmetric: App, changes, error):
    answer = await push(smart, symmetric.parameters(**changes), auth=("symmetric", CLIENT_SECRET))
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "request_uri", ["urn:ietf:params:oauth:request_uri:guess", "urn:ietf:params:oauth:request_uri:", "urn:x"]
)
async def test_guessed_request_uris_lead_nowhere(smart: Smart, symmetric: App, request_uri: str):
    browser, page = await authorize(smart, "symmetric", request_uri)
    assert (page.status_code, browser.redirected_to) == (400, None)


async def test_a_client_may_be_bound_to_pushing(smart: Smart):
    keys: Any = {"keys": [smart.client_key.as_dict(private=False)]}
    with transaction(smart.database_url) as connection:
        save_client(connection, Client("pushing", PRIVATE_KEY, "openid", (APP,), jwks=keys, require_pushed=True))
    app = App(smart, "pushing", APP, "openid")
    browser = smart.browser()
    await browser.open(app.url())
    assert browser.answer["error"] == "invalid_request"
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": smart.assertion("pushing")}
    request_uri = (await push(smart, {**app.parameters(), **proof})).json()["request_uri"]
    _, page = await authorize(smart, "pushing", request_uri)
    assert 'name="password"' in page.text


async def test_only_post_of_a_form(smart: Smart, symmetric: App):
    async with smart.http() as http:
        assert (await http.get("/auth/par")).status_code == 405
        assert (await http.post("/auth/par", json=symmetric.parameters())).status_code == 415
