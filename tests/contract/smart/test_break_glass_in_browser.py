"""Break-glass end to end: real Chromium without JavaScript, the real FHIR API, a patient who refuses everybody.

Synthetic data. The one page in both languages, on a desk and on a telephone.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from playwright.async_api import Page, async_playwright

from foramen.identity.database import transaction
from foramen.identity.oauth.operator_token import operator_token
from foramen.identity.people.accounts import require_account
from foramen.identity.rights.permissions import GRANT, change_permission
from foramen.kernel.settings import Settings
from tests.builders.chromium import launched, picture
from tests.contract.smart.conftest import PASSWORD, App
from tests.contract.smart.live_server import live_server

pytestmark = [pytest.mark.browser, pytest.mark.requirement("identity#break-glass")]
CONSENT = {
    "resourceType": "Consent",
    "id": "closed",
    "status": "active",
    "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
    "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
    "patient": {"reference": "Patient/p1"},
    "policyRule": {"text": "SYNTHETIC"},
    "provision": {"type": "deny"},
}


async def _token(settings: Settings, page: Page, callback: str) -> dict[str, str]:
    """Open the app in this browser and exchange its code; returns the token answer."""
    app = App(None, "foreign", callback, "openid fhirUser online_access user/*.rs")  # type: ignore[arg-type]
    parameters = app.parameters(aud=settings.fhir_base)
    await page.goto(f"{settings.origin}/auth/authorize?{httpx.QueryParams(parameters)}")
    if await page.locator("button[value=allow]").count():
        await page.click("button[value=allow]")
    code = dict(parse_qsl(urlsplit(page.url).query))["code"]
    return await _exchange(
        settings,
        grant_type="authorization_code",
        code=code,
        redirect_uri=callback,
        client_id="foreign",
        code_verifier=app.verifier,
    )


async def _exchange(settings: Settings, **form: str) -> dict[str, str]:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{settings.origin}/auth/token", data=form)
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()
    return found


async def _read(settings: Settings, path: str, token: str) -> httpx.Response:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
        return await http.get(f"{settings.fhir_base}/{path}")


async def _refused_soon(settings: Settings, path: str, token: str) -> bool:
    """Whether a revoked token is refused within seconds."""
    import asyncio

    for _ in range(60):
        if (await _read(settings, path, token)).status_code == 401:
            return True
        await asyncio.sleep(0.1)
    return False


async def test_a_closed_record_opens_for_an_emergency_and_closes_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORAMEN_FHIR_CONSENT", "true")
    pictures = Path(os.environ.get("FORAMEN_TEST_ARTEFACTS", tmp_path))
    async with live_server(database_url, tmp_path / "home") as (settings, callback), async_playwright() as playwright:
        operator = operator_token(settings, database_url, "system/*.cruds")
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {operator}"}) as http:
            answer = await http.put(f"{settings.fhir_base}/Consent/closed", json=CONSENT)
            assert answer.status_code == 201, answer.text
        with transaction(database_url) as connection:
            surgeon = require_account(connection, "surgeon")
            change_permission(connection, surgeon, "break-glass", GRANT, reason="SYNTHETIC", decided_by="test")
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await page.set_viewport_size({"width": 1280, "height": 900})
        await page.goto(f"{settings.origin}/auth/break-glass?patient=p1")
        assert "patient=" not in page.url, "the patient does not follow in the URLs of signing in"
        await page.fill("#username", "surgeon")
        await page.fill("#password", PASSWORD)
        await page.click("button[type=submit]")
        assert await page.title() == "紧急访问 · Foramen"
        assert await page.locator("#patient").input_value() == "p1"
        plain = await _token(settings, page, callback)
        assert (await _read(settings, "Patient/p1", plain["access_token"])).status_code == 404

        await page.goto(f"{settings.origin}/auth/break-glass")
        for language, width in (("zh", 1280), ("en", 1280), ("zh", 390), ("en", 390)):
            await page.set_viewport_size({"width": width, "height": 900})
            await page.goto(f"{settings.origin}/auth/break-glass?lang={language}")
            await page.fill("input[name=name]", "SYN")
            await page.click("button[value=search]")
            found = await page.locator("input[name=chosen]").evaluate_all("all => all.map(one => one.value)")
            assert found == ["p2", ""], "who refuses is not in the list"
            await picture(page, pictures / f"break-glass-{language}-{width}.png", full_page=True)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.click("button[value=start]")
        assert await page.locator("text=Choose a reason").count() == 0, "the browser asks for what is missing"
        await page.keyboard.press("Tab")
        await page.check("input[value=unable-to-consent]")
        await page.fill("#text", "SYNTHETIC: brought in unconscious after a fall\nno relatives known")
        await page.fill("#patient", "")
        await page.click("button[value=start]")
        await picture(page, pictures / "break-glass-problem-en-390.png", full_page=True)
        assert await page.locator("[role=alert]").count() == 1
        assert "no relatives known" in await page.locator("#text").input_value(), "nothing is typed twice"
        await page.fill("#patient", "p1")
        await page.click("button[value=start]")
        assert await page.locator("button[name=case]").count() == 1
        assert "SYN p1" in await page.locator("dl").inner_text(), "now it is shown whose record it is"
        for language, width in (("en", 390), ("zh", 390), ("en", 1280), ("zh", 1280)):
            await page.set_viewport_size({"width": width, "height": 900})
            await page.goto(f"{settings.origin}/auth/break-glass?lang={language}")
            await picture(page, pictures / f"break-glass-in-force-{language}-{width}.png", full_page=True)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert (await _read(settings, "Patient/p1", plain["access_token"])).status_code == 404, "a token of before"
        opened = await _exchange(
            settings, grant_type="refresh_token", refresh_token=plain["refresh_token"], client_id="foreign"
        )
        assert (await _read(settings, "Patient/p1", opened["access_token"])).status_code == 200
        searched = await _read(settings, "Patient?_summary=count", opened["access_token"])
        assert searched.json()["total"] == 2

        await page.goto(f"{settings.origin}/auth/break-glass")
        await page.focus("button[name=case]")
        async with page.expect_navigation():
            await page.keyboard.press("Enter")
        assert await page.locator("[role=status]").count() == 1
        await picture(page, pictures / "break-glass-ended-zh.png", full_page=True)
        assert await _refused_soon(settings, "Patient/p1", opened["access_token"])
        closed = await _exchange(
            settings, grant_type="refresh_token", refresh_token=opened["refresh_token"], client_id="foreign"
        )
        assert (await _read(settings, "Patient/p1", closed["access_token"])).status_code == 404
        await page.goto(f"{settings.origin}/auth/account")
        await picture(page, pictures / "account-break-glass-zh.png", full_page=True)
        assert await page.locator("a[href='/auth/break-glass']").count() == 1
        await chromium.close()
