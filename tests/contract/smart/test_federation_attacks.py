"""A hostile or broken outside provider, and hostile browsers: none of it signs anybody in, and each leaves its audit.

RFC 9700 §4, RFC 9207, OpenID Connect Core §3.1.3.7 and §16, Back-Channel Logout §2.6.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from foramen.identity.federation import documents, oidc
from foramen.identity.federation.documents import OutsideDocuments
from foramen.identity.federation.outgoing import call, reach_of
from foramen.identity.federation.outside_identity import OutsideRefused
from foramen.identity.federation.providers import Provider, parse_settings
from foramen.kernel.errors import InvalidRequestError, UpstreamError
from tests.contract.smart.federation_people import LOOPBACK, Traveller, trust
from tests.contract.smart.live_server import free_port
from tests.contract.smart.outside_provider import CLIENT_ID, EVENT, OutsideProvider, outside_provider, served
from tests.contract.smart.people import People, people_server


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
async def running(people: People) -> AsyncIterator[tuple[OutsideProvider, OutsideProvider]]:
    async with outside_provider() as provider, outside_provider() as evil:
        trust(people, "hospital", provider.issuer)
        trust(people, "evil", evil.issuer)
        yield provider, evil


@pytest.fixture
def outside(people: People, running: tuple[OutsideProvider, OutsideProvider]) -> OutsideProvider:
    for provider in running:
        provider.behave()
        provider.person = {"sub": "victim", "groups": ["it"], "preferred_username": "victim"}
    people.execute("TRUNCATE identity.refusal_count")
    return running[0]


@pytest.fixture
def evil(outside: OutsideProvider, running: tuple[OutsideProvider, OutsideProvider]) -> OutsideProvider:
    return running[1]


def assembled(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A JWS that no library would make."""
    parts = (json.dumps({"typ": "JWT", **header}).encode(), json.dumps(claims).encode())
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return f"{signed.decode()}.{base64.urlsafe_b64encode(sign(signed)).rstrip(b'=').decode()}"


def unsigned(claims: dict[str, Any]) -> str:
    return assembled({"alg": "none"}, claims, lambda _: b"")


def by_public_key(provider: OutsideProvider, claims: dict[str, Any]) -> str:
    """The classic confusion: HMAC with the published public key as the secret."""
    secret = provider.key.as_pem(private=False)
    return assembled({"alg": "HS256", "kid": "k1"}, claims, lambda text: hmac.digest(secret, text, "sha256"))


def with_unknown_crit(provider: OutsideProvider, claims: dict[str, Any]) -> str:
    private = provider.key.get_op_key("sign")
    header = {"alg": "RS256", "kid": "k1", "crit": ["x"], "x": 1}
    return assembled(header, claims, lambda text: private.sign(text, padding.PKCS1v15(), hashes.SHA256()))


def by_another_key(claims: dict[str, Any]) -> str:
    key = RSAKey.generate_key(2048, parameters={"kid": "k1"})
    return jwt.encode({"alg": "RS256", "kid": "k1"}, claims, key)


def with_its_own_key(claims: dict[str, Any]) -> str:
    key = RSAKey.generate_key(2048, parameters={"kid": "k1"})
    header = {"alg": "RS256", "kid": "k1", "jwk": key.as_dict(private=False), "jku": "http://127.0.0.1:9/jwks"}
    return jwt.encode(header, claims, key)


NOW = time.time
CLAIMS: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "n" * 43},
    "no nonce": {"nonce": None},
    "another issuer": {"iss": "http://127.0.0.1:9"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "somebody-else"},
    "two audiences, no azp": {"aud": [CLIENT_ID, "somebody-else"]},
    "two audiences, another azp": {"aud": [CLIENT_ID, "somebody-else"], "azp": "somebody-else"},
    "another azp": {"azp": "somebody-else"},
    "expired": {"exp": int(NOW()) - 3600},
    "no expiry": {"exp": None},
    "expiry is no number": {"exp": "2099-01-01"},
    "expiry is true": {"exp": True},
    "issued tomorrow": {"iat": int(NOW()) + 86400, "exp": int(NOW()) + 90000},
    "not yet": {"nbf": int(NOW()) + 3600},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "subject is a list": {"sub": ["victim"]},
    "subject too long": {"sub": "s" * 300},
    "subject with a control character": {"sub": "vic\u0000tim"},
    "hash of another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


