"""What RFC 6749, 6750, 6819, 7009, 7662 and 9700 warn of for tokens, beyond codes and forged signatures."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from foramen.identity.app import IdentityService
from foramen.identity.oauth.revocation_list import watch
from foramen.kernel.errors import NotAuthenticatedError
from tests.contract.smart.conftest import APP, CLIENT_SECRET, ORIGIN, App, Smart, sign_in


async def signed_in(smart: Smart, app: App) -> dict:
    browser = smart.browser()
    await sign_in(browser, app)
    return (await app.exchange(browser.answer["code"])).json()


async def post(smart: Smart, path: str, **options) -> httpx.Response:
    async with smart.http() as http:
        return await http.post(path, **options)


async def active(smart: Smart, token: str) -> bool:
    answer = await post(smart, "/auth/introspect", data={"token": token}, auth=("symmetric", CLIENT_SECRET))
    return bool(answer.json()["active"])


@pytest.mark.requirement("rfc9700#4.14")
async def test_a_stolen_refresh_token_ends_the_whole_family_in_every_process(smart: Smart, portal: App):
    """Whoever uses the rotated token again, thief or owner: nobody keeps access."""
    service = IdentityService(smart.settings, smart.database_url)
    follow = asyncio.create_task(watch(service._verifier, service._database, 3600))
    try:
        first = await signed_in(smart, portal)
        thief = (await portal.refresh(first["refresh_token"])).json()
        assert service.verifier().verify(thief["access_token"]).subject == "surgeon"
        owner = await portal.refresh(first["refresh_token"])
        assert (owner.status_code, owner.json()["error"]) == (400, "invalid_grant")
        assert (await portal.refresh(thief["refresh_token"])).status_code == 400
        assert not await active(smart, thief["access_token"])
        began = time.monotonic()
        while time.monotonic() - began < 10:
            await asyncio.sleep(0.2)
            try:
                service.verifier().verify(thief["access_token"])
            except NotAuthenticatedError:
                break
        with pytest.raises(NotAuthenticatedError):
            service.verifier().verify(thief["access_token"])
    finally:
        follow.cancel()
        await service.stop()


async def test_a_refresh_token_used_twice_at_once_gives_one_answer(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    answers = await asyncio.gather(*(portal.refresh(first["refresh_token"]) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


async def test_a_code_used_twice_at_once_gives_one_answer(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    answers = await asyncio.gather(*(portal.exchange(browser.answer["code"]) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


async def test_another_client_can_neither_use_nor_end_a_refresh_token(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    for _ in range(2):
        mixed = await portal.refresh(first["refresh_token"], client_id="growth-app")
        assert mixed.json()["error"] == "invalid_grant"
        data = {"token": first["refresh_token"], "client_id": "growth-app"}
        assert (await post(smart, "/auth/revoke", data=data)).status_code == 400
        data["token"] = first["access_token"]
        assert (await post(smart, "/auth/revoke", data=data)).status_code == 400
    assert await active(smart, first["access_token"])
    assert (await portal.refresh(first["refresh_token"])).status_code == 200


@pytest.mark.parametrize("scope", ["user/*.cruds", "user/Patient.u", "foramen/admin", "offline_access", "patient/*.rs"])
async def test_a_refresh_never_widens_the_scope(smart: Smart, portal: App, scope: str):
    first = await signed_in(smart, portal)
    wider = await portal.refresh(first["refresh_token"], scope=f"{first['scope']} {scope}")
    assert wider.json()["error"] == "invalid_scope"
    narrower = (await portal.refresh(first["refresh_token"], scope="openid user/Patient.r")).json()
    assert narrower["scope"] == "openid user/Patient.r"


@pytest.mark.requirement("rfc7009")
async def test_revocation_ignores_hints_and_unknown_tokens_and_asks_for_the_client(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    for hint in ("refresh_token", "access_token", "id_token"):
        unknown = {"token": "unknown", "token_type_hint": hint, "client_id": "portal"}
        assert (await post(smart, "/auth/revoke", data=unknown)).status_code == 200
    assert (await post(smart, "/auth/revoke", data={"token": first["access_token"]})).status_code == 401
    assert (await post(smart, "/auth/revoke", data={"client_id": "portal"})).json()["error"] == "invalid_request"
    wrong_hint = {"token": first["access_token"], "token_type_hint": "refresh_token", "client_id": "portal"}
    assert (await post(smart, "/auth/revoke", data=wrong_hint)).status_code == 200
    assert not await active(smart, first["access_token"])
    assert (await portal.refresh(first["refresh_token"])).status_code == 200, "an access token ends alone"


@pytest.mark.requirement("rfc7662")
async def test_introspection_tells_who_and_what(smart: Smart, portal: App):
    first = await signed_in(smart, portal)
    auth = ("symmetric", CLIENT_SECRET)
    data = {"token": first["access_token"], "token_type_hint": "whatever"}
    body = (await post(smart, "/auth/introspect", data=data, auth=auth)).json()
    assert (body["username"], body["token_type"], body["iss"]) == ("surgeon", "Bearer", ORIGIN)
    assert body["exp"] > time.time()
    body = (await post(smart, "/auth/introspect", data={"token": first["refresh_token"]}, auth=auth)).json()
    assert (body["active"], body["sub"], body["client_id"]) == (True, "surgeon", "portal")
    missing = await post(smart, "/auth/introspect", data={}, auth=auth, headers={"Content-Type": "x"})
    assert missing.status_code == 415
    smart.execute("UPDATE identity.client SET disabled = true WHERE client_id = 'symmetric'")
    try:
        assert (await post(smart, "/auth/introspect", data=data, auth=auth)).status_code == 401
    finally:
        smart.execute("UPDATE identity.client SET disabled = false WHERE client_id = 'symmetric'")


async def test_tokens_in_urls_and_forms_are_not_read(smart: Smart, portal: App):
    """RFC 6750 §2.2 and §2.3: what stands in a URL stands in logs, too."""
    token = (await signed_in(smart, portal))["access_token"]
    async with smart.http() as http:
        assert (await http.get("/auth/userinfo", params={"access_token": token})).status_code == 401
        assert (await http.post("/auth/userinfo", data={"access_token": token})).status_code == 401
        good = await http.get("/auth/userinfo", headers={"Authorization": f"Bearer {token}"})
        assert good.json()["sub"] == "surgeon"


async def test_tokens_of_the_future_and_with_foreign_headers_are_refused_although_we_signed_them(smart: Smart):
    from joserfc import jwt

    signer, now = smart.service._signer, int(time.time())
    key = signer.keys.active()
    claims = {"iss": ORIGIN, "aud": ORIGIN, "sub": "surgeon", "client_id": "portal", "scope": "user/*.rs"}
    claims |= {"iat": now, "exp": now + 300, "jti": "a"}
    good = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}

    def verify(header: dict, body: dict) -> str:
        token = jwt.encode(header, body, key.key, algorithms=["ES256"])
        return smart.service.verifier().verify(token).subject

    assert verify(good, claims) == "surgeon"
    for changes in ({"nbf": now + 3600}, {"iat": now + 3600}, {"nbf": "soon"}, {"exp": now - 1}, {"exp": "never"}):
        with pytest.raises(NotAuthenticatedError):
            verify(good, {**claims, **changes})
    for header in ({"jku": "https://evil.example/k"}, {"jwk": key.public()}, {"x5u": "https://evil.example"}):
        with pytest.raises(NotAuthenticatedError):
            verify({**good, **header}, claims)
    with pytest.raises(NotAuthenticatedError):
        verify(good, {**claims, "scope": "user/*.rs " * 900})


async def test_the_answer_to_the_app_is_a_303_with_the_issuer_and_is_not_kept(smart: Smart, portal: App):
    """RFC 9700 §4.12 (307 would send the password on), RFC 9207 (mix-up), §4.2.4 (leaks by Referer and history)."""
    browser = smart.browser()
    page = await browser.open(portal.url())
    form = _fields(page.text)
    answer = await browser.http.post("/auth/login", data={**form, "username": "surgeon", "password": "wrong"})
    assert answer.status_code in (200, 401, 403)
    await browser.open(portal.url())
    await browser.submit(username="surgeon", password="correct horse battery")
    answer = await browser.http.get(portal.url())
    assert answer.status_code == 303
    assert f"iss={ORIGIN}".replace(":", "%3A").replace("/", "%2F") in answer.headers["location"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content == b""


def _fields(html: str) -> dict[str, str]:
    from tests.builders.browser import forms_of

    return forms_of(html)[0].fields


@pytest.mark.parametrize("path", ["/auth/token", "/auth/revoke", "/auth/introspect", "/auth/par"])
async def test_credentials_never_come_in_a_url(smart: Smart, path: str):
    async with smart.http() as http:
        assert (await http.get(path, params={"client_id": "symmetric"})).status_code == 405
        data = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}
        sent = await http.post(path, params={**data, "client_secret": CLIENT_SECRET, "client_id": "symmetric"})
        assert sent.status_code == 415


async def test_a_client_uses_the_method_it_registered_and_one_only(smart: Smart):
    data = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}
    assertion = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": smart.assertion("symmetric"),
    }
    for refused in (
        await post(smart, "/auth/token", data={**data, **assertion}),
        await post(smart, "/auth/token", data=data, auth=("asymmetric", "x")),
        await post(smart, "/auth/token", data={**data, "client_id": "symmetric"}),
        await post(smart, "/auth/token", data={**data, "client_id": "asymmetric"}),
    ):
        assert refused.json()["error"] == "invalid_client"


async def test_an_address_that_differs_in_nothing_but_encoding_is_another_address(smart: Smart, growth: App):
    for redirect_uri in (APP.upper(), f"{APP}/", f"{APP}?a=1", f"{APP}%2F", APP.replace("https", "http"), f" {APP}"):
        browser = smart.browser()
        page = await browser.open(growth.url(redirect_uri=redirect_uri))
        assert (page.status_code, browser.redirected_to) == (400, None), redirect_uri
