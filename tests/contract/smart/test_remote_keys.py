"""Clients that publish their keys at a URL: fetched under limits, never from where we must not reach."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.identity.app import IdentityService
from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PRIVATE_KEY, Client, save_client
from tests.contract.smart.conftest import ORIGIN, Smart

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass
class KeyServer:
    """A real web server of a client, that says what a test tells it to."""

    port: int = 0
    asked: int = 0
    status: str = "200 OK"
    headers: str = ""
    body: bytes = b""
    delay_s: float = 0.0
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    def publish(self, *keys: ECKey) -> None:
        self.body = json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        self.paths.append(head.split()[1].decode())
        await asyncio.sleep(self.delay_s)
        answer = (
            f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n{self.headers}\r\n"
        )
        writer.write(answer.encode() + self.body)
        writer.close()


@dataclass
class Remote:
    """An authorization server that may fetch from loopback, with a clock of its own, and a client's web server."""

    smart: Smart
    service: IdentityService
    server: KeyServer
    key: ECKey
    now: float = 1000.0

    async def token(self, assertion: str) -> httpx.Response:
        app = Starlette(routes=[Mount("/auth", self.service.app)])
        data = {"grant_type": "client_credentials", "scope": "system/Patient.rs"}
        data |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as http:
            return await http.post("/auth/token", data=data)

    async def signed(self, key: ECKey | None = None) -> httpx.Response:
        return await self.token(self.smart.assertion("remote", key=key or self.key))

    def register(self, uri: str) -> None:
        with transaction(self.smart.database_url) as connection:
            save_client(connection, Client("remote", PRIVATE_KEY, "system/Patient.rs", jwks_uri=uri))


def new_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-384", parameters={"kid": kid}, private=True)


@pytest.fixture
async def remote(smart: Smart) -> AsyncIterator[Remote]:
    server, key = KeyServer(), new_key("k1")
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    server.publish(key)
    settings = smart.settings.model_copy(update={"client_jwks_networks": "127.0.0.0/8"})
    service = IdentityService(settings, smart.database_url)
    found = Remote(smart, service, server, key)
    service._env.remote_keys._clock = lambda: found.now
    found.register(server.url)
    yield found
    await service.stop()
    listener.close()


@pytest.mark.requirement("hl7.fhir.uv.smart-app-launch_2.2.0#client-confidential-asymmetric")
async def test_keys_are_fetched_once_and_kept(remote: Remote):
    answers = await asyncio.gather(*(remote.signed() for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert (await remote.signed()).status_code == 200
    assert remote.server.asked == 1


async def test_a_new_key_is_fetched_when_it_is_used_and_an_old_one_ends(remote: Remote):
    assert (await remote.signed()).status_code == 200
    second = new_key("k2")
    remote.server.publish(second)
    assert (await remote.signed(second)).status_code == 400, "not more often than every half minute"
    assert remote.server.asked == 1
    remote.now += 31
    assert (await remote.signed(second)).status_code == 200
    assert (await remote.signed()).status_code == 400, "the key that is published no more"
    assert remote.server.asked == 2


async def test_what_was_fetched_runs_out(remote: Remote):
    remote.server.headers = "Cache-Control: public, max-age=120\r\n"
    assert (await remote.signed()).status_code == 200
    remote.now += 119
    assert (await remote.signed()).status_code == 200
    assert remote.server.asked == 1
    remote.now += 2
    remote.server.status = "404 Not Found"
    assert (await remote.signed()).status_code == 400, "keys that were taken away must not live on"
    assert remote.server.asked == 2


async def test_a_fault_of_the_clients_server_does_not_take_good_keys_away(remote: Remote):
    remote.server.headers = "Cache-Control: max-age=120\r\n"
    assert (await remote.signed()).status_code == 200
    remote.server.status = "500 Internal Server Error"
    for waited in (31, 31):
        remote.now += waited
        assert (await remote.signed(new_key("another"))).status_code == 400, "a refetch, that fails"
        assert (await remote.signed()).status_code == 200
    assert remote.server.asked == 3
    remote.now += 59
    assert (await remote.signed()).status_code == 400, "until their time is over, no longer"
    remote.server.status = "200 OK"
    remote.now += 31
    assert (await remote.signed()).status_code == 200


async def test_an_unknown_kid_cannot_make_us_hammer_the_client(remote: Remote):
    for n in range(5):
        assert (await remote.signed(new_key(f"guess-{n}"))).status_code == 400
    assert remote.server.asked == 1


async def test_a_fetch_that_fails_is_not_repeated_at_each_request(remote: Remote):
    remote.server.status = "500 Internal Server Error"
    for _ in range(3):
        answer = await remote.signed()
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")
    assert remote.server.asked == 1


async def test_the_same_assertion_is_good_once_also_when_keys_were_fetched_in_between(remote: Remote):
    assertion = remote.smart.assertion("remote", key=remote.key)
    assert (await remote.token(assertion)).status_code == 200
    assert (await remote.token(assertion)).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": "x"}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', b"\xff",
        b"[" * 60000, b'{"keys": [' + b" " * 70000 + b"]}",
    ],
)  # fmt: skip
async def test_what_is_no_jwks_verifies_nothing(remote: Remote, body: bytes):
    remote.server.body = body
    assert (await remote.signed()).json()["error"] == "invalid_client"