async def nobody_comes_in(people: People, traveller: Traveller, page: httpx.Response) -> None:
    assert page.status_code == 403, page.text
    assert "无法登录" in page.text
    assert traveller.session is None
    assert people.execute("SELECT 1 FROM identity.session") == []
    assert people.execute("SELECT 1 FROM identity.account WHERE name LIKE '%@%'") == []


@pytest.mark.parametrize("case", CLAIMS)
async def test_claims_that_are_not_right(people: People, outside: OutsideProvider, case: str):
    outside.claims = CLAIMS[case]
    guest = Traveller.of(people)
    await nobody_comes_in(people, guest, await guest.sign_in())
    assert any(said and said.startswith("hospital: id_token: ") for _, said in people.events("110122"))


@pytest.mark.parametrize(
    "forge",
    [
        lambda _, claims: unsigned(claims),
        by_public_key,
        lambda _, claims: by_another_key(claims),
        lambda _, claims: with_its_own_key(claims),
        lambda provider, claims: provider.signed(claims, alg="RS512"),  # real, but not among the allowed
        lambda provider, claims: provider.signed(claims)[:-8] + "AAAAAAAA",
        with_unknown_crit,
        lambda *_: "not a token",
        lambda *_: "a.b.c",
        lambda provider, claims: provider.signed({**claims, "much": "x" * 70_000}),
    ],
)
async def test_signatures_that_are_not_right(people: People, outside: OutsideProvider, forge: Any):
    outside.sign = lambda claims: forge(outside, claims)
    guest = Traveller.of(people)
    await nobody_comes_in(people, guest, await guest.sign_in())
    said = people.events("110122")[-1][1] or ""
    assert said.startswith(("hospital: the signature", "hospital: the token")), said


async def test_the_same_provider_signs_in_when_it_behaves(people: People, outside: OutsideProvider):
    outside.person = {**outside.person, "sub": "control"}
    outside.claims = {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID, "exp": int(NOW()) - 20}  # within the skew
    guest = Traveller.of(people)
    await guest.sign_in()
    assert await guest.account() == "victim@hospital"
    people.execute("DELETE FROM identity.session")
    people.execute("DELETE FROM identity.account WHERE name = 'victim@hospital'")


@pytest.mark.parametrize(
    "response",
    [{"iss": "http://127.0.0.1:9"}, {"iss": None}, {"code": None}, {"code": None, "error": "access_denied"}],
)
async def test_answers_that_are_not_right(people: People, outside: OutsideProvider, response: dict[str, str | None]):
    outside.response = response
    guest = Traveller.of(people)
    await nobody_comes_in(people, guest, await guest.sign_in())


async def test_an_answer_is_good_once(people: People, outside: OutsideProvider):
    guest = Traveller.of(people)
    back = await guest.out_there(await guest.leave())
    outside.sign = unsigned  # the first use fails after the state was taken
    await guest.browser.open(back)
    outside.sign = None
    await nobody_comes_in(people, guest, await guest.browser.open(back))


async def test_an_answer_belongs_to_the_browser_that_asked(people: People, outside: OutsideProvider):
    attacker, victim = Traveller.of(people), Traveller.of(people)
    before = people.events("110122")
    back = await attacker.out_there(await attacker.leave())
    await nobody_comes_in(people, victim, await victim.browser.open(back))  # login CSRF: no cookie at all
    await victim.leave()  # nor with a cookie of its own journey
    await nobody_comes_in(people, victim, await victim.browser.open(back))
    said = [reason for _, reason in people.events("110122")[len(before) :]]
    assert said == ["hospital: not asked for in this browser"] * 2


async def test_an_answer_nobody_asked_for(people: People, outside: OutsideProvider):
    guest = Traveller.of(people)
    await guest.leave()
    for query in ("?code=x&state=y", "?code=x", "", f"?code=x&state={'s' * 5000}"):
        page = await guest.browser.open(f"/auth/federation/hospital/callback{query}")
        await nobody_comes_in(people, guest, page)


async def test_an_answer_that_took_too_long(people: People, outside: OutsideProvider):
    guest = Traveller.of(people)
    back = await guest.out_there(await guest.leave())
    people.execute("UPDATE identity.federation_request SET expires_at = now() - interval '1 second'")
    await nobody_comes_in(people, guest, await guest.browser.open(back))


