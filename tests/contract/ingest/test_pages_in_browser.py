"""The image database in real Chromium: both languages, two widths, with and without scripts, by keyboard."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright

from foramen.ingest.wrap import wrap_volume
from tests.builders.chromium import launched, picture
from tests.builders.dicom import encoded, series, sidecar
from tests.contract.admin.test_pages_in_browser import FAULTS
from tests.contract.ingest.conftest import DOCTOR, MOUNT, Site
from tests.contract.smart.people import PASSWORD


def phantom(seed: int, **changes: object):
    """A SYNTHETIC spine-like picture: vertebrae and discs in rows, so that a thumbnail shows something."""
    y, x = np.mgrid[0:192, 0:160]
    column = np.abs(x - 80 - 10 * np.sin(y / 40)) < 22
    bone = (y % 36) < 26
    plane = 200 + 900 * (column & bone) + 1500 * (column & ~bone) + 40 * ((x + y * seed) % 7)
    volume = np.stack([plane + 20 * index for index in range(3)]).astype(np.uint16)
    return wrap_volume(volume, sidecar(**changes))


@pytest.fixture(scope="module")
async def study(site: Site) -> str:
    names = (("SYN-61", "王^小东"), ("SYN-62", "测试^合成"), ("SYN-63", "SYNTHETIC^Person"))
    found = []
    for number, (patient, name) in enumerate(names):
        await site.add_patient(f"p{number}", patient)
        found.append(await site.stored(*phantom(number, patient_id=patient, patient_name=name)))
    browser = await site.signed_in(DOCTOR)
    for label in ("教学", "L4/5 突出"):
        data = {"csrf": await browser.csrf(), "label": label}
        await browser.http.post(f"{MOUNT}/studies/{found[0]}/labels", data=data)
    return found[0]


async def sign_in(page: Page, origin: str, path: str) -> None:
    await page.goto(f"{origin}{MOUNT}{path}")
    await page.fill("#username", DOCTOR)
    await page.fill("#password", PASSWORD)
    await page.click("button[type=submit]")


@pytest.mark.browser
async def test_every_page_in_both_languages_and_widths(site: Site, study: str):
    pictures, faults = os.environ.get("FORAMEN_TEST_ARTEFACTS"), []
    one = phantom(0, patient_id="SYN-61", patient_name="王^小东")[0].SeriesInstanceUID
    pages = {
        "search": "/",
        "search-none": "/?name=nobody",
        "search-bad": "/?since=x",
        "study": f"/studies/{study}",
        "header": f"/studies/{study}/series/{one}",
        "upload": "/upload",
        "absent": "/studies/1.2.3",
    }
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await sign_in(page, site.settings.origin, "/")
        assert page.url == f"{site.settings.origin}{MOUNT}/"
        for language in ("zh", "en"):
            for name, path in pages.items():
                await page.goto(f"{site.settings.origin}{MOUNT}{path}{'&' if '?' in path else '?'}lang={language}")
                for width in (1280, 390):
                    await page.set_viewport_size({"width": width, "height": 900})
                    if pictures:
                        await page.wait_for_timeout(300)
                        await picture(page, Path(pictures) / f"images-{name}-{language}-{width}.png", full_page=True)
                    faults += [f"{name} {language} {width}: {fault}" for fault in await page.evaluate(FAULTS)]
        await chromium.close()
    assert not faults


@pytest.mark.browser
async def test_the_list_of_what_is_rejected_in_both_languages_and_widths(site: Site):
    """A study with a long note, and one without."""
    browser = await site.signed_in(DOCTOR)
    csrf = await browser.csrf()
    note = "患者移动，第 2 次扫描已重做；请勿用于测量。Moved during the scan, done again. " * 3
    for number, (code, said) in enumerate((("113001", note), ("113038", "")), start=7):
        patient = f"SYN-{number}7"
        await site.add_patient(f"p{number}", patient)
        uid = await site.stored(*phantom(number, patient_id=patient, patient_name="测试^合成", study_date="20260105"))
        form = {"csrf": csrf, "code": code, "note": said}
        answer = await browser.http.post(f"{MOUNT}/studies/{uid}/reject", data=form)
        assert answer.status_code == 303, answer.text
    pictures, faults = os.environ.get("FORAMEN_TEST_ARTEFACTS"), []
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        page = await context.new_page()
        await sign_in(page, site.settings.origin, "/")
        for language, title in (("zh", "已移除"), ("en", "Rejected")):
            await page.goto(f"{site.settings.origin}{MOUNT}/rejected?lang={language}")
            assert await page.locator("h1").inner_text() == title
            assert await page.locator("li.card h2").all_inner_texts() == ["测试合成", "测试合成"]
            for width in (1280, 390):
                await page.set_viewport_size({"width": width, "height": 900})
                if pictures:
                    await page.wait_for_timeout(300)
                    await picture(page, Path(pictures) / f"images-rejected-{language}-{width}.png", full_page=True)
                faults += [f"{language} {width}: {fault}" for fault in await page.evaluate(FAULTS)]
        await chromium.close()
    assert not faults


@pytest.mark.browser
async def test_the_report_of_what_is_out_of_line_in_both_languages_and_widths(site: Site):
    rows = "INSERT INTO dicomweb.drift (study_instance_uid, kind, state, instances, detail, ended_at, trace_id) VALUES "
    for number, (kind, state, ended) in enumerate(
        (
            ("missing-in-archive", "open", "NULL"),
            ("patients-mixed", "open", "NULL"),
            ("late-instances", "mended", "now()"),
            ("record-deleted", "confirmed", "now()"),
        )
    ):
        uid = f"2.25.{number}12345678901234567890123456789012345678"
        site.execute(rows + f"('{uid}', '{kind}', '{state}', {number + 3}, '{{}}', {ended}, repeat('0', 32))")
    cookies = [
        {"name": cookie.name, "value": cookie.value or "", "url": site.settings.origin}
        for cookie in (await site.keeper()).http.cookies.jar
    ]
    pictures, faults = os.environ.get("FORAMEN_TEST_ARTEFACTS"), []
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="zh-CN")
        await context.add_cookies(cookies)
        page = await context.new_page()
        for language, title in (("zh", "归档核对"), ("en", "Reconciliation")):
            await page.goto(f"{site.settings.origin}{MOUNT}/drift?lang={language}")
            assert await page.locator("h1").inner_text() == title
            for width in (1280, 390):
                await page.set_viewport_size({"width": width, "height": 900})
                if pictures:
                    await picture(page, Path(pictures) / f"images-drift-{language}-{width}.png", full_page=True)
                faults += [f"{language} {width}: {fault}" for fault in await page.evaluate(FAULTS)]
        await chromium.close()
    assert not faults


@pytest.mark.browser
async def test_an_upload_with_its_progress_and_one_without_scripts(site: Site, study: str, tmp_path: Path):
    pictures = os.environ.get("FORAMEN_TEST_ARTEFACTS")
    (tmp_path / "good.dcm").write_bytes(encoded(series(1, seed=64, patient_id="SYN-61")[0]))
    (tmp_path / "noise.bin").write_bytes(bytes(400))
    files = [tmp_path / "good.dcm", tmp_path / "noise.bin"]
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        for scripts in (True, False):
            context = await chromium.new_context(java_script_enabled=scripts, locale="zh-CN")
            page = await context.new_page()
            errors: list[str] = []
            page.on(
                "console", lambda message, seen=errors: seen.append(message.text) if message.type == "error" else None
            )
            await sign_in(page, site.settings.origin, "/")
            await page.goto(f"{site.settings.origin}{MOUNT}/upload")
            assert await page.locator("#drop").is_visible() is scripts
            await page.set_input_files("#files", files)
            await page.click("form#upload-form button[type=submit]")
            await page.wait_for_selector("#report table")
            text = await page.locator("#report").inner_text()
            assert "2 个文件，已存储 1 个实例；1 个文件有被拒绝的内容。" in text
            assert "不是 DICOM 文件" in text
            assert not errors
            if pictures:
                for width in (1280, 390):
                    await page.set_viewport_size({"width": width, "height": 900})
                    await picture(page, Path(pictures) / f"images-report-{scripts}-{width}.png", full_page=True)
        await chromium.close()


@pytest.mark.browser
async def test_a_label_is_added_by_keyboard_alone(site: Site, study: str):
    async with async_playwright() as playwright:
        chromium = await launched(playwright)
        context = await chromium.new_context(java_script_enabled=False, locale="en-US")
        page = await context.new_page()
        await sign_in(page, site.settings.origin, "/")
        await page.goto(f"{site.settings.origin}{MOUNT}/studies/{study}?lang=en")
        await page.keyboard.press("Tab")
        assert await page.evaluate("() => document.activeElement.className") == "skip"
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await page.evaluate("() => document.activeElement.id") == "label":
                break
        await page.keyboard.type("by keyboard")
        async with page.expect_navigation():
            await page.keyboard.press("Enter")
        assert await page.locator("[role=status]").inner_text() == "The label was added."
        assert "by keyboard" in await page.locator("main").inner_text()
        await chromium.close()
