"""The apps on a phone, in the other language, and with a result whose model was recalled; in real Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ai_services.models.recall import Marked, Recall, mark, written_by
from foramen.demo.cohort import ISSUER, PRACTITIONER, cohort_bundle, demo_patients
from foramen.demo.studies import phantom_study
from foramen.ingest.send import send_instances
from foramen.kernel.fhir_client import FhirClient
from tests.builders.chromium import CHROMIUM, WITH_WEBGL, picture_sync
from tests.builders.system import System, search, wait_for

pytestmark = [pytest.mark.system, pytest.mark.browser]

SURGEON, PASSWORD = "surgeon-of-the-screens", "correct horse battery staple"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
TARGET_PX = 40
# What a finger has to hit and can see; a text field inside a box that is tall enough does not count.
SMALL = """(least) => [...document.querySelectorAll(
  'button, a.ant-btn, .ant-segmented-item, .ant-select, .ant-input-affix-wrapper, .ant-input-number')]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }))
  .map((e) => [e.textContent || e.getAttribute('aria-label') || e.className, e.getBoundingClientRect()])
  .filter(([, box]) => box.width > 0 && box.height > 0 && box.height < least)
  .map(([name, box]) => `${name.trim()} ${box.height} px high`)"""


@pytest.fixture(scope="module")
def patients(system: System) -> list[str]:
    """Two SYNTHETIC patients, each with an analysed study; returns their ids."""
    studies = [phantom_study(ISSUER, seed=seed) for seed in (71, 72)]
    people = demo_patients([study.patient_id for study in studies])[: len(studies)]
    account = ("--role", "physician", "--practitioner", PRACTITIONER, "--password-stdin")
    system.command("user", "add", SURGEON, *account, stdin=PASSWORD + "\n")
    with system.client() as client:
        answer = client.post("/fhir", json=cohort_bundle(people, datetime.now(UTC).isoformat(timespec="seconds")))
        assert answer.status_code == 200, answer.text
        for study in studies:
            outcomes = send_instances(study.instances, "127.0.0.1", system.dicom_port, "FORAMEN")
            assert all(outcome.stored for outcome in outcomes)
        for person in people:
            wait_for(lambda who=person: search(client, f"Task?patient={who.logical_id}&status=completed"), 120)
    return [person.logical_id for person in people]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=WITH_WEBGL)
        expect.set_options(timeout=30_000)
        yield running
        running.close()


def signed_in(
    browser: Browser,
    system: System,
    size: dict[str, int],
    name: str = SURGEON,
    shown: str = "work-panel",
    *,
    touch: bool = False,
) -> Page:
    """The portal of somebody, in a window of its own, which shows the panel `shown`."""
    context = browser.new_context(viewport=size, locale="zh-CN", has_touch=touch)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(system.origin)
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("input[name=password]").press("Enter")
    expect(page.get_by_test_id(shown)).to_be_visible()
    return page


def faults_of_width(page: Page) -> list[str]:
    """What does not fit the window, and what a finger misses."""
    wide = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    return ([f"{wide} px wider than the window"] if wide > 0 else []) + page.evaluate(SMALL, TARGET_PX)


def search_patient(page: Page, system: System, patient: str) -> None:
    """Show one patient alone in the portal."""
    with system.client() as client:
        number = client.get(f"/fhir/Patient/{patient}").json()["identifier"][0]["value"]
    page.get_by_test_id("patient-search").fill(number)
    expect(page.get_by_test_id("patient-row")).to_have_count(1)


def test_every_app_fits_a_phone(system: System, patients: list[str], browser: Browser, artifacts: Path) -> None:
    page = signed_in(browser, system, PHONE)
    faults: dict[str, list[str]] = {}
    for app, ready in ((None, "task-row"), ("open-review", "finding-row"), ("open-plan", "option-card")):
        if app is not None:
            page.goto(system.origin)
            search_patient(page, system, patients[0])
            page.get_by_test_id("patient-row").get_by_test_id(app).click()
        expect(page.get_by_test_id(ready).first).to_be_visible()
        for language in ("zh-CN", "en-US"):
            if page.evaluate("document.documentElement.lang") != language:
                page.get_by_test_id("language-switch").click()
            expect(page.locator(f"html[lang={language}]")).to_be_visible()
            expect(page.locator(".app-footer")).to_contain_text("not a registered medical device")
            picture_sync(page, artifacts / f"phone-{app or 'portal'}-{language}.png")
            faults[f"{app} {language}"] = faults_of_width(page)
        page.get_by_test_id("language-switch").click()
    assert not {name: found for name, found in faults.items() if found}
    page.context.close()


def test_another_language_leaves_the_images_as_they_are(system: System, patients: list[str], browser: Browser) -> None:
    page = signed_in(browser, system, DESK)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    search_patient(page, system, patients[0])
    page.get_by_test_id("patient-row").get_by_test_id("open-review").click()
    viewport = page.get_by_test_id("viewport")
    expect(viewport).to_have_attribute("data-overlay", "true")
    page.locator(".viewport-wrap").focus()
    page.keyboard.press("Home")
    expect(viewport).to_have_attribute("data-slice", "0")
    expect(page.get_by_test_id("legend")).to_contain_text("L5-S1")
    expect(page.get_by_test_id("legend")).not_to_contain_text("L5 椎体")  # too many to stand there unasked
    page.get_by_test_id("legend-each").click()
    page.get_by_test_id("language-switch").click()
    expect(page.locator("html[lang=en-US]")).to_be_visible()
    expect(page.get_by_test_id("legend")).to_contain_text("L5 vertebral body")
    page.get_by_test_id("language-switch").click()
    expect(page.get_by_test_id("legend")).to_contain_text("L5 椎体")
    expect(page.get_by_test_id("legend")).not_to_contain_text("vertebral")
    expect(viewport).to_have_attribute("data-slice", "0")
    page.keyboard.press("Tab")
    page.locator(".viewport-wrap").focus()
    page.keyboard.press("ArrowDown")
    expect(viewport).to_have_attribute("data-slice", "1")
    assert not errors
    page.context.close()


def test_who_reads_no_records_is_told_so_once_and_shown_the_way(system: System, browser: Browser) -> None:
    """An engineer reads no Tasks and no Patients: the portal says so, and nothing about how many there are."""
    system.command(
        "user", "add", "engineer-at-the-portal", "--role", "engineer", "--password-stdin", stdin=f"{PASSWORD}\n"
    )
    page = signed_in(browser, system, DESK, "engineer-at-the-portal", "no-record")
    expect(page.get_by_test_id("no-record")).to_contain_text("此账号不查看患者病历")
    for absent in ("problem", "work-panel", "patient-panel", "image-database"):
        expect(page.get_by_test_id(absent)).to_have_count(0)
    page.get_by_test_id("administration").click()
    expect(page).to_have_url(f"{system.origin}/apps/admin/model-watch")
    expect(page.locator("h1")).to_have_text("模型监测")
    page.context.close()


def test_a_recalled_result_never_looks_valid(
    system: System, patients: list[str], browser: Browser, artifacts: Path
) -> None:
    recall = Recall("李主任 (SYNTHETIC)", "Pfirrmann 分级偏高", "2026-11-23T10:00:00Z")
    marked: list[Marked] = []
    with system.client() as client:
        (report,) = search(client, f"DiagnosticReport?subject=Patient/{patients[1]}")
        (task,) = search(client, f"Task?patient={patients[1]}&status=completed&code=analyse-study")
        (provenance,) = search(client, f"Provenance?target=DiagnosticReport/{report['id']}")
        weights = [
            client.get(f"/fhir/{agent['who']['reference']}").json()["identifier"][0]["value"]
            for agent in provenance["agent"]
        ]

    async def recalled() -> None:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {system.token()}"}) as http:
            fhir = FhirClient(f"{system.origin}/fhir", http)
            async for run in written_by(fhir, weights):
                if run.provenance == f"Provenance/{provenance['id']}":
                    await mark(fhir, run, recall, marked.append)

    page = signed_in(browser, system, DESK)
    row = page.locator(f"[data-testid=task-row][data-id='{task['id']}']")
    expect(row).to_have_attribute("data-status", "completed")
    # Playwright has a loop of its own in this thread.
    with ThreadPoolExecutor(1) as aside:
        aside.submit(lambda: asyncio.run(recalled())).result()
    assert f"DiagnosticReport/{report['id']}" in {item.reference for item in marked if item.done == "closed"}

    expect(row).to_have_attribute("data-status", "recalled")  # by itself, while the page is open
    expect(row).to_contain_text("已召回")
    expect(row).not_to_contain_text("已完成")
    for told in ("李主任", "2026/11/23", "Pfirrmann 分级偏高"):
        expect(row.get_by_test_id("recall-details")).to_contain_text(told)
    assert row.locator(".ant-btn-primary").count() == 0, "a recalled result is not the way on that is offered"
    picture_sync(page, artifacts / "portal-recalled.png")
    filters = page.get_by_test_id("work-panel").locator(".ant-segmented-item")
    filters.filter(has_text="完成").click()
    expect(page.get_by_test_id("task-row")).to_have_count(1)  # that of the other patient
    expect(row).to_have_count(0)
    filters.filter(has_text="需处理").click()
    expect(row).to_have_attribute("data-status", "recalled")
    expect(page.get_by_test_id("task-row")).to_have_count(1)
    filters.filter(has_text="全部").click()
    page.get_by_test_id("language-switch").click()
    expect(row).to_contain_text("Recalled by")
    expect(row.get_by_text("Done", exact=True)).to_have_count(0)

    row.get_by_test_id("open-review").click()
    expect(page.get_by_test_id("recalled-banner")).to_contain_text("李主任")
    expect(page.get_by_test_id("verify")).to_have_count(0)
    picture_sync(page, artifacts / "review-recalled.png")
    page.context.close()


def touches(page: Page, *moments: list[tuple[float, float]]) -> None:
    """Put fingers on the page and move them from one moment to the next; then lift them."""
    fingers = page.context.new_cdp_session(page)
    for kind, points in zip(["touchStart", *["touchMove"] * (len(moments) - 1)], moments, strict=True):
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    fingers.detach()


def test_fingers_scroll_window_and_zoom_the_images(
    system: System, patients: list[str], browser: Browser, artifacts: Path
) -> None:
    page = signed_in(browser, system, PHONE, touch=True)
    search_patient(page, system, patients[0])
    page.get_by_test_id("patient-row").get_by_test_id("open-review").click()
    viewport = page.get_by_test_id("viewport")
    expect(viewport).to_have_attribute("data-overlay", "true")
    page.get_by_role("toolbar").scroll_into_view_if_needed()  # so that nothing has to scroll for the click on it
    scrolled, box = page.evaluate("scrollY"), viewport.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + 40
    down = [[(x, y + step * 25)] for step in range(15)]

    touches(page, *down)  # more than half the slices: to the last one
    expect(viewport).to_have_attribute("data-slice", "14")

    page.get_by_role("toolbar").get_by_text("窗宽窗位").click()
    expect(page.get_by_role("toolbar").locator(".ant-segmented-item-selected")).to_contain_text("窗宽窗位")
    window = page.get_by_test_id("voi").inner_text()
    touches(page, *down)
    expect(page.get_by_test_id("voi")).not_to_have_text(window)
    expect(viewport).to_have_attribute("data-slice", "14")

    expect(page.get_by_test_id("zoom")).to_have_text("100%")
    touches(page, *[[(x - 20 - step * 8, y + 90), (x + 20 + step * 8, y + 90)] for step in range(8)])
    expect(page.get_by_test_id("zoom")).not_to_have_text("100%")
    picture_sync(page, artifacts / "phone-review-zoomed.png")
    assert page.evaluate("scrollY") == scrolled, "the page stays where it is while fingers are on the image"
    page.context.close()