async def test_mix_up_the_code_of_one_never_reaches_the_other(
    people: People, outside: OutsideProvider, evil: OutsideProvider
):
    guest = Traveller.of(people)
    at_evil = await guest.leave("evil")  # evil sends the browser on to the honest one, with evil's state
    query = httpx.URL(at_evil).query.decode()
    honest = await guest.out_there(f"{outside.issuer}/authorize?{query}")
    assert "/federation/evil/callback" in honest
    before = len(outside.asked), len(evil.asked)
    await nobody_comes_in(people, guest, await guest.browser.open(honest))  # `iss` says who answered
    moved = honest.replace("/federation/evil/", "/federation/hospital/")
    await nobody_comes_in(people, guest, await guest.browser.open(moved))
    assert people.events("110122")[-1] == ("8", "hospital: not asked for in this browser")
    assert (len(outside.asked), len(evil.asked)) == before
    again = await guest.leave("evil")
    back = (await guest.out_there(again)).replace("/federation/evil/", "/federation/hospital/")
    await nobody_comes_in(people, guest, await guest.browser.open(back))  # a state belongs to one provider
    assert people.events("110122")[-1] == ("8", "hospital: not asked for in this browser")


async def test_subjects_of_two_issuers_are_two_people(people: People, outside: OutsideProvider, evil: OutsideProvider):
    guest, other = Traveller.of(people), Traveller.of(people)
    await guest.sign_in("hospital")
    await other.sign_in("evil")
    assert (await guest.account(), await other.account()) == ("victim@hospital", "victim@evil")
    people.execute("DELETE FROM identity.session")
    people.execute("DELETE FROM identity.account WHERE name LIKE '%@%'")


async def test_the_table_of_journeys_opens_none(people: People, outside: OutsideProvider):
    guest = Traveller.of(people)
    there = httpx.URL(await guest.leave()).params
    cookie = next(c.value for c in guest.browser.http.cookies.jar if c.name == "foramen-federation")
    stored = str(people.execute("SELECT to_jsonb(r) FROM identity.federation_request r"))
    for secret in (there["state"], there["nonce"], cookie):
        assert secret not in stored
    assert "foramen-federation" in guest.browser.http.cookies


# --- logout tokens


LOGOUTS: dict[str, dict[str, Any]] = {
    "a nonce, as an id_token has": {"nonce": "n"},
    "no event": {"events": None},
    "another event": {"events": {"http://schemas.openid.net/event/other": {}}},
    "the event is no object": {"events": {EVENT: True}},
    "another audience": {"aud": "somebody-else"},
    "another issuer": {"iss": "http://127.0.0.1:9"},
    "no id": {"jti": None},
    "nobody": {"sub": None, "sid": None},
    "subject is a list": {"sub": ["victim"]},
    "too old": {"iat": int(NOW()) - 3600},
    "issued tomorrow": {"iat": int(NOW()) + 86400},
    "expired": {"exp": int(NOW()) - 3600},
    "no expiry": {"exp": None},
}


@pytest.fixture(scope="module")
async def signed_in(people: People, running: tuple[OutsideProvider, OutsideProvider]) -> AsyncIterator[Traveller]:
    provider = running[0]
    provider.behave()
    provider.sid = "s-there"
    provider.person = {"sub": "stays", "groups": ["it"], "preferred_username": "stays"}
    guest = Traveller.of(people)
    await guest.sign_in()
    yield guest
    people.execute("DELETE FROM identity.session")
    people.execute("DELETE FROM identity.account WHERE name LIKE '%@%'")


async def logout(people: People, token: str, provider: str = "hospital") -> httpx.Response:
    async with people.http() as http:
        return await http.post(f"/auth/federation/{provider}/backchannel-logout", data={"logout_token": token})


@pytest.mark.parametrize("case", LOGOUTS)
async def test_forged_logout_tokens_end_nothing(signed_in: Traveller, outside: OutsideProvider, case: str):
    outside.person, outside.sid = {"sub": "stays"}, "s-there"
    answer = await logout(signed_in.people, outside.logout_token(**LOGOUTS[case]))
    assert answer.status_code == 400
    assert answer.json() == {"error": "invalid_request"}
    assert await signed_in.account() == "stays@hospital"


async def test_logout_tokens_of_another_key_kind_or_provider_end_nothing(
    signed_in: Traveller, outside: OutsideProvider, evil: OutsideProvider
):
    outside.person, outside.sid = {"sub": "stays"}, "s-there"
    evil.person, evil.sid = {"sub": "stays"}, "s-there"
    people, good = signed_in.people, outside.logout_token()
    claims = json.loads(base64.urlsafe_b64decode(good.split(".")[1] + "=="))
    forged = (
        unsigned(claims),
        by_public_key(outside, claims),
        by_another_key(claims),
        outside.signed(claims, typ="at+jwt"),
        outside.id_token("n"),
        evil.signed(claims),
        "",
        "x",
    )
    for token in forged:
        assert (await logout(people, token)).status_code == 400
    assert (await logout(people, good, "evil")).status_code == 400
    assert (await logout(people, good, "nobody")).status_code == 400
    assert (await logout(people, evil.logout_token(), "evil")).status_code == 200  # its own, of its own people only
    assert await signed_in.account() == "stays@hospital"
    assert (await logout(people, good)).status_code == 200
    assert await signed_in.account() is None


