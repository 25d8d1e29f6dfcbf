"""What RFC 6749, 6819, 9700 and OWASP warn of, where no other file of this folder has it; endpoints by the route table.

docs/api/oauth.md tells what is refused. Codes and PKCE: test_code_flow_attacks; tokens: test_token_attacks and
test_access_token_forgery; assertions: test_token_endpoint, test_remote_keys; guessing: test_throttling,
test_known_devices; the forms: test_account_page, test_sign_in.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from argon2 import PasswordHasher
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.people.accounts import save_account
from foramen.identity.rights.institutions import Institution, save_institution
from foramen.identity.routes import ENDPOINTS
from foramen.kernel.errors import InvalidRequestError
from tests.builders.browser import Browser
from tests.contract.smart.conftest import ORIGIN, PASSWORD, App, Smart, sign_in

NO_FORMS = {
    "/authorize": "OAuth: a request of an app, that shows a page and changes nothing (SMART asks for POST)",
    "/federation/{provider}/callback": "SAML and back-channel logout: signed by the provider (test_federation*)",
}
PAGES = [item for item in ENDPOINTS if item.page and "GET" in item.methods and item.path != "/passkey.js"]
FORMS = [item.path for item in ENDPOINTS if item.page and "POST" in item.methods and item.path not in NO_FORMS]


def path_of(template: str) -> str:
    return f"/auth{template}".replace("{provider}", "nobody").replace("{id}", "1")


@pytest.fixture(autouse=True, scope="module")
def cheap_passwords(smart: Smart) -> None:
    """The same passwords at a small cost: these tests sign in often and measure nothing of it."""
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    smart.execute("UPDATE identity.account SET password_hash = :hash", hash=cheap)


@pytest.fixture(scope="module")
async def browser(smart: Smart) -> Browser:
    """Signed in as the surgeon, for all tests that do not sign out."""
    found = smart.browser()
    await sign_in(found, App(smart, "portal", f"{ORIGIN}/", "openid user/*.rs"))
    return found


@pytest.mark.parametrize("path", FORMS)
async def test_every_form_of_the_route_table_needs_its_token(smart: Smart, browser: Browser, path: str):
    """CSRF: a form from elsewhere, sent with the person's cookies (RFC 6819 §5.3.5, RFC 9700 §4.7)."""
    other = smart.browser()
    await other.open("/auth/login")
    stolen = {"csrf": "0" * 64}
    before = smart.execute("SELECT count(*), max(signed_in_at) FROM identity.session")
    for token in ({}, stolen):
        data = {"request": "x", "decision": "allow", "action": "remove", **token}
        answer = await browser.http.post(path_of(path), data=data)
        assert answer.status_code == 403, (path, answer.status_code)
        assert "set-cookie" not in answer.headers or "session" not in answer.headers["set-cookie"]
    assert smart.execute("SELECT count(*), max(signed_in_at) FROM identity.session") == before


@pytest.mark.parametrize("path", [item.path for item in PAGES])
async def test_every_page_of_the_route_table_cannot_be_framed(smart: Smart, browser: Browser, path: str):
    """Clickjacking (RFC 6819 §4.4.1.9, RFC 9700 §4.16): also of error pages and of redirects on the way."""
    for visitor in (browser, smart.browser()):
        answer = await visitor.http.get(path_of(path))
        assert answer.headers["x-frame-options"] == "DENY", path
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "state",
    [
        "a\r\nSet-Cookie: x=y",
        "a\nLocation: https://evil.example",
        "a\rb",
        "a\x00b",
        "a\x1fb",
        "嘊嘍Set-Cookie: x=y",  # U+560A, U+560D: CR LF to who cuts code points to bytes
        "a b",
        "a%0d%0aSet-Cookie: x=y",
    ],
)
@pytest.mark.parametrize("place", ["state", "redirect_uri", "post_logout", "request", "then", "lang"])
async def test_nothing_that_was_sent_becomes_a_header(smart: Smart, portal: App, browser: Browser, place: str, state):
    """Header injection (RFC 6819 §5.1.6): what comes back in Location, or chooses a header, stays in its place."""
    if place in ("state", "redirect_uri"):
        answer = await browser.http.get(portal.url(**{place: state}))
    elif place == "post_logout":
        browser = smart.browser()
        await sign_in(browser, portal)
        token = (await _tokens(portal, browser))["id_token"]
        query = f"id_token_hint={token}&post_logout_redirect_uri={quote(ORIGIN + '/')}&state={quote(state)}"
        answer = await browser.http.get(f"/auth/logout?{query}")
    elif place == "request":
        answer = await browser.http.get(f"/auth/login?request={quote(state)}")
    else:
        answer = await browser.http.get(f"/auth/login?{place}={quote(state)}")
    for name, value in answer.headers.multi_items():
        assert not any(ord(character) < 32 or ord(character) > 126 for character in value), name
        assert not value.startswith("x=y")
    location = answer.headers.get("location", "")
    assert not location or location.startswith((f"{ORIGIN}/", "/auth/"))
    if any(ord(character) < 32 for character in state):
        assert answer.status_code == 400, "control characters are no part of anything an app says"


