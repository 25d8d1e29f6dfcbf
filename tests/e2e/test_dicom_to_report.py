"""The main job in a real browser: portal → launch → finding → verify → choose an option → the FHIR API shows it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from foramen.demo.cohort import PRACTITIONER, cohort_bundle, demo_patients
from foramen.demo.studies import main_study
from foramen.ingest.send import send_instances
from tests.builders.chromium import picture_sync
from tests.builders.system import System, search, wait_for
from tests.conftest import TEST_DATA

pytestmark = [pytest.mark.system, pytest.mark.browser]

PATIENT = "patient-of-the-journey"
RESULTS = ("SEG", "PR", "SR", "KO")
PASSWORD = "correct horse battery staple"
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def analysed(system: System) -> str:
    """A SYNTHETIC patient whose study has been sent by C-STORE and analysed; returns the patient's id."""
    study = main_study(TEST_DATA, "DEMO")
    people = demo_patients([study.patient_id])
    system.command(
        *("user", "add", "surgeon", "--role", "physician", "--practitioner", PRACTITIONER, "--password-stdin"),
        stdin=PASSWORD + "\n",
    )
    account = ("--role", "patient", "--patient", people[0].logical_id, "--password-stdin")
    system.command("user", "add", PATIENT, *account, stdin=PASSWORD + "\n")
    with system.client() as client:
        answer = client.post("/fhir", json=cohort_bundle(people, datetime.now(UTC).isoformat(timespec="seconds")))
        assert answer.status_code == 200, answer.text
        outcomes = send_instances(study.instances, "127.0.0.1", system.dicom_port, "FORAMEN")
        assert all(outcome.stored for outcome in outcomes)
        patient = people[0].logical_id
        wait_for(lambda: search(client, f"Task?patient=Patient/{patient}&status=completed"), 90)
    return patient


def result_series(client: httpx.Client, study: str) -> dict[str, list[str]]:
    """Series Instance UIDs of a study by modality, as far as the client's token sees them."""
    found = client.get(f"/dicom-web/studies/{study}/series", headers={"Accept": "application/dicom+json"}).json()
    series: dict[str, list[str]] = {}
    for item in found:
        series.setdefault(item["00080060"]["Value"][0], []).append(item["0020000E"]["Value"][0])
    return series


def study_of(client: httpx.Client, patient: str) -> str:
    study = search(client, f"ImagingStudy?subject=Patient/{patient}")[0]
    return str(study["identifier"][0]["value"]).removeprefix("urn:oid:")


def test_key_images_stand_beside_the_segmentation_and_are_hidden_from_the_patient(
    system: System, analysed: str, artifacts: Path
) -> None:
    with system.client() as client:
        study = study_of(client, analysed)
        series = result_series(client, study)
        assert {kind: len(found) for kind, found in series.items() if kind != "MR"} == dict.fromkeys(RESULTS, 1)
        rendered = {}
        for kind in ("PR", "KO"):
            path = f"/dicom-web/studies/{study}/series/{series[kind][0]}/instances"
            (instance,) = client.get(path, headers={"Accept": "application/dicom+json"}).json()
            uid = instance["00080018"]["Value"][0]
            rendered[kind] = client.get(f"{path}/{uid}/rendered", headers={"Accept": "image/png, text/html"})
        picture = Image.open(BytesIO(rendered["PR"].content))
        picture.save(artifacts / "key-image.png")
        # Letters and outlines of the AI are the only colour in a picture of grey values.
        channels = np.asarray(picture.convert("RGB")).astype(int)
        assert 0.002 < (np.ptp(channels, axis=2) > 40).mean() < 0.2
        assert "AI - UNVERIFIED" in rendered["KO"].text
        (report,) = search(client, f"DiagnosticReport?subject=Patient/{analysed}")
        (provenance,) = search(client, f"Provenance?target=DiagnosticReport/{report['id']}")
        assert [item["display"] for item in provenance["target"] if "identifier" in item] == [
            f"DICOM {kind}" for kind in RESULTS
        ]
    with system.client("patient/*.rs", "--user", PATIENT, "--patient", analysed) as own:
        assert set(result_series(own, study)) == {"MR"}