# --- what is fetched from a provider


def provider_at(issuer: str, **settings: Any) -> Provider:
    return Provider("p", "oidc", issuer, "甲", "A", CLIENT_ID, True, parse_settings({**LOOPBACK, **settings}))


async def test_private_addresses_are_reached_only_where_that_is_said(outside: OutsideProvider):
    with pytest.raises(UpstreamError):
        await OutsideDocuments().metadata(provider_at(outside.issuer, networks=[]))
    assert (await OutsideDocuments().metadata(provider_at(outside.issuer))).issuer == outside.issuer
    with pytest.raises(InvalidRequestError):
        await call(reach_of(provider_at(outside.issuer, networks=["10.0.0.0/8"])), "POST", f"{outside.issuer}/token")


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://127.0.0.1:9"},
        {"issuer": None},
        {"token_endpoint": None},
        {"token_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "http://10.0.0.1/jwks"},
        {"userinfo_endpoint": 7},
        {"padding": "x" * 300_000},
    ],
)
async def test_discovery_documents_that_are_not_believed(outside: OutsideProvider, changes: dict[str, Any]):
    outside.metadata = changes
    try:
        with pytest.raises(UpstreamError):
            await OutsideDocuments().metadata(provider_at(outside.issuer))
    finally:
        outside.metadata = {}


async def test_redirects_and_packed_answers_are_not_followed():
    port = free_port()
    routes = [
        Route("/.well-known/openid-configuration", lambda _: RedirectResponse("/other", 302)),
        Route("/packed", lambda _: Response(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})),
        Route("/many", lambda _: JSONResponse("x" * 300_000)),
    ]
    async with served(Starlette(routes=routes), port):
        provider = provider_at(f"http://127.0.0.1:{port}")
        with pytest.raises(UpstreamError):
            await OutsideDocuments().metadata(provider)
        assert (await call(reach_of(provider), "GET", f"{provider.issuer}/packed")).content == b"\x1f\x8b"
        with pytest.raises(UpstreamError):
            await call(reach_of(provider), "GET", f"{provider.issuer}/many")


async def test_an_unknown_kid_has_the_keys_fetched_again_but_not_at_every_call(outside: OutsideProvider):
    moment = [1000.0]
    cache, provider = OutsideDocuments(lambda: moment[0]), provider_at(outside.issuer)
    outside.fetched.clear()
    assert [key.kid for key in (await cache.keys(provider, "k1")).keys] == ["k1"]
    for _ in range(5):
        await cache.keys(provider, "k2")
    assert outside.fetched.count("jwks") == 1
    outside.published = [outside.key, RSAKey.generate_key(2048, parameters={"kid": "k2"})]
    moment[0] += 31
    assert [key.kid for key in (await cache.keys(provider, "k2")).keys] == ["k1", "k2"]
    assert outside.fetched.count("jwks") == 2
    assert outside.fetched.count("discovery") == 1


async def test_private_short_and_shared_keys_are_left_out():
    good = RSAKey.generate_key(2048, parameters={"kid": "good"})
    short = RSAKey.generate_key(1024, parameters={"kid": "short"})
    listed = [
        short.as_dict(private=False),
        good.as_dict(private=True),
        OctKey.generate_key(256).as_dict(),
        {**good.as_dict(private=False), "kid": "enc", "use": "enc"},
        "no key",
        {"kty": "RSA"},
        good.as_dict(private=False),
    ]
    found = documents.parse_keys({"keys": listed})
    assert [(key.kid, key.is_private) for key in found.keys] == [("good", False)]
    with pytest.raises(UpstreamError):
        documents.parse_keys({"keys": listed[:-1]})


async def test_a_code_or_secret_that_is_not_accepted(people: People, outside: OutsideProvider):
    guest = Traveller.of(people)
    await guest.leave()
    provider = provider_at(outside.issuer)
    journey = oidc.Journey("s", "n", "v" * 43, "http://x/cb")
    with pytest.raises(OutsideRefused):
        await oidc.redeem(OutsideDocuments(), provider, "wrong", "code", journey)