async def _tokens(app: App, browser: Browser) -> dict[str, Any]:
    await browser.open(app.url())
    return (await app.exchange(browser.answer["code"])).json()


async def test_what_the_host_header_says_is_not_repeated(smart: Smart, browser: Browser):
    """Host header attacks: every URL we publish is of the configured origin."""
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    body = {"client_id": "growth-app", "patient": "p1"}
    answers = [
        await browser.http.get("/.well-known/openid-configuration", headers=headers),
        await browser.http.get("/fhir/.well-known/smart-configuration", headers=headers),
        await browser.http.get("/auth/login", headers=headers),
        await browser.http.get("/auth/account", headers=headers),
        await browser.http.post("/auth/launch", json=body, headers=headers),
        await browser.http.post(
            "/auth/register",
            json={
                "redirect_uris": ["https://app.example.org/cb"],
                "token_endpoint_auth_method": "none",
                "scope": "openid",
            },
            headers=headers,
        ),
    ]
    assert answers[-1].status_code == 201
    for answer in answers:
        assert "evil.example" not in answer.text + str(answer.headers), str(answer.url)


async def test_a_sign_out_redirects_to_registered_addresses_of_a_proven_app_only(smart: Smart, portal: App):
    """Open redirect at the end session endpoint (OpenID Connect RP-Initiated Logout §3, RFC 9700 §4.11)."""
    evil, good = "https://evil.example/", f"{ORIGIN}/"
    for hint, target in (("ours", evil), ("ours", f"{good}x"), ("none", good), ("", good), ("foreign", good)):
        browser = smart.browser()
        await sign_in(browser, portal)
        token = {"ours": (await _tokens(portal, browser))["id_token"], "": ""}.get(hint) or _forged(smart, hint)
        parameters = {"post_logout_redirect_uri": target, **({"id_token_hint": token} if hint else {})}
        answer = await browser.http.get("/auth/logout", params=parameters)
        assert answer.status_code == 200, (hint, target)
        assert "location" not in answer.headers


def _forged(smart: Smart, how: str) -> str:
    """An id_token of the surgeon's that we did not sign."""
    kid, now = smart.service._signer.keys.active().kid, int(time.time())
    claims = {"iss": ORIGIN, "aud": "portal", "sub": "surgeon", "iat": now, "exp": now + 300}
    if how == "none":
        parts = ({"alg": "none", "typ": "JWT", "kid": kid}, claims)
        return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."
    if how == "HS256":
        public = json.dumps(smart.service._signer.keys.active().public())
        header = {"alg": "HS256", "typ": "JWT", "kid": kid}
        return jwt.encode(header, claims, OctKey.import_key(public), algorithms=["HS256"])
    key = ECKey.generate_key("P-256", parameters={"kid": kid}, private=True)
    return jwt.encode({"alg": "ES256", "typ": "JWT", "kid": kid}, claims, key, algorithms=["ES256"])


@pytest.mark.parametrize("how", ["none", "HS256", "foreign"])
async def test_a_forged_id_token_signs_nobody_out(smart: Smart, portal: App, how: str):
    """Algorithm confusion where a token is a hint only: nobody is signed out by a link."""
    browser = smart.browser()
    await sign_in(browser, portal)
    await browser.http.get("/auth/logout", params={"id_token_hint": _forged(smart, how)})
    await browser.open(portal.url(prompt="none"))
    assert "code" in browser.answer


ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.mark.parametrize(
    "claims",
    [
        {"padding": "x" * 9000},
        {"exp": int(time.time()) + 86_400},
        {"nbf": int(time.time()) + 86_400},
    ],
)
async def test_an_oversized_or_future_assertion_is_refused_although_its_signature_is_right(smart: Smart, claims: dict):
    data = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "client_assertion_type": ASSERTION_TYPE}
    async with smart.http() as http:
        good = await http.post("/auth/token", data={**data, "client_assertion": smart.assertion()})
        bad = await http.post("/auth/token", data={**data, "client_assertion": smart.assertion(**claims)})
    assert good.status_code == 200
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid_client")


