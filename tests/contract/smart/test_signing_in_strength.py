"""How strongly a person signed in: `amr`, `acr`, `auth_time`, and the scope that asks for two factors."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc import jwt

from foramen.identity.app import ensure_user
from foramen.identity.cookies import SESSION
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.clients import PUBLIC, SECRET, Client, generated_secret_hash, save_client
from foramen.identity.people.sessions import start_session
from foramen.kernel.access_context import ADMINISTRATOR
from tests.contract.smart.conftest import ORIGIN, PASSWORD, App, Smart

CALLBACK = f"{ORIGIN}/apps/admin/"
SCOPE = f"openid online_access {ADMINISTRATOR}"


@pytest.fixture(autouse=True)
def administrators(smart: Smart):
    ensure_user(smart.database_url, "root", PASSWORD, "system-administrator")
    ensure_user(smart.database_url, "local", PASSWORD, "institution-administrator")
    with transaction(smart.database_url) as connection:
        save_client(connection, Client("admin-app", PUBLIC, SCOPE, (CALLBACK,), first_party=True))
        save_client(connection, Client("other-app", PUBLIC, "openid", (CALLBACK,), first_party=True))
        secret = generated_secret_hash("drawn-by-us")
        for client_id, scope in (("maintenance", f"system/*.rs {ADMINISTRATOR}"), ("reader", "system/*.rs")):
            save_client(connection, Client(client_id, SECRET, scope, secret_hash=secret))


async def tokens(smart: Smart, name: str, factors: tuple[str, ...], client_id: str = "admin-app") -> dict[str, Any]:
    browser = smart.browser()
    with transaction(smart.database_url) as connection:
        cookie = start_session(connection, name, None, utc_now(), factors=factors)
    browser.http.cookies.set(SESSION, cookie)
    app = App(smart, client_id, CALLBACK, SCOPE)
    await browser.open(app.url())
    body = (await app.exchange(browser.answer["code"])).json()
    body["app"] = app
    return body


def claims(smart: Smart, id_token: str) -> dict[str, Any]:
    return jwt.decode(id_token, smart.service._signer.key_set(), algorithms=["ES256"]).claims


@pytest.mark.parametrize("factors", [("password", "totp"), ("passkey",)])
async def test_a_system_administrator_with_two_factors_may_administer(smart: Smart, factors: tuple[str, ...]):
    body = await tokens(smart, "root", factors)
    assert ADMINISTRATOR in body["scope"].split()
    assert smart.service.verifier().verify(body["access_token"]).has_scope(ADMINISTRATOR)
    again = (await body["app"].refresh(body["refresh_token"])).json()
    assert ADMINISTRATOR in again["scope"].split()
    smart.execute("UPDATE identity.account SET role = 'institution-administrator' WHERE name = 'root'")
    again = (await body["app"].refresh(again["refresh_token"])).json()
    assert ADMINISTRATOR not in again["scope"].split(), "rights follow the role of today"


async def test_others_may_not(smart: Smart):
    for name, factors, client_id in (
        ("local", ("password", "totp"), "admin-app"),
        ("surgeon", ("password", "totp"), "admin-app"),
        ("root", ("password", "totp"), "other-app"),
    ):
        body = await tokens(smart, name, factors, client_id)
        assert ADMINISTRATOR not in body["scope"].split(), (name, client_id)


async def test_one_factor_is_not_enough(smart: Smart):
    """Without the second factor the request leads to setting one up, or to a token without the scope: never to it."""
    browser = smart.browser()
    with transaction(smart.database_url) as connection:
        cookie = start_session(connection, "root", None, utc_now(), factors=("password",))
    browser.http.cookies.set(SESSION, cookie)
    app = App(smart, "admin-app", CALLBACK, SCOPE)
    page = await browser.open(app.url())
    if browser.redirected_to is None:
        assert "/auth/" in str(page.url)
    else:
        body = (await app.exchange(browser.answer["code"])).json()
        assert ADMINISTRATOR not in body["scope"].split()


async def test_services_get_it_when_they_are_registered_with_it(smart: Smart):
    data = {"grant_type": "client_credentials", "scope": f"system/Patient.rs {ADMINISTRATOR}"}
    async with smart.http() as http:
        yes = (await http.post("/auth/token", data=data, auth=("maintenance", "drawn-by-us"))).json()
        no = (await http.post("/auth/token", data=data, auth=("reader", "drawn-by-us"))).json()
    assert yes["scope"] == f"system/Patient.rs {ADMINISTRATOR}"
    assert no["scope"] == "system/Patient.rs"


async def test_the_id_token_says_how_the_person_signed_in(smart: Smart):
    strong = claims(smart, (await tokens(smart, "surgeon", ("password", "totp")))["id_token"])
    assert (strong["amr"], strong["acr"]) == (["mfa", "otp", "pwd"], "https://refeds.org/profile/mfa")
    weak = claims(smart, (await tokens(smart, "surgeon", ("password",)))["id_token"])
    assert (weak["amr"], weak["acr"]) == (["pwd"], "https://refeds.org/profile/sfa")
    passkey = claims(smart, (await tokens(smart, "surgeon", ("passkey",)))["id_token"])
    assert (passkey["amr"], passkey["acr"]) == (["mfa", "pop"], "https://refeds.org/profile/mfa")
    assert abs(weak["auth_time"] - utc_now().timestamp()) < 60