def test_the_run_is_reproduced_from_its_provenance(system: System, analysed: str, tmp_path: Path) -> None:
    with system.client() as client:
        (report,) = search(client, f"DiagnosticReport?subject=Patient/{analysed}")
        (provenance,) = search(client, f"Provenance?target=DiagnosticReport/{report['id']}")
    told = system.command("model", "reproduce", provenance["id"], "--json", str(tmp_path / "told.json"))
    assert told.startswith("same: "), told
    document = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert document["mask_identical"]
    assert document["images"] == len([item for item in provenance["entity"] if "extension" in item]) > 0
    assert {item["dice"] for item in document["segments"]} == {1.0}
    assert document["findings"] == len(report["result"])
    assert document["differences"] == document["notes"] == []


@pytest.fixture(scope="module")
def browser_context() -> BrowserContext:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_OPTIONS)
        context = browser.new_context(viewport={"width": 1920, "height": 1080}, locale="zh-CN")
        context.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        yield context
        browser.close()


def watch(page: Page) -> list[str]:
    """Collect what a clean page never has: errors, and requests that leave this machine."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://127.0.0.1", "data:", "blob:"))
            else faults.append(f"left the machine: {request.url}")
        ),
    )
    return faults


def open_app(context: BrowserContext, portal: Page, patient: str, test_id: str) -> Page:
    """Click a launch button of the patient; the app opens in this page or in a new one."""
    pages = len(context.pages)
    portal.locator(f"[data-testid=patient-row][data-id='{patient}']").get_by_test_id(test_id).click()
    portal.wait_for_timeout(500)
    return context.pages[-1] if len(context.pages) > pages else portal


def test_a_surgeon_reviews_signs_and_decides(
    system: System, analysed: str, browser_context: BrowserContext, artifacts: Path
) -> None:
    portal = browser_context.new_page()
    faults = watch(portal)
    portal.goto(system.origin)
    portal.locator("input[name=username]").fill("surgeon")
    portal.locator("input[name=password]").fill(PASSWORD)
    picture_sync(portal, artifacts / "1-sign-in.png")
    portal.locator("input[name=password]").press("Enter")

    expect(portal.get_by_test_id("patient-row").first).to_be_visible()
    expect(portal.locator("[data-testid=task-row][data-status=completed]").first).to_be_visible()
    picture_sync(portal, artifacts / "2-portal.png")

    review = open_app(browser_context, portal, analysed, "open-review")
    faults += watch(review) if review is not portal else []
    expect(review.get_by_test_id("finding-row").first).to_be_visible()
    expect(review.get_by_test_id("viewport").locator("canvas").first).to_be_visible()
    expect(review.get_by_test_id("key-images").locator("img").first).to_be_visible()
    assert review.locator("input[name=password]").count() == 0, "a second sign-in was asked for"
    review.get_by_test_id("finding-row").nth(1).click()
    review.wait_for_timeout(2500)
    picture_sync(review, artifacts / "3-review.png")
    review.get_by_test_id("key-images").scroll_into_view_if_needed()
    picture_sync(review, artifacts / "3-review-key-images.png")
    review.get_by_test_id("key-images").locator("img").first.click()
    expect(review.locator(".ant-image-preview img").first).to_be_visible()
    review.wait_for_timeout(800)
    picture_sync(review, artifacts / "3-key-image-large.png")
    review.keyboard.press("Escape")
    expect(review.locator(".ant-image-preview img").first).to_be_hidden()
    review.get_by_test_id("verify").click()
    expect(review.get_by_test_id("confirm-decision")).to_be_disabled()
    review.get_by_test_id("decision-check").click()
    review.get_by_test_id("confirm-decision").click()
    expect(review.get_by_test_id("report-status")).to_have_attribute("data-status", "final")
    picture_sync(review, artifacts / "4-verified.png")

    with system.client() as client:
        report = wait_for(lambda: search(client, f"DiagnosticReport?subject=Patient/{analysed}&status=final"))[0]
        signature = search(client, f"Provenance?target=DiagnosticReport/{report['id']}&agent-type=verifier")
        assert signature[0]["agent"][0]["who"]["reference"] == f"Practitioner/{PRACTITIONER}"
        findings = search(client, f"Observation?subject=Patient/{analysed}&status=final&_count=200")
        assert findings
        absent = [item for item in findings if "dataAbsentReason" in item]
        assert absent, "what one plane cannot show must be said"
        assert not [item for item in absent if "valueCodeableConcept" in item]

        study = study_of(client, analysed)
        with system.client("patient/*.rs", "--user", PATIENT, "--patient", analysed) as person:
            # What the signed report names is now the patient's to see, the key images too.
            assert result_series(person, study) == result_series(client, study)

    if review is portal:
        portal.goto(system.origin)
        expect(portal.get_by_test_id("patient-row").first).to_be_visible()
    plan = open_app(browser_context, portal, analysed, "open-plan")
    expect(plan.get_by_test_id("option-card").first).to_be_visible()
    assert plan.get_by_test_id("option-card").count() >= 3
    picture_sync(plan, artifacts / "5-options.png")
    plan.get_by_test_id("choose-option").first.click()
    expect(plan.get_by_test_id("confirm-plan")).to_be_disabled()
    for field in ("plan-level", "plan-side"):
        plan.get_by_test_id(field).click()
        plan.keyboard.press("Enter")
    if (
        plan.get_by_test_id("plan-reason")
        .locator("xpath=ancestor::*[contains(@class,'ant-form-item')]")
        .locator(".ant-form-item-required")
        .count()
    ):
        plan.get_by_test_id("plan-reason").fill("end-to-end test")
    plan.get_by_test_id("plan-check").click()
    plan.wait_for_timeout(400)
    picture_sync(plan, artifacts / "6-choose.png")
    plan.get_by_test_id("confirm-plan").click()
    expect(plan.get_by_test_id("chosen-plan")).to_be_visible()
    picture_sync(plan, artifacts / "7-chosen.png")
    plan.get_by_test_id("language-switch").first.click()
    plan.wait_for_timeout(500)
    picture_sync(plan, artifacts / "8-chosen-en.png")

    with system.client() as client:
        active = [
            p for p in search(client, f"CarePlan?subject=Patient/{analysed}&status=active") if p["intent"] == "plan"
        ]
        assert len(active) == 1
        assert active[0]["basedOn"][0]["reference"].startswith("CarePlan/")
    assert not faults


def test_a_patient_token_sees_records_and_pixels_of_that_patient_alone(system: System, analysed: str) -> None:
    with system.client() as everyone:
        study = search(everyone, f"ImagingStudy?subject=Patient/{analysed}")[0]
    uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
    with system.client("patient/*.rs", "--patient", analysed) as own:
        assert search(own, f"Observation?subject=Patient/{analysed}")
        assert len(own.get("/dicom-web/studies", headers={"Accept": "application/dicom+json"}).json()) == 1
        assert own.get(f"/dicom-web/studies/{uid}/metadata").status_code == 200
    with system.client("patient/*.rs", "--patient", "syn-0003") as other:
        assert not search(other, f"Observation?subject=Patient/{analysed}")
        assert other.get(f"/fhir/ImagingStudy/{study['id']}").status_code == 404
        assert not other.get("/dicom-web/studies", headers={"Accept": "application/dicom+json"}).content.strip(b"[]\n ")
        for path in ("metadata", "rendered", f"series/{study['series'][0]['uid']}/metadata"):
            assert other.get(f"/dicom-web/studies/{uid}/{path}").status_code == 404


def test_nothing_about_the_patient_is_in_the_logs(system: System, analysed: str) -> None:
    """Names, birth dates and identifiers of the demo data, as FHIR and DICOM write them, in the logs of all parts."""
    paths = [path for path in system.home.rglob("*") if path.is_file() and ".log" in path.name]
    text = "".join(path.read_text(errors="replace") for path in paths)
    assert any(path.parent.name == "logs" for path in paths)
    study = main_study(TEST_DATA, "DEMO")
    people = demo_patients([study.patient_id])
    secrets = {str(study.instances[0].PatientName), study.patient_id}
    for person in people:
        names = {person.family, person.given, person.dicom_patient_id}
        secrets |= names | {person.birth_date, person.birth_date.replace("-", "")}
    assert not [secret for secret in sorted(secrets) if secret in text]
    audit = [path for path in (system.home / "audit").glob("*") if path.is_file()]
    assert not [path.name for path in audit if any(secret in path.read_text() for secret in secrets)]


def test_the_audit_trail_of_all_this_verifies(system: System, analysed: str) -> None:
    assert analysed
    assert system.command("audit", "verify").startswith("good: ")
