"""The launcher in real Chromium without JavaScript: sign-in, walk and faults, both languages, wide and narrow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

from tests.builders.chromium import launched, picture
from tests.contract.launcher.conftest import PASSWORD, Site

WIDTHS = (1280, 390)


async def fits(page: Page) -> bool:
    """Whether nothing sticks out sideways."""
    inner, outer = page.locator("html"), page.viewport_size
    assert outer is not None
    return int((await inner.bounding_box())["width"]) <= outer["width"]  # type: ignore[index]


async def look(page: Page, pictures: Path, name: str) -> None:
    """A page that scrolls sideways fails, at both widths; pictures where they are asked for."""
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 900})
        if "FORAMEN_TEST_ARTEFACTS" in os.environ:  # pictures of long pages take their time
            await picture(page, pictures / f"launcher-{name}-{width}.png", full_page=True)
        assert await fits(page), (name, width)
    await page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.browser
async def test_the_whole_walk_without_javascript(site: Site, tmp_path: Path):
    pictures = Path(os.environ.get("FORAMEN_TEST_ARTEFACTS", tmp_path))
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await page.goto(f"{site.origin}/apps/launcher/")
        await page.fill("#username", "surgeon")
        await page.fill("#password", PASSWORD)
        await page.click("button[type=submit]")
        assert await page.title() == "启动试验台 · Foramen"
        await page.select_option("#patient", "p1")
        await page.click("button[value=encounters]")
        assert await page.locator("#encounter option").count() == 2
        await page.select_option("#encounter", "e-p1")
        await look(page, pictures, "choose-zh")
        async with context.expect_page() as opened:
            await page.click("button[value=open]")
        trial = await opened.value
        await trial.wait_for_load_state()
        await look(trial, pictures, "ready-zh")
        await trial.click("button[value=authorize]")
        assert await trial.locator("button[value=allow]").count() == 1  # consent, and no password again
        await trial.click("button[value=allow]")
        for step in ("patient", "studies", "introspection", "refresh", "revocation"):
            await trial.click(f"button[value={step}]")
            assert await trial.locator(f"[data-step={step}]").last.get_attribute("data-status") == "200"
        await look(trial, pictures, "walk-zh")
        await trial.click("footer a")
        assert await trial.title() == "Launcher · Foramen"
        await look(trial, pictures, "walk-en")
        await page.goto(f"{site.origin}/apps/launcher/")
        await page.check("input[value=standalone]")
        await page.select_option("#fault", "pkce-plain")
        await page.click("button[value=show]")
        await page.click("button[value=authorize]")
        assert await page.locator("li.bad").count() == 1
        await look(page, pictures, "fault-en")
        await page.goto(f"{site.origin}/apps/launcher/")
        await look(page, pictures, "choose-en")
        await page.check("input[value=backend]")
        await page.click("button[value=show]")
        await look(page, pictures, "backend-en")
        await page.goto(f"{site.origin}/apps/launcher/")
        await page.select_option("#patient", "p2")
        await page.select_option("#app", "growth")
        await page.check("input[value=ehr]")
        await page.click("button[value=show]")
        await look(page, pictures, "launched-en")
        await page.goto(f"{site.origin}/apps/launcher/app?iss=https://evil.example/fhir&launch=x")
        assert await page.locator("[role=alert]").count() == 1
        await look(page, pictures, "unknown-iss-en")
        await chromium.close()
