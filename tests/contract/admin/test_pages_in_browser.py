"""The pages in real Chromium without JavaScript: both languages, two widths, by keyboard alone, and their structure."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pyotp
import pytest
from playwright.async_api import Page, async_playwright

from foramen.kernel.settings import Settings
from tests.builders.chromium import launched, picture
from tests.contract.admin.live_admin import live_admin
from tests.contract.smart.people import PASSWORD

PICTURES = {
    "overview": "/",
    "accounts": "/accounts",
    "accounts-none": "/accounts?q=nobody",
    "account-new": "/accounts/new",
    "account": "/accounts/north-doctor",
    "account-edit": "/accounts/north-doctor/edit",
    "account-disable": "/accounts/north-doctor/disable",
    "account-reset": "/accounts/north-doctor/reset-second-factor",
    "account-link": "/accounts/north-doctor/password-link",
    "account-permissions": "/accounts/north-doctor/permissions",
    "account-revert": "/accounts/north-doctor/permissions/annotate/revert",
    "history": "/accounts/north-doctor/history",
    "permissions": "/permissions",
    "roles": "/roles",
    "delegations": "/delegations",
    "institutions": "/institutions",
    "institution-new": "/institutions/new",
    "institution": "/institutions/north",
    "sessions": "/sessions",
    "authorizations": "/authorizations",
    "clients": "/clients",
    "client-new": "/clients/new",
    "client": "/clients/portal",
    "client-disable": "/clients/portal/disable",
    "policies": "/policies?account=north-doctor&type=CarePlan&action=c",
    "policy": "/policies/files/decision.rego",
    "policy-tests": "/policies/tests",
    "audit": "/audit?account=boss",
    "break-glass": "/break-glass",
    "break-glass-all": "/break-glass?all=1",
    "model-watches": "/model-watch",
    "model-watch": "/model-watch/watch-2",
    "model-watch-few": "/model-watch/watch-north",
    "health": "/health",
    "absent": "/accounts/nobody",
}

# Runs in an isolated world of the test: what axe-core asks first (WCAG 2.2 1.3.1, 2.4.1, 2.4.2, 3.1.1, 4.1.2, 1.4.10).
FAULTS = """() => {
  const faults = [], named = (e) => (e.getAttribute('aria-label') || e.textContent || e.title || '').trim();
  const seen = (e) => e.getClientRects().length > 0;
  if (!document.documentElement.lang) faults.push('no language');
  if (document.querySelectorAll('main').length !== 1) faults.push('not one main');
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  for (const e of document.querySelectorAll('a, button'))
    if (!named(e)) faults.push('unnamed ' + e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
    if (seen(e) && !(e.labels && e.labels.length) && !e.getAttribute('aria-label')) faults.push('no label ' + e.name);
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push('double id');
  for (const e of document.querySelectorAll('[aria-describedby], [aria-labelledby]'))
    for (const id of (e.getAttribute('aria-describedby') || e.getAttribute('aria-labelledby')).split(' '))
      if (!document.getElementById(id)) faults.push('describes nothing ' + id);
  for (const e of document.querySelectorAll('table'))
    if (!e.querySelector('thead th[scope=col]')) faults.push('table without heads');
  let level = 0;
  for (const e of document.querySelectorAll('h1, h2, h3')) {
    if (Number(e.tagName[1]) > level + 1) faults.push('heading skipped ' + e.textContent);
    level = Number(e.tagName[1]);
  }
  for (const e of document.querySelectorAll('nav[aria-label]'))
    if (innerWidth < 800 && e.getBoundingClientRect().height > 96) faults.push('navigation fills the screen');
  if (document.documentElement.scrollWidth > window.innerWidth + 1) faults.push('wider than the window');
  for (const e of document.querySelectorAll('th, td, .card, .cards li'))
    if (seen(e) && e.scrollWidth > e.clientWidth + 1)
      faults.push('runs over its cell ' + e.textContent.trim().slice(0, 30));
  for (const e of document.querySelectorAll('nav a, .row a, button')) {
    const box = e.getBoundingClientRect();
    if (seen(e) && (box.height < 24 || box.width < 24)) faults.push('small target ' + named(e));
  }
  const light = (c) => { const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map((v) => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/rgba\\(.*, 0\\)/.test(c) && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
  for (const e of document.querySelectorAll('main *, header *, nav *, footer'))
    if (seen(e) && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && !(e.closest('svg'))) {
      const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < 4.5) faults.push('contrast ' + e.tagName + ' ' + e.textContent.trim().slice(0, 30));
    }
  return faults;
}"""


async def _sign_in(page: Page, origin: str, path: str, name: str) -> None:
    """Sign in with the second factor set up on the way; ends on the page that was wanted."""
    await page.goto(f"{origin}/apps/admin{path}")
    await page.fill("#username", name)
    await page.fill("#password", PASSWORD)
    await page.click("button[type=submit]")
    otp = pyotp.TOTP((await page.locator("code.secret").inner_text()).replace(" ", ""))
    await page.fill("input[name=code]", otp.now())
    await page.click("button[type=submit]")
    await page.click("a.primary, main a, main button[type=submit]")


@pytest.fixture(scope="module")
async def live(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settings]:
    """One server for both tests."""
    async with live_admin(module_database_url, tmp_path_factory.mktemp("home")) as settings:
        yield settings


@pytest.mark.browser
async def test_every_page_in_both_languages_and_widths(live: Settings):
    pictures = os.environ.get("FORAMEN_TEST_ARTEFACTS")  # a folder, to look at them
    faults: list[str] = []
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await _sign_in(page, live.origin, "/accounts", "boss")
        assert page.url == f"{live.origin}/apps/admin/accounts", page.url
        for language in ("zh", "en"):
            for name, path in PICTURES.items():
                joint = "&" if "?" in path else "?"
                answer = await page.goto(f"{live.origin}/apps/admin{path}{joint}lang={language}")
                assert answer is not None
                assert answer.status == (404 if name == "absent" else 200), name
                for width in (1280, 390):
                    await page.set_viewport_size({"width": width, "height": 900})
                    if pictures:
                        file = Path(pictures) / f"admin-{name}-{language}-{width}.png"
                        await picture(page, file, full_page=True)
                    faults += [f"{name} {language} {width}: {fault}" for fault in await page.evaluate(FAULTS)]
        await chromium.close()
    assert not faults


@pytest.mark.browser
async def test_an_account_is_disabled_and_the_step_undone_by_keyboard_alone(live: Settings):
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="en-US")
        page = await context.new_page()
        await _sign_in(page, live.origin, "/", "deputy")

        async def press_on(words: str) -> None:
            """Walk with the tab key to the thing named so, see that the focus shows, and press Enter."""
            for _ in range(80):
                await page.keyboard.press("Tab")
                said = await page.evaluate("() => (document.activeElement.textContent || '').trim()")
                if said == words:
                    outline = await page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
                    assert outline == "solid"
                    async with page.expect_navigation():
                        await page.keyboard.press("Enter")
                    return
            raise AssertionError(f"the tab key does not reach {words}")

        await page.keyboard.press("Tab")
        assert await page.evaluate("() => document.activeElement.className") == "skip"
        await press_on("Accounts")
        await press_on("north-doctor")
        await press_on("Disable")
        assert await page.locator("h1").inner_text() == "Disable the account north-doctor?"
        await press_on("Disable")
        assert "disabled" in await page.locator("h1").inner_text()
        assert await page.locator("[role=status]").first.inner_text() != ""
        await press_on("Undo this")
        assert "active" in await page.locator("h1").inner_text()
        await chromium.close()
