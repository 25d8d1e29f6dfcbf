"""Encounter picker and consent page in real Chromium without JavaScript: narrowed with the keyboard."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.async_api import Page, async_playwright

from foramen.identity.database import transaction
from foramen.identity.oauth.consents import consents_of
from tests.builders.chromium import launched, picture
from tests.contract.smart.conftest import PASSWORD
from tests.contract.smart.live_server import live_server

LABORATORY = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
SCOPE = (
    f"launch/patient launch/encounter openid fhirUser offline_access patient/Observation.rs?category={LABORATORY} "
    "patient/DiagnosticReport.rs user/Observation.rus user/CarePlan.cu"
)


def parameters(callback: str, audience: str) -> str:
    return urlencode(
        {
            "response_type": "code",
            "client_id": "foreign",
            "redirect_uri": callback,
            "scope": SCOPE,
            "state": "s",
            "aud": audience,
            "code_challenge": "c" * 43,
            "code_challenge_method": "S256",
        }
    )


async def checked(page: Page) -> list[str]:
    boxes = page.locator("label.choice input:checked")
    return [str(await box.get_attribute("name")) for box in await boxes.all()]


@pytest.mark.browser
async def test_a_person_narrows_with_the_keyboard_what_an_app_may_do(database_url: str, tmp_path: Path):
    pictures = Path(os.environ.get("FORAMEN_TEST_ARTEFACTS", tmp_path))
    async with live_server(database_url, tmp_path / "home") as (settings, callback), async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await page.goto(f"{settings.origin}/auth/authorize?{parameters(callback, settings.fhir_base)}")
        await page.fill("#username", "surgeon")
        await page.fill("#password", PASSWORD)
        await page.keyboard.press("Enter")
        await page.click("button[value=p2]")
        await picture(page, pictures / "encounter-zh.png")
        assert await page.title() == "选择就诊 · Foramen"
        await page.click("button[value=visit]")
        assert await page.title() == "授权访问 · Foramen"
        await picture(page, pictures / "consent-narrow-zh.png", full_page=True)
        await page.click("footer a")
        await picture(page, pictures / "consent-narrow-en.png", full_page=True)
        assert await page.locator("legend").all_inner_texts() == [
            *("Look at", "Create, change or delete", "Who you are", "Stay connected"),
        ]
        assert "SYN p2" in await page.locator("dl.about").inner_text()
        everything = await checked(page)
        await page.keyboard.press("Tab")  # The first thing on the page that takes the keyboard is the first choice.
        await page.keyboard.press("Space")
        left = await checked(page)
        assert everything[0].startswith("allow:patient/Observation.rs?category=")
        assert left == everything[1:]
        await page.set_viewport_size({"width": 360, "height": 720})
        await picture(page, pictures / "consent-phone-en.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await page.keyboard.press("Enter")
        await page.wait_for_url(lambda url: url.startswith(f"{callback}?code="), timeout=10_000)
        with transaction(database_url) as connection:
            (agreed,) = consents_of(connection, "surgeon")
        assert agreed.asked == SCOPE
        assert set(agreed.asked.split()) - set(agreed.agreed.split()) == {everything[0].removeprefix("allow:")}
        await chromium.close()
