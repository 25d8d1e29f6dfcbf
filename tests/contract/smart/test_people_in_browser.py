"""The pages of a second factor, passkeys and the account in real Chromium, passkeys by its virtual authenticator (CDP).

https://chromedevtools.github.io/devtools-protocol/tot/WebAuthn/
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from granian.constants import Interfaces
from granian.server.embed import Server
from playwright.async_api import Browser as Chromium
from playwright.async_api import Page, async_playwright

from tests.builders.chromium import launched, picture
from tests.contract.smart.live_server import free_port
from tests.contract.smart.people import PASSWORD, People, otp_of, people_server

pytestmark = pytest.mark.browser


@asynccontextmanager
async def served(database_url: str, home: Path) -> AsyncIterator[tuple[People, Chromium]]:
    port = free_port()
    async with people_server(database_url, home, public_url=f"http://localhost:{port}") as people:
        server = Server(people.app, address="127.0.0.1", port=port, interface=Interfaces.ASGINL, log_enabled=False)
        task = asyncio.create_task(server.serve())
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        try:
            async with async_playwright() as playwright:
                yield people, await launched(playwright)
        finally:
            server.stop()
            await task


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get("FORAMEN_TEST_ARTEFACTS", tmp_path))


async def enter(page: Page) -> None:
    """Send the form with the keyboard."""
    async with page.expect_navigation():
        await page.keyboard.press("Enter")


async def type_password(page: Page, people: People, name: str, then: str = "?then=account") -> None:
    await page.goto(f"{people.settings.origin}/auth/login{then}")
    await page.fill("#username", name)
    await page.fill("#password", PASSWORD)
    await enter(page)


async def test_an_administrator_sets_up_an_app_without_any_script(database_url: str, tmp_path: Path, pictures: Path):
    async with served(database_url, tmp_path / "home") as (people, chromium):
        people.add("admin", "system-administrator")
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await type_password(page, people, "admin")
        assert await page.title() == "设置第二步验证 · Foramen"
        await picture(page, pictures / "enrol-zh.png", full_page=True)
        otp = otp_of(await page.content())
        box = await page.locator(".qr svg").bounding_box()
        assert box is not None
        assert box["width"] > 180  # large enough to scan
        assert await page.evaluate("document.activeElement.id") == "code"  # keyboard: ready to type
        await page.keyboard.type(otp.now())
        await enter(page)
        assert await page.title() == "恢复码 · Foramen"
        await picture(page, pictures / "recovery-zh.png", full_page=True)
        code = await page.locator(".codes code").first.text_content()
        await page.click("a.go")
        assert await page.title() == "我的账号 · Foramen"
        await picture(page, pictures / "account-zh.png", full_page=True)
        await page.click("a[lang=en]")
        assert await page.title() == "My account · Foramen"
        await picture(page, pictures / "account-en.png", full_page=True)
        await page.set_viewport_size({"width": 360, "height": 640})
        await picture(page, pictures / "account-phone.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await page.set_viewport_size({"width": 1280, "height": 800})
        await context.clear_cookies()
        await type_password(page, people, "admin")
        assert await page.title() == "第二步验证 · Foramen"
        await picture(page, pictures / "second-factor-zh.png")
        await page.keyboard.type(code or "")
        await enter(page)
        assert page.url.endswith("/auth/account")


async def test_a_passkey_of_a_real_browser(database_url: str, tmp_path: Path, pictures: Path):
    async with served(database_url, tmp_path / "home") as (people, chromium):
        people.add("admin", "system-administrator")
        context = await chromium.new_context(locale="en-US")
        page = await context.new_page()
        faults: list[str] = []
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        cdp = await context.new_cdp_session(page)
        await cdp.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "ctap2Version": "ctap2_1",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        authenticator = (await cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options}))["authenticatorId"]
        await type_password(page, people, "admin")
        await page.click("text=Use a passkey instead")
        await picture(page, pictures / "enrol-passkey-en.png")
        await page.fill("#name", "Laptop")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".codes")
        credentials = (await cdp.send("WebAuthn.getCredentials", {"authenticatorId": authenticator}))["credentials"]
        assert [(item["isResidentCredential"], item["rpId"]) for item in credentials] == [(True, "localhost")]
        await page.click("a.go")
        assert "Laptop" in await page.content()
        await context.clear_cookies()

        await page.goto(f"{people.settings.origin}/auth/login?then=account")
        await picture(page, pictures / "login-passkey-en.png")
        await page.click("text=Sign in without a password")
        await page.wait_for_load_state()
        await picture(page, pictures / "passkey-en.png")
        assert await page.evaluate("document.activeElement.tagName") == "BUTTON"
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/auth/account")
        assert await page.title() == "My account · Foramen"
        assert people.execute("SELECT factors FROM identity.session WHERE factors = '[\"passkey\"]'")

        await cdp.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": False})
        await context.clear_cookies()
        await page.goto(f"{people.settings.origin}/auth/passkey?then=account")
        await page.wait_for_selector("button:not([disabled])")
        await page.keyboard.press("Enter")
        await page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('Cancelled')")
        await picture(page, pictures / "passkey-cancelled-en.png")
        assert not [fault for fault in faults if "Content Security Policy" in fault or "Error" in fault], faults


async def test_without_scripts_the_passkey_page_says_what_to_do(database_url: str, tmp_path: Path, pictures: Path):
    async with served(database_url, tmp_path / "home") as (people, chromium):
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await page.goto(f"{people.settings.origin}/auth/passkey")
        await picture(page, pictures / "passkey-noscript-zh.png")
        assert await page.locator("button").is_disabled()
        assert "改用密码登录" in (await page.locator("main").inner_text())
