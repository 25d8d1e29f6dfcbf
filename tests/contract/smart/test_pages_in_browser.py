"""The pages in real Chromium without JavaScript: sign-in, patient, consent, and back to an app on another origin."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.async_api import async_playwright

from tests.builders.chromium import launched, picture
from tests.contract.smart.conftest import PASSWORD
from tests.contract.smart.live_server import live_server


@pytest.mark.browser
async def test_sign_in_picker_and_consent_lead_back_to_a_foreign_app(database_url: str, tmp_path: Path):
    pictures = Path(os.environ.get("FORAMEN_TEST_ARTEFACTS", tmp_path))
    async with live_server(database_url, tmp_path / "home") as (settings, callback), async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        parameters = {
            "response_type": "code",
            "client_id": "foreign",
            "redirect_uri": callback,
            "scope": "launch/patient openid fhirUser offline_access patient/Observation.rs patient/DiagnosticReport.rs",
            "state": "s",
            "aud": settings.fhir_base,
            "code_challenge": "c" * 43,
            "code_challenge_method": "S256",
        }
        await page.goto(f"{settings.origin}/auth/authorize?{urlencode(parameters)}")
        await picture(page, pictures / "login-zh.png")
        assert await page.title() == "登录 · Foramen"
        await page.fill("#username", "surgeon")
        await page.fill("#password", "wrong password")
        await page.click("button[type=submit]")
        await picture(page, pictures / "login-failed-zh.png")
        assert await page.locator("[role=alert]").count() == 1
        await page.click("footer a")
        assert await page.title() == "Sign in · Foramen"
        await picture(page, pictures / "login-en.png")
        await page.fill("#username", "surgeon")
        await page.fill("#password", PASSWORD)
        await page.click("button[type=submit]")
        await picture(page, pictures / "patient-en.png")
        await page.click("button[value=p2]")
        await picture(page, pictures / "consent-en.png")
        assert await page.locator("label.choice input:checked").count() == 5
        await page.click("footer a")
        await picture(page, pictures / "consent-zh.png")
        await page.click("button[value=allow]")
        assert page.url.startswith(f"{callback}?code=")
        assert await page.title() == "back at the app"
        await page.goto(f"{settings.origin}/auth/authorize?client_id=nobody")
        await picture(page, pictures / "error-zh.png")
        await page.set_viewport_size({"width": 360, "height": 640})
        await page.goto(f"{settings.origin}/auth/logout")
        await picture(page, pictures / "logout-phone.png")
        await chromium.close()
