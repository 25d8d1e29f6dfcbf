"""Tokens that look like ours but are not: `none`, HS256 with the public key, foreign keys, an id_token in their place.

RFC 8725 (JWT best current practices) §2.1, §3.11
"""

from __future__ import annotations

import base64
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from foramen.kernel.errors import NotAuthenticatedError
from tests.contract.smart.conftest import ORIGIN, App, Smart, sign_in


def claims(**changes) -> dict:
    now = int(time.time())
    base = {"iss": ORIGIN, "aud": ORIGIN, "sub": "surgeon", "client_id": "portal", "scope": "system/*.cruds"}
    return {**base, "iat": now, "exp": now + 300, "jti": "x", **changes}


def encoded(part: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


async def refused(smart: Smart, token: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        smart.service.verifier().verify(token)
    async with smart.http() as http:
        answer = await http.get("/auth/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_forged_tokens_are_refused(smart: Smart):
    async with smart.http() as http:
        public = (await http.get("/auth/jwks")).json()["keys"][0]
    typ = {"typ": "at+jwt", "kid": public["kid"]}
    await refused(smart, f"{encoded({**typ, 'alg': 'none'})}.{encoded(claims())}.")
    shared = OctKey.import_key(json.dumps(public))
    await refused(smart, jwt.encode({**typ, "alg": "HS256"}, claims(), shared, algorithms=["HS256"]))
    foreign = ECKey.generate_key("P-256", parameters={"kid": public["kid"]}, private=True)
    await refused(smart, jwt.encode({**typ, "alg": "ES256"}, claims(), foreign, algorithms=["ES256"]))
    own_kid = {"typ": "at+jwt", "kid": "own", "alg": "ES256", "jku": "https://evil.example/keys"}
    own_key = ECKey.generate_key("P-256", parameters={"kid": "own"}, private=True)
    embedded = {**own_kid, "jwk": own_key.as_dict(private=False)}
    await refused(smart, jwt.encode(embedded, claims(), own_key, algorithms=["ES256"]))
    await refused(smart, "x" * 10000)


async def test_expired_and_altered_tokens_are_refused(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    token = (await portal.exchange(browser.answer["code"])).json()["access_token"]
    head, body, signature = token.split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "=="))
    await refused(smart, f"{head}.{encoded({**content, 'scope': 'user/*.cruds'})}.{signature}")
    signer = smart.service._signer
    await refused(smart, signer._sign("at+jwt", claims(exp=int(time.time()) - 1)))
    await refused(smart, signer._sign("at+jwt", claims(aud="https://evil.example")))
    await refused(smart, signer._sign("at+jwt", claims(iss="https://evil.example")))


async def test_an_id_token_is_no_access_token_and_the_reverse(smart: Smart, portal: App):
    browser = smart.browser()
    await sign_in(browser, portal)
    body = (await portal.exchange(browser.answer["code"])).json()
    await refused(smart, body["id_token"])
    page = await browser.open("/auth/logout", params={"id_token_hint": body["access_token"]})
    assert 'name="csrf"' in page.text
    await browser.open(portal.url(prompt="none"))
    assert "code" in browser.answer
