"""STOW-RS: what is acknowledged is stored; what is refused says why, per instance.

DICOM PS3.18 §10.5
"""

from __future__ import annotations

import copy

import pytest

from dicomweb.instance_check import FailureReason
from tests.builders.dicom import MULTIPART, encoded, multipart, series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import WRITE, Gateway

pytestmark = pytest.mark.requirement("PS3.18 10.5 Store transaction")


def _reasons(body: dict) -> list[int]:
    items = body.get("00081198", {}).get("Value", []) + body.get("0008119A", {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in items]


async def test_stored_instances_can_be_retrieved_at_once(gateway: Gateway):
    datasets = series(3, seed=11, patient_id="SYN-11")
    answer = await gateway.store(*datasets)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    stored = answer.json()["00081199"]["Value"]
    assert {item["00081155"]["Value"][0] for item in stored} == {item.SOPInstanceUID for item in datasets}
    retrieve_url = stored[0]["00081190"]["Value"][0]
    found = await gateway.get(retrieve_url)
    assert found.status_code == 200


async def test_a_second_delivery_of_the_same_instance_is_success_and_stores_nothing(gateway: Gateway):
    datasets = series(2, seed=12, patient_id="SYN-12")
    assert (await gateway.store(*datasets)).status_code == 200
    before = gateway.orthanc.count()
    again = await gateway.store(*datasets)
    assert again.status_code == 200
    assert len(again.json()["00081199"]["Value"]) == 2
    assert gateway.orthanc.count() == before


async def test_other_pixels_under_a_stored_uid_are_refused_and_the_original_stays(gateway: Gateway):
    original = series(1, seed=13, patient_id="SYN-13")[0]
    await gateway.store(original)
    other = copy.deepcopy(original)
    other.PixelData = bytes(reversed(original.PixelData))
    answer = await gateway.store(other)
    assert answer.status_code == 409
    assert _reasons(answer.json()) == [FailureReason.DUPLICATE_SOP_INSTANCE]
    series_url = f"/studies/{original.StudyInstanceUID}/series/{original.SeriesInstanceUID}"
    url = f"{series_url}/instances/{original.SOPInstanceUID}/frames/1"
    frame = await gateway.get(url, accept="application/octet-stream")
    assert frame.content == original.PixelData


async def test_good_parts_are_stored_beside_bad_ones(gateway: Gateway):
    good, cut = series(2, seed=14, patient_id="SYN-14")
    answer = await gateway.store(good, encoded(cut)[:-100], b"not dicom at all")
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert _reasons(answer.json()) == [FailureReason.CANNOT_UNDERSTAND] * 2


async def test_an_instance_of_another_study_than_the_url_is_refused(gateway: Gateway):
    one = series(1, seed=15, patient_id="SYN-15")[0]
    answer = await gateway.store(one, path="/studies/1.2.3")
    assert answer.status_code == 409
    assert _reasons(answer.json()) == [FailureReason.STUDY_OR_PATIENT_MISMATCH]
    assert answer.json()["00081198"]["Value"][0]["00081155"]["Value"] == [one.SOPInstanceUID]


async def test_another_patient_cannot_be_put_into_a_study(gateway: Gateway):
    one, two = series(2, seed=16, patient_id="SYN-16")
    await gateway.store(one)
    two.PatientID = "SYN-999"
    answer = await gateway.store(two)
    assert answer.status_code == 409
    assert _reasons(answer.json()) == [FailureReason.STUDY_OR_PATIENT_MISMATCH]


async def test_a_lying_transfer_syntax_is_refused(gateway: Gateway):
    content = encoded(series(1, seed=17)[0])
    lying = content.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.5\x00", 1)
    answer = await gateway.store(lying)
    assert answer.status_code == 409
    assert _reasons(answer.json()) == [FailureReason.CANNOT_UNDERSTAND]


async def test_an_unknown_transfer_syntax_is_named_as_the_reason(gateway: Gateway):
    content = encoded(series(1, seed=18)[0])
    unknown = content.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.99999.1.2.1\x00", 1)
    assert _reasons((await gateway.store(unknown)).json()) == [FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (
            multipart(b"x", content_type="text/plain"),
            'multipart/related; type="text/plain"; boundary=test-boundary',
            415,
        ),
        (multipart(b"x")[:-20], MULTIPART, 400),
        (b"garbage", MULTIPART, 400),
        (b"", 'multipart/related; type="application/dicom"', 400),
        (b"--test-boundary--", MULTIPART, 400),
    ],
)
async def test_malformed_bodies_change_nothing(gateway: Gateway, body: bytes, content_type: str, status: int):
    before = gateway.orthanc.count()
    answer = await gateway.http.post("/studies", content=body, headers=bearer(WRITE) | {"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert gateway.orthanc.count() == before


async def test_a_body_over_the_limit_is_413(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gateway.service._settings, "max_stow_bytes", 2000)
    answer = await gateway.store(series(1, seed=19, size=(64, 64))[0])
    assert answer.status_code == 413

    async def chunks():
        for _ in range(10):
            yield b"x" * 1000

    headers = bearer(WRITE) | {"Content-Type": MULTIPART}
    announced = await gateway.http.post("/studies", content=chunks(), headers=headers)
    assert announced.status_code in (400, 413)
    single = bearer(WRITE) | {"Content-Type": "application/dicom"}
    assert (await gateway.http.post("/studies", content=chunks(), headers=single)).status_code == 413


async def test_a_single_part_body_is_stored(gateway: Gateway):
    one = series(1, seed=20, patient_id="SYN-20")[0]
    headers = bearer(WRITE) | {"Content-Type": "application/dicom"}
    answer = await gateway.http.post("/studies", content=encoded(one), headers=headers)
    assert answer.status_code == 200