@pytest.mark.parametrize(
    "header", [{"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/c"}, {"kid": "k9"}]
)
async def test_an_assertion_that_names_other_keys_is_refused_although_its_signature_is_right(
    smart: Smart, header: dict
):
    """A client registered by value: the key is ours to choose (RFC 8725 §3.10), also when it is the right one."""
    claims = jwt.decode(smart.assertion(), smart.client_key, algorithms=["ES384"]).claims
    token = jwt.encode({"alg": "ES384", "kid": "asym-1", **header}, claims, smart.client_key, algorithms=["ES384"])
    data = {"grant_type": "client_credentials", "scope": "system/Patient.rs", "client_assertion_type": ASSERTION_TYPE}
    async with smart.http() as http:
        answer = await http.post("/auth/token", data={**data, "client_assertion": token})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")


async def test_oversized_requests_are_refused(smart: Smart, portal: App):
    big = "x" * 70_000
    async with smart.http() as http:
        for path in ("/auth/token", "/auth/par", "/auth/revoke", "/auth/introspect", "/auth/login", "/auth/authorize"):
            answer = await http.post(path, data={"client_id": "portal", "token": big})
            assert answer.status_code == 413, path
        many = {f"field{number}": "x" for number in range(100)}
        for answer in (
            await http.post("/auth/token", data=many),
            await http.get("/auth/authorize", params={**portal.parameters(), **many}),
        ):
            assert answer.status_code == 400
            assert "cannot be decoded" in answer.text
        registration = {"redirect_uris": ["https://a.example/"], "client_name": "x", "scope": big}
        assert (await http.post("/auth/register", json=registration)).status_code == 413


async def test_a_cookie_that_is_too_long_to_be_ours_is_none(smart: Smart, portal: App):
    """No database is asked for what nobody here ever set."""
    browser = smart.browser()
    for name in ("foramen-session", "foramen-sign-in", "foramen-device", "foramen-csrf"):
        browser.http.cookies.set(name, "x" * 3000, domain="127.0.0.1", path="/")
    page = await browser.open(portal.url())
    assert 'name="password"' in page.text
    await browser.submit(username="surgeon", password=PASSWORD)
    assert "code" in browser.answer


async def test_a_session_that_was_planted_is_not_the_persons_and_dies(smart: Smart, portal: App):
    """Session fixation: the attacker's own live session, planted in the victim's browser before signing in."""
    attacker, victim = smart.browser(), smart.browser()
    await sign_in(attacker, portal, "other")
    planted = next(cookie.value for cookie in attacker.http.cookies.jar if cookie.name == "foramen-session")
    victim.http.cookies.set("foramen-session", planted or "", domain="127.0.0.1", path="/")
    await victim.open(portal.url(prompt="login"))
    await victim.submit(username="surgeon", password=PASSWORD)
    assert "code" in victim.answer
    await attacker.open(portal.url(prompt="none"))
    assert attacker.answer["error"] == "login_required"


async def test_a_code_without_its_verifier_is_refused(smart: Smart, portal: App):
    """PKCE is no choice of who exchanges the code (RFC 9700 §2.1.1, downgrade §4.8.2)."""
    for verifier in (None, "", portal.challenge, "short", "x" * 129):
        browser = smart.browser()
        await sign_in(browser, portal)
        answer = await portal.exchange(browser.answer["code"], code_verifier=verifier)
        assert answer.status_code == 400, verifier
        assert answer.json()["error"] in ("invalid_grant", "invalid_request")


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\x00", "\u2028"])
def test_a_name_ends_where_it_ends(smart: Smart, end: str):
    """`$` of a regular expression also stands before a last line feed."""
    with transaction(smart.database_url) as connection:
        for wrong in (
            lambda: save_account(connection, f"name{end}", PASSWORD, "physician"),
            lambda: save_account(connection, "name", PASSWORD, "physician", practitioner=f"dr1{end}"),
            lambda: save_client(connection, Client(f"app{end}", PUBLIC, "openid", ("https://a.example/",))),
            lambda: save_institution(connection, Institution(f"i1{end}", "一", "One")),
        ):
            with pytest.raises(InvalidRequestError):
                wrong()


@pytest.mark.parametrize("name", ["patient", "encounter"])
async def test_a_reference_ends_where_it_ends(smart: Smart, browser: Browser, name: str):
    body = {"client_id": "growth-app", "patient": "p1", "encounter": "e-p1"}
    assert (await browser.http.post("/auth/launch", json=body)).status_code == 200
    assert (await browser.http.post("/auth/launch", json={**body, name: f"{body[name]}\n"})).status_code == 400
