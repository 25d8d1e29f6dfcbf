"""In real Chromium without JavaScript: sign in at the platform, open two apps, sign out there: all is over."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright

from foramen.identity.database import transaction
from foramen.identity.federation.providers import Provider, parse_settings, save_provider, seal_secret
from foramen.identity.sealing import read_data_keys
from foramen.kernel.settings import Settings
from tests.builders.chromium import launched, picture
from tests.contract.smart.conftest import PASSWORD
from tests.contract.smart.federation_people import LOOPBACK, ROLES
from tests.contract.smart.live_server import live_server
from tests.contract.smart.outside_provider import CLIENT_ID, SECRET, OutsideProvider, outside_provider

SCOPE = "openid fhirUser profile online_access user/Patient.rs"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 780}


def trust(settings: Settings, database_url: str, outside: OutsideProvider) -> None:
    secret = seal_secret(read_data_keys(settings.home, None), "hospital", SECRET)
    values = parse_settings({"create_accounts": True, "roles": ROLES, "name_claim": "preferred_username", **LOOPBACK})
    names = ("市第一人民医院集成平台（示例）", "City hospital platform (example)")
    with transaction(database_url) as connection:
        save_provider(connection, Provider("hospital", "oidc", outside.issuer, *names, CLIENT_ID, True, values, secret))


async def open_app(page: Page, settings: Settings, client_id: str, redirect_uri: str) -> tuple[str, str]:
    """Open an app as its sign-in does; returns the code it was given and its verifier, or the page where it stopped."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": SCOPE,
        "state": "s",
        "aud": settings.fhir_base,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    await page.goto(f"{settings.origin}/auth/authorize?{urlencode(query)}")
    return parse_qs(urlsplit(page.url).query).get("code", [""])[0], verifier


async def token(settings: Settings, client_id: str, redirect_uri: str, code: str, verifier: str) -> dict[str, str]:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "client_id": client_id}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{settings.origin}/auth/token", data={**form, "code_verifier": verifier})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def reads(settings: Settings, tokens: dict[str, str]) -> int:
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        return (await http.get(f"{settings.fhir_base}/Patient?_count=1")).status_code


async def pictures(page: Page, folder: Path, name: str) -> None:
    if "FORAMEN_TEST_ARTEFACTS" not in os.environ:
        return  # pictures are for people
    for size, width in ((WIDE, "wide"), (NARROW, "phone")):
        await page.set_viewport_size(size)
        await picture(page, folder / f"federation-{name}-{width}.png", full_page=True)
    await page.set_viewport_size(WIDE)


@dataclass
class Place:
    """Where both tests happen: one server, one platform, one Chromium."""

    settings: Settings
    outside: OutsideProvider
    chromium: Browser
    folder: Path

    async def page(self) -> Page:
        """A new browser without scripts."""
        context = await self.chromium.new_context(java_script_enabled=False, locale="zh-CN", viewport=WIDE)
        return await context.new_page()


@pytest.fixture(scope="module")
async def place(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("federation")
    async with (
        live_server(module_database_url, folder / "home") as (settings, _),
        outside_provider(page=True) as outside,
        async_playwright() as playwright,
    ):
        trust(settings, module_database_url, outside)
        outside.backchannel = f"{settings.origin}/auth/federation/hospital/backchannel-logout"
        chromium = await launched(playwright)
        yield Place(settings, outside, chromium, Path(os.environ.get("FORAMEN_TEST_ARTEFACTS", folder)))
        await chromium.close()


@pytest.mark.browser
async def test_one_sign_in_two_apps_and_one_sign_out(place: Place):
    settings, outside, folder = place.settings, place.outside, place.folder
    outside.behave()
    outside.person = {"sub": "e-1", "groups": ["spine-surgeons"], "preferred_username": "li.wei"}
    portal, review = f"{settings.origin}/", f"{settings.origin}/apps/result-review/"
    page = await place.page()
    assert (await open_app(page, settings, "portal", portal))[0] == ""
    await pictures(page, folder, "login-zh")
    await page.click("footer a")
    await pictures(page, folder, "login-en")
    await page.click("text=Sign in with City hospital platform")
    assert await page.title() == "SYNTHETIC platform"
    await page.click("button")  # the one time that somebody signs in
    code = parse_qs(urlsplit(page.url).query)["code"][0]
    assert page.url.startswith(portal)
    first, verifier = await open_app(page, settings, "portal", portal)
    second, other_verifier = await open_app(page, settings, "result-review", review)
    assert code, first
    tokens = [
        await token(settings, "portal", portal, first, verifier),
        await token(settings, "result-review", review, second, other_verifier),
    ]
    assert [await reads(settings, item) for item in tokens] == [200, 200]
    await page.goto(f"{settings.origin}/auth/federation")
    await pictures(page, folder, "managed-en")
    await page.goto(f"{outside.issuer}/logout")
    assert await page.title() == "signed out there"
    await asyncio.sleep(2.5)  # revocation reaches the verifiers within seconds
    assert [await reads(settings, item) for item in tokens] == [401, 401]
    await open_app(page, settings, "portal", portal)
    assert "/auth/login" in page.url


@pytest.mark.browser
async def test_linking_refusal_and_signing_out_through_the_platform(place: Place):
    settings, outside, folder = place.settings, place.outside, place.folder
    outside.behave()
    outside.person = {"sub": "e-2", "groups": ["canteen"]}
    page = await place.page()
    await page.goto(f"{settings.origin}/auth/login?then=account")
    await page.click("ul.outside a")
    await page.click("button")
    assert await page.locator("[role=alert]").count() == 1
    await pictures(page, folder, "refused-zh")
    await page.goto(f"{page.url.split('?')[0]}?lang=en")
    await pictures(page, folder, "refused-en")
    await page.goto(f"{settings.origin}/auth/login?then=account&lang=zh")
    await page.fill("#username", "surgeon")
    await page.fill("#password", PASSWORD)
    await page.click("button[type=submit]")
    await page.click("a[href$='/auth/federation']")
    await pictures(page, folder, "links-zh")
    await page.click("a[href$='/hospital/link']")
    await pictures(page, folder, "link-zh")
    await page.keyboard.press("Tab")
    outside.behave()
    await page.click("form button.primary")  # CSP form-action lets it through to the platform
    await page.click("button")
    assert await page.locator("[role=status]").inner_text() == "已关联。"
    await pictures(page, folder, "linked-zh")
    await page.goto(f"{page.url}&lang=en")
    await pictures(page, folder, "linked-en")
    await page.goto(f"{settings.origin}/auth/logout")
    await page.click("form button")
    await page.goto(f"{settings.origin}/auth/login?then=account&lang=zh")
    await page.click("ul.outside a")
    assert page.url.endswith("/auth/account"), page.url
    await page.goto(f"{settings.origin}/auth/logout?lang=en")
    await page.click("form button")
    await page.wait_for_url("**/signed-out?*")  # by way of the platform, without a script
    assert "signed out" in (await page.inner_text("h1")).lower()
    await page.goto(f"{settings.origin}/auth/account")
    assert "/auth/login" in page.url