async def test_keys_of_others_in_the_same_set_are_left_out(remote: Remote):
    ours = remote.key.as_dict(private=False)
    others = [{"kty": "oct", "k": "AAAA", "kid": "k1"}, ECKey.generate_key("P-256").as_dict(private=False), "x"]
    remote.server.body = json.dumps({"keys": [*others, ours]}).encode()
    assert (await remote.signed()).status_code == 200


async def test_redirects_are_not_followed(remote: Remote):
    remote.server.status = "302 Found"
    remote.server.headers = f"Location: http://127.0.0.1:{remote.server.port}/elsewhere\r\n"
    assert (await remote.signed()).status_code == 400
    assert remote.server.paths == ["/keys"]


async def test_a_slow_server_is_given_up(remote: Remote, monkeypatch: pytest.MonkeyPatch):
    from foramen.identity.oauth import remote_keys
    from foramen.kernel.outbound_addresses import Limits

    monkeypatch.setattr(remote_keys, "LIMITS", Limits(65536, 0.2))
    remote.server.delay_s = 1.0
    assert (await remote.signed()).status_code == 400


async def test_our_own_network_is_not_reached_unless_it_is_allowed(remote: Remote):
    """SSRF: the same client and the same server, without the setting."""
    service = IdentityService(remote.smart.settings, remote.smart.database_url)
    try:
        closed = Remote(remote.smart, service, remote.server, remote.key)
        assert (await closed.signed()).json()["error"] == "invalid_client"
        assert remote.server.asked == 0
    finally:
        await service.stop()


async def test_a_name_that_leads_into_our_network_is_not_followed(remote: Remote):
    remote.register(f"https://localhost.localdomain:{remote.server.port}/keys")
    service = IdentityService(remote.smart.settings, remote.smart.database_url)
    try:
        assert (await Remote(remote.smart, service, remote.server, remote.key).signed()).status_code == 400
        assert remote.server.asked == 0
    finally:
        await service.stop()


async def test_headers_that_name_or_bring_another_key_are_refused(remote: Remote):
    from joserfc import jwt

    def assertion(**header: Any) -> str:
        good = remote.smart.assertion("remote", key=remote.key)
        claims = jwt.decode(good, remote.key, algorithms=["ES384"]).claims
        return jwt.encode({"alg": "ES384", "kid": "k1", **header}, claims, remote.key, algorithms=["ES384"])

    assert (await remote.token(assertion(jku=remote.server.url))).status_code == 200, "SMART: the registered URL"
    own = remote.key.as_dict(private=False)
    for header in (
        {"jku": "https://evil.example/keys"},
        {"jwk": own},
        {"x5u": remote.server.url},
        {"x5c": ["MIIB"]},
        {"kid": ""},
    ):
        answer = await remote.token(assertion(**header))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client"), header
    by_value = remote.smart.assertion()
    claims = jwt.decode(by_value, remote.smart.client_key, algorithms=["ES384"]).claims
    key = remote.smart.client_key
    for header in ({"kid": "asym-1", "jku": "https://evil.example/keys"}, {}):
        signed = jwt.encode({"alg": "ES384", **header}, claims, key, algorithms=["ES384"])
        assert (await remote.token(signed)).status_code == 400, header
    assert (await remote.token(by_value)).status_code == 200
