"""Debian's Chromium under playwright, and pictures of its pages."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.async_api import Browser, Error, Page, Playwright
from playwright.sync_api import Error as SyncError
from playwright.sync_api import Page as SyncPage

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WITH_WEBGL = [*ARGUMENTS, "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""Arguments for pages that draw by WebGL, on a machine without a graphics card."""
# A loaded machine makes Chromium answer "Unable to capture screenshot" although the page is well: it is asked again.
_TRIES = 5


async def launched(playwright: Playwright) -> Browser:
    """Start a browser without a window."""
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


async def picture(page: Page, path: Path, *, full_page: bool = False) -> None:
    """Draw what a page shows into a PNG file."""
    for left in reversed(range(_TRIES)):
        try:
            await page.screenshot(path=path, full_page=full_page)
            return
        except Error as error:
            if left == 0 or "Unable to capture screenshot" not in str(error):
                raise
            await page.wait_for_timeout(500)


def picture_sync(page: SyncPage, path: Path) -> None:
    """Draw what a page shows into a PNG file, in a test that is not asynchronous."""
    for left in reversed(range(_TRIES)):
        try:
            page.screenshot(path=path)
            return
        except SyncError as error:
            if left == 0 or "Unable to capture screenshot" not in str(error):
                raise
            page.wait_for_timeout(500)
