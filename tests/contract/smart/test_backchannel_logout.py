"""Apps are told when a person signs out: OpenID Connect Back-Channel Logout 1.0."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from foramen.identity.database import transaction
from foramen.identity.oauth.backchannel_logout import BackchannelLogout
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.accounts import disable_account, enable_account
from foramen.identity.people.sessions import renew_session
from foramen.kernel.outbound_addresses import parse_networks
from tests.contract.smart.conftest import ORIGIN, App, Smart, sign_in

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass
class Receiver:
    """An app's endpoint: keeps what it is sent, answers as it is told to."""

    url: str = ""
    status: int = 200
    tokens: list[str] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            kept.tokens.append(parse_qs(body)["logout_token"][0])
            kept.arrived.set()
            self.send_response(kept.status)
            self.send_header("location", "http://127.0.0.1:9/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kept.url = f"http://127.0.0.1:{server.server_port}/logout"
    yield kept
    server.shutdown()
    server.server_close()


@pytest.fixture
async def told(smart: Smart, receiver: Receiver) -> AsyncIterator[App]:
    """Our own app that asked to be told, for this test alone."""
    name = f"told-{secrets.token_hex(3)}"
    client = Client(
        name, PUBLIC, "openid fhirUser online_access offline_access", (f"{ORIGIN}/{name}",), first_party=True,
        metadata={"backchannel_logout_uri": receiver.url},
    )  # fmt: skip
    with transaction(smart.database_url) as connection:
        save_client(connection, client)
    yield App(smart, name, f"{ORIGIN}/{name}", "openid fhirUser online_access")
    smart.execute("DELETE FROM identity.logout_notice")
    smart.execute("DELETE FROM identity.app_session")


def deliverer(smart: Smart, networks: str = "127.0.0.0/8") -> BackchannelLogout:
    return BackchannelLogout(smart.service._database, smart.service._signer, parse_networks(networks))


def read(smart: Smart, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    keys = KeySet.import_key_set(smart.service._signer.public_keys())
    decoded = jwt.decode(token, keys, algorithms=["ES256", "RS256"])
    return decoded.header, decoded.claims


async def opened(smart: Smart, app: App, **changes: str):
    """Sign in with the app; returns the browser and the claims of the id_token."""
    browser = smart.browser()
    await sign_in(browser, app, **changes)
    body = (await app.exchange(browser.answer["code"])).json()
    return browser, read(smart, body["id_token"])[1], body


async def signed_out(browser) -> None:
    await browser.open("/auth/logout")
    await browser.submit()


async def test_a_sign_out_tells_the_app_with_a_logout_token(smart: Smart, told: App, receiver: Receiver):
    browser, claims, _ = await opened(smart, told)
    await signed_out(browser)
    assert await deliverer(smart).deliver_once() == 1
    header, notice = read(smart, receiver.tokens[0])
    assert header["typ"] == "logout+jwt"
    assert (notice["iss"], notice["aud"]) == (claims["iss"], told.client_id)
    assert (notice["sub"], notice["sid"]) == ("surgeon", claims["sid"])
    assert notice["events"] == {EVENT: {}}
    assert notice["jti"]
    assert 0 < notice["exp"] - notice["iat"] <= 120
    assert "nonce" not in notice
    assert await deliverer(smart).deliver_once() == 0
    assert len(receiver.tokens) == 1


async def test_a_logout_token_opens_nothing(smart: Smart, told: App, receiver: Receiver):
    browser, _, _ = await opened(smart, told)
    await signed_out(browser)
    await deliverer(smart).deliver_once()
    token = receiver.tokens[0]
    answer = await smart.http().get("/auth/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    other = smart.browser()
    await sign_in(other, told)
    page = await other.open("/auth/logout", params={"id_token_hint": token})
    assert 'name="csrf"' in page.text, "it is no id_token_hint either"


async def test_the_sid_stays_while_the_session_does_and_offline_access_is_told_too(smart: Smart, told: App):
    browser, claims, body = await opened(smart, told, scope="openid offline_access")
    again = await browser.open(told.url())
    assert again is not None
    second = read(smart, (await told.exchange(browser.answer["code"])).json()["id_token"])[1]
    assert second["sid"] == claims["sid"]
    data = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"], "client_id": told.client_id}
    refreshed = (await smart.http().post("/auth/token", data=data)).json()
    assert read(smart, refreshed["id_token"])[1]["sid"] == claims["sid"]
    cookie = {one.name: one.value for one in browser.http.cookies.jar}["foramen-session"]
    with transaction(smart.database_url) as connection:
        renewed = renew_session(connection, digest(str(cookie)))
    rows = smart.execute("SELECT sid::text FROM identity.app_session WHERE session_digest = :d", d=digest(renewed))
    assert rows == [(claims["sid"],)]


async def test_a_locked_account_and_an_administrator_end_it_too(smart: Smart, told: App, receiver: Receiver):
    _, first, _ = await opened(smart, told)
    _, second, _ = await opened(smart, told)
    with transaction(smart.database_url) as connection:
        disable_account(connection, "surgeon")
        enable_account(connection, "surgeon")
    await deliverer(smart).deliver_once()
    assert {read(smart, token)[1]["sid"] for token in receiver.tokens} == {first["sid"], second["sid"]}


async def test_what_is_not_taken_is_tried_again_and_given_up_after_a_day(smart: Smart, told: App, receiver: Receiver):
    browser, _, _ = await opened(smart, told)
    await signed_out(browser)
    for status in (500, 307, 400):
        receiver.status = status
        smart.execute("UPDATE identity.logout_notice SET next_attempt_at = now()")
        assert await deliverer(smart).deliver_once() == 1
        assert await deliverer(smart).deliver_once() == 0, "not at once again"
    assert smart.execute("SELECT attempts FROM identity.logout_notice") == [(3,)]
    assert len({read(smart, token)[1]["jti"] for token in receiver.tokens}) == 1, "one notice, one jti"
    assert len(receiver.tokens) == 3, "the redirect was not followed"
    old = "UPDATE identity.logout_notice SET next_attempt_at = now(), created_at = now() - interval '25 hours'"
    smart.execute(old)
    await deliverer(smart).deliver_once()
    assert smart.execute("SELECT count(*) FROM identity.logout_notice") == [(0,)]
    failed = "SELECT event FROM identity.audit_outbox WHERE event->'subtype'->0->>'code' = 'backchannel-logout'"
    assert "8" in {event["outcome"] for (event,) in smart.execute(failed)}


async def test_an_address_inside_is_not_reached(smart: Smart, told: App, receiver: Receiver):
    browser, _, _ = await opened(smart, told)
    await signed_out(browser)
    assert await deliverer(smart, networks="").deliver_once() == 1
    assert receiver.tokens == []
    assert smart.execute("SELECT attempts FROM identity.logout_notice") == [(1,)]


async def test_the_server_tells_by_itself(smart: Smart, told: App, receiver: Receiver):
    browser, _, _ = await opened(smart, told)
    await signed_out(browser)
    task = asyncio.create_task(deliverer(smart).run(0.05))
    try:
        assert await asyncio.to_thread(receiver.arrived.wait, 10)
        assert len(receiver.tokens) == 1
    finally:
        task.cancel()


async def test_apps_that_did_not_ask_have_no_sid_and_discovery_tells(smart: Smart, portal: App):
    browser, claims, _ = await opened(smart, portal)
    assert "sid" not in claims
    await signed_out(browser)
    assert smart.execute("SELECT count(*) FROM identity.logout_notice") == [(0,)]
    document = (await smart.http().get("/.well-known/openid-configuration")).json()
    assert document["backchannel_logout_supported"] is True
    assert document["backchannel_logout_session_supported"] is True
