"""OHIF, unmodified, on another origin, on our DICOMweb: sign-in, a real study in the list, its pixels, a SEG on them.

https://docs.ohif.org; docs/how-to/view_with_ohif.md. DICOM PS3.18 §10.4, §10.6; SMART App Launch (standalone).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, Response, sync_playwright
from pydicom import Dataset, dcmread

from ai_services.results.dicom_seg import build_segmentation
from terminology import systems
from tests.builders.chromium import CHROMIUM, WITH_WEBGL, picture_sync
from tests.builders.dicom import MULTIPART, encoded, multipart
from tests.builders.ohif import ohif_for
from tests.builders.prediction import prediction, run_context
from tests.builders.system import System, wait_for

# Seconds on an idle machine; WebGL in software is what a loaded one is slowest at.
pytestmark = [pytest.mark.system, pytest.mark.browser, pytest.mark.test_data, pytest.mark.timeout(600)]
PASSWORD = "correct horse battery staple"
RIGHTS = "openid fhirUser user/ImagingStudy.rs"


@pytest.fixture(scope="module")
def real_series(test_data: Path) -> list[Dataset]:
    """A real series of 40 sagittal slices (Philips), from one side to the other."""
    found = [dcmread(path) for path in (test_data / "dicom" / "philips_classic").glob("*.dcm")]
    return sorted(found, key=lambda item: float(item.ImagePositionPatient[0]))


def blocks(series: list[Dataset]) -> NDArray[np.uint8]:
    """A SYNTHETIC mask of four blocks, shape (slice, row, column)."""
    mask = np.zeros((len(series), 256, 256), np.uint8)
    mask[:, 60:110, 60:200], mask[:, 120:160, 60:120], mask[:, 120:160, 130:180] = 1, 2, 3
    mask[10:30, 180:200, 60:200] = 4
    return mask


def segmentation_of(series: list[Dataset]) -> Dataset:
    """A SEG of our own encoder on a real series."""
    study, uids = str(series[0].StudyInstanceUID), tuple(str(item.SOPInstanceUID) for item in series)
    made = replace(
        prediction(study_instance_uid=study),
        series_instance_uid=str(series[0].SeriesInstanceUID),
        sop_instance_uids=uids,
        mask=blocks(series),
    )
    return build_segmentation(made, series, run_context(study_instance_uid=study))


@pytest.fixture(scope="module")
def viewer(system: System, real_series: list[Dataset]) -> Iterator[str]:
    """OHIF registered as any public app is, the study and its SEG stored."""
    identifier = {"system": f"{systems.IDENTIFIER_PATIENT}/DEMO", "value": str(real_series[0].PatientID)}
    user = ("user", "add", "radiologist", "--role", "physician", "--practitioner", "radiologist", "--password-stdin")
    system.command(*user, stdin=PASSWORD + "\n")
    with system.client() as client:
        patient = {"resourceType": "Patient", "id": "ohif", "identifier": [identifier]}
        assert client.put("/fhir/Patient/ohif", json=patient).status_code == 201
        body = multipart(*(encoded(item) for item in (*real_series, segmentation_of(real_series))))
        stored = client.post("/dicom-web/studies", content=body, headers={"Content-Type": MULTIPART})
        assert stored.status_code == 200, stored.text
    with ohif_for(system.origin) as origin:
        options = ("--public", "--scopes", RIGHTS, "--redirect-uri", f"{origin}/callback", "--name", "OHIF")
        system.command("client", "add", "ohif", *options)
        yield origin


def drawn(page: Page) -> NDArray[np.float64]:
    """Pixels of the viewport that a person sees: shape (row, column, colour), 0 to 255."""
    shot = page.locator(".viewport-element canvas").first.screenshot()
    return np.asarray(Image.open(BytesIO(shot)).convert("RGB"), np.float64)


def image_square(shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """The square in the middle of a viewport, which the image fills, at the size of the image: shape (256, 256, 3)."""
    side = min(shown.shape[:2])
    top, left = (shown.shape[0] - side) // 2, (shown.shape[1] - side) // 2
    square = Image.fromarray(shown[top : top + side, left : left + side].astype(np.uint8))
    return np.asarray(square.resize((256, 256), Image.Resampling.BOX), np.float64)


def likeness(shown: NDArray[np.float64], source: Dataset) -> float:
    """Correlation of what a viewport shows with the stored pixels; its window cuts off what is very bright."""
    stored = np.minimum(source.pixel_array.astype(np.float64), float(np.percentile(source.pixel_array, 99)))
    return float(np.corrcoef(image_square(shown).mean(axis=2).ravel(), stored.ravel())[0, 1])


def overlap(shown: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Intersection over union of what is coloured with a mask of shape (256, 256)."""
    coloured = np.ptp(image_square(shown), axis=2) > 25
    return float((coloured & mask).sum() / (coloured | mask).sum())


def watched(page: Page, origin: str) -> tuple[list[Response], list[str]]:
    """Collect the answers of the gateway, and what a clean viewer never has."""
    answers: list[Response] = []
    faults: list[str] = []
    page.on("response", lambda item: answers.append(item) if item.url.startswith(f"{origin}/dicom-web/") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    return answers, faults


@pytest.mark.requirement("PS3.18 10: the OHIF viewer signs in, lists studies, paints a real series and overlays a SEG")
def test_ohif_lists_paints_and_overlays(
    system: System, viewer: str, real_series: list[Dataset], artifacts: Path
) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=WITH_WEBGL)
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        page.set_default_timeout(120_000)
        answers, faults = watched(page, system.origin)
        page.goto(viewer)
        page.fill("input[name=username]", "radiologist")
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.click("button[value=allow]")

        row = page.get_by_text(str(real_series[0].PatientName)).first
        row.wait_for()
        page.get_by_text("Confirm and hide").click()
        picture_sync(page, artifacts / "ohif-1-studies.png")
        row.dblclick()
        page.get_by_text("Skip all").click()
        shown = page.get_by_text("(1/40)")
        shown.wait_for()
        first = next(item for item in real_series if f"{item.InstanceNumber} (1/40)" in shown.inner_text())
        wait_for(lambda: likeness(drawn(page), first) > 0.9, 120)
        picture_sync(page, artifacts / "ohif-2-series.png")

        page.get_by_text("AI segmentation (unverified)").first.dblclick()
        page.get_by_role("button", name="Yes").click()
        segmented = blocks(real_series)[real_series.index(first)] > 0
        wait_for(lambda: overlap(drawn(page), segmented) > 0.8, 120)
        picture_sync(page, artifacts / "ohif-3-segmentation.png")
        browser.close()

    assert faults == []
    assert {item.status for item in answers} == {200}
    kinds = {item.url.partition("?")[0].rstrip("/").rpartition("/")[2] for item in answers}
    assert {"studies", "series", "metadata", "thumbnail"} <= kinds
    assert sum("/frames/" in item.url for item in answers) >= len(real_series) // 2
    assert all(item.request.headers["authorization"].startswith("Bearer ") for item in answers)
