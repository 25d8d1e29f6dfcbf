"""A server that trusts outside providers, and browsers that go there and come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from foramen.identity.database import transaction
from foramen.identity.federation.providers import Provider, parse_settings, save_provider, seal_secret
from foramen.identity.sealing import read_data_keys
from tests.builders.browser import Browser
from tests.contract.smart.outside_provider import CLIENT_ID, SECRET
from tests.contract.smart.people import People, cookie_of

LOOPBACK = {"networks": ["127.0.0.0/8", "::1/128"]}
ROLES = [{"group": "spine-surgeons", "role": "physician"}, {"group": "it", "role": "engineer"}]


def trust(people: People, provider_id: str, issuer: str, *, kind: str = "oidc", **settings: Any) -> None:
    """Configure a provider that makes accounts for members of known groups."""
    keys = read_data_keys(people.settings.home, None)
    values = {"create_accounts": True, "roles": ROLES, **LOOPBACK, **settings}
    oidc = kind == "oidc"
    provider = Provider(
        id=provider_id,
        kind=kind,
        issuer=issuer,
        name_zh="医院集成平台",
        name_en="Hospital platform",
        client_id=CLIENT_ID if oidc else None,
        settings=parse_settings(values),
        sealed_secret=seal_secret(keys, provider_id, SECRET) if oidc else None,
    )
    with transaction(people.database_url) as connection:
        save_provider(connection, provider)


@dataclass
class Traveller:
    """One person's browser, which leaves for the provider and returns."""

    people: People
    browser: Browser

    @classmethod
    def of(cls, people: People) -> Traveller:
        return cls(people, people.browser())

    async def leave(self, provider_id: str = "hospital", page: str = "start", query: str = "") -> str:
        """Go to the provider; returns the address that the browser was sent to there."""
        await self.browser.open(f"/auth/federation/{provider_id}/{page}{query}")
        assert self.browser.redirected_to is not None, self.browser.page.text if self.browser.page else ""
        return self.browser.redirected_to

    async def out_there(self, url: str) -> str:
        """Do at the provider what a browser does; returns the address it is sent back to."""
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.get(url)
        assert response.is_redirect, response.text
        return response.headers["location"]

    async def sign_in(self, provider_id: str = "hospital", query: str = "") -> httpx.Response:
        """Sign in through the provider; returns where that ends."""
        return await self.browser.open(await self.out_there(await self.leave(provider_id, query=query)))

    @property
    def session(self) -> str | None:
        return cookie_of(self.browser)

    async def account(self) -> str | None:
        """Name of the account that the browser is signed in to now."""
        page = await self.browser.http.get("/auth/account")
        if page.status_code != 200:
            return None
        return page.text.split("<dd>", 1)[1].split("</dd>", 1)[0]
