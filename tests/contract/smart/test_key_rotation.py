"""Rotation of the signing keys while tokens live and several processes verify them."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from typer.testing import CliRunner

from foramen.commands import keys as keys_command
from foramen.identity.app import IdentityService
from foramen.identity.oauth.revocation_list import watch
from foramen.identity.oauth.signing_keys import SigningKeys
from foramen.kernel.errors import NotAuthenticatedError
from foramen.kernel.settings import get_settings
from tests.contract.smart.conftest import App, Smart, sign_in


async def signed_in(smart: Smart, app: App) -> dict:
    browser = smart.browser()
    await sign_in(browser, app)
    return (await app.exchange(browser.answer["code"])).json()


@pytest.fixture
async def second(smart: Smart):
    """Another process of the same installation, as far as keys go: it shares files and database, and no memory."""
    service = IdentityService(smart.settings, smart.database_url)
    yield service
    await service.stop()


def kid(token: str) -> str:
    return str(json.loads(__import__("base64").urlsafe_b64decode(token.split(".")[0] + "=="))["kid"])


@pytest.mark.requirement("openid-connect-core#10.1.1")
async def test_old_tokens_live_on_and_new_ones_are_known_everywhere_at_once(
    smart: Smart, portal: App, second: IdentityService
):
    before = (await signed_in(smart, portal))["access_token"]
    assert second.verifier().verify(before).subject == "surgeon"
    new = SigningKeys(smart.settings.home, 3600).rotate(at_once=True)
    await asyncio.sleep(1.1)
    after = (await signed_in(smart, portal))["access_token"]
    assert kid(after) == new.kid != kid(before)
    for service in (smart.service, second):
        assert service.verifier().verify(after).subject == "surgeon"
        assert service.verifier().verify(before).subject == "surgeon"
    async with smart.http() as http:
        published = KeySet.import_key_set((await http.get("/auth/jwks")).json())
    assert jwt.decode(after, published, algorithms=["ES256"]).claims["sub"] == "surgeon"
    assert jwt.decode(before, published, algorithms=["ES256"]).claims["sub"] == "surgeon"
    assert all("d" not in key for key in published.as_dict(private=False)["keys"])


async def test_after_a_theft_no_process_takes_an_old_token(smart: Smart, portal: App, second: IdentityService):
    before = (await signed_in(smart, portal))["access_token"]
    follow = asyncio.create_task(watch(second._verifier, second._database, 3600, pause_s=0.1))
    assert second.verifier().verify(before).subject == "surgeon"
    SigningKeys(smart.settings.home, 3600).rotate(drop_old=True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            second.verifier().verify(before)
        except NotAuthenticatedError:
            break
        await asyncio.sleep(0.1)
    with pytest.raises(NotAuthenticatedError):
        second.verifier().verify(before)
    follow.cancel()
    await asyncio.sleep(1.1)
    assert second.verifier().verify((await signed_in(smart, portal))["access_token"]).subject == "surgeon"


async def test_an_unknown_kid_of_a_stranger_is_refused(smart: Smart):
    from joserfc.jwk import ECKey

    stranger = ECKey.generate_key("P-256", parameters={"kid": "stranger"}, private=True)
    token = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "stranger"}, {"sub": "x"}, stranger)
    with pytest.raises(NotAuthenticatedError):
        smart.service.verifier().verify(token)


def test_the_command(tmp_path, module_database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_DATABASE_URL", module_database_url)
    get_settings.cache_clear()
    try:
        run = CliRunner().invoke
        first = json.loads(run(keys_command.app, ["list"]).stdout)
        made = json.loads(run(keys_command.app, ["rotate"]).stdout)
        listed = json.loads(run(keys_command.app, ["list"]).stdout)
        assert [(key["kid"], key["state"]) for key in listed if key["alg"] == "ES256"] == [
            (first[0]["kid"], "active"),
            (made["kid"], "next"),
        ]
        last = json.loads(run(keys_command.app, ["rotate", "--compromised"]).stdout)
        output = run(keys_command.app, ["list"]).stdout
        assert [(key["kid"], key["state"]) for key in json.loads(output) if key["alg"] == "ES256"] == [
            (last["kid"], "active")
        ]
        assert '"d"' not in output
    finally:
        get_settings.cache_clear()
