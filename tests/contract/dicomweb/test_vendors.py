"""Real GE, Siemens and Philips series: stored, registered, found, described and decoded in any transfer syntax."""

from __future__ import annotations

import asyncio
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from foramen.ingest.send import send_instances
from foramen.kernel.identifiers import derived_uid
from tests.builders.dicom import encoded
from tests.contract.dicomweb.conftest import Gateway

pytestmark = pytest.mark.test_data
FOLDERS = {
    "ge_mprage": 44,
    "philips_classic": 40,
    "siemens_enhanced_sagittal": 5,
    "enhanced_mr/Siemens": 4,
    "enhanced_mr/Philips": 1,
}


def load(folder: Path) -> list[Dataset]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "LICENSE"]
    return [dcmread(path) for path in files]


@pytest.mark.parametrize(("folder", "count"), FOLDERS.items())
@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_a_vendors_series_by_c_store(gateway: Gateway, test_data: Path, folder: str, count: int):
    datasets = await asyncio.to_thread(load, test_data / "dicom" / folder)
    assert len(datasets) == count
    settings = gateway.orthanc.settings
    outcomes = await asyncio.to_thread(send_instances, datasets, "127.0.0.1", settings.dicom_port, settings.dicom_aet)
    assert {item.reason for item in outcomes} == {""}
    study = datasets[0].StudyInstanceUID
    (task,) = await gateway.until(lambda: gateway.tasks(study), timeout_s=40)
    assert (task["status"], task["statusReason"]["coding"][0]["code"]) == ("on-hold", "no-issuer")
    (found,) = (await gateway.http.get(f"/studies?StudyInstanceUID={study}", headers=gateway.reader)).json()
    assert found["00201208"]["Value"] == [count]
    metadata = (await gateway.get(f"/studies/{study}/metadata")).json()
    assert len(metadata) == count
    middle = datasets[count // 2]
    path = f"/studies/{study}/series/{middle.SeriesInstanceUID}/instances/{middle.SOPInstanceUID}"
    frame = await gateway.get(f"{path}/frames/1", accept="application/octet-stream")
    pixels = middle.pixel_array if int(middle.get("NumberOfFrames") or 1) == 1 else middle.pixel_array[0]
    assert np.array_equal(np.frombuffer(frame.content, pixels.dtype).reshape(pixels.shape), pixels)
    picture = await gateway.get(f"{path}/rendered", accept="image/png")
    shown = np.asarray(Image.open(BytesIO(picture.content)))
    assert shown.shape == pixels.shape
    assert shown.max() > shown.min()


@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_one_siemens_image_in_seven_transfer_syntaxes_shows_the_same_pixels(gateway: Gateway, test_data: Path):
    datasets = await asyncio.to_thread(load, test_data / "dicom" / "siemens_transfer_syntaxes")
    reference = next(item for item in datasets if not item.file_meta.TransferSyntaxUID.is_compressed).pixel_array
    syntaxes = set()
    for number, dataset in enumerate(datasets):
        # Some of the nine share a UID; each gets one of its own so that all can be stored beside each other.
        uid = derived_uid("siemens", str(number))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        syntaxes.add(dataset.file_meta.TransferSyntaxUID)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = await gateway.store(encoded(dataset))
        assert answer.status_code == 200, (dataset.file_meta.TransferSyntaxUID.name, answer.text)
        path = f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{uid}"
        frame = await gateway.get(f"{path}/frames/1", accept="application/octet-stream")
        assert np.array_equal(np.frombuffer(frame.content, "<u2").reshape(reference.shape), reference)
        plain = await gateway.get(path, accept="application/dicom")
        decoded = dcmread(BytesIO(plain.content))
        assert decoded.SOPInstanceUID == uid
        assert decoded.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert np.array_equal(decoded.pixel_array, reference)
        stored = await gateway.get(path, accept='multipart/related; type="application/dicom"; transfer-syntax=*')
        assert f"transfer-syntax={dataset.file_meta.TransferSyntaxUID}".encode() in stored.content[:300]
    assert len(syntaxes) == 7


@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_the_same_image_in_another_lossless_transfer_syntax_is_the_same_instance(
    gateway: Gateway, test_data: Path
):
    datasets = await asyncio.to_thread(load, test_data / "dicom" / "siemens_transfer_syntaxes")
    before = None
    for dataset in datasets:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid("siemens", "one")
        answer = await gateway.store(encoded(dataset))
        assert answer.status_code == 200
        before = before or gateway.orthanc.count()
        assert gateway.orthanc.count() == before


@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_stored_frames_on_request(gateway: Gateway, test_data: Path):
    dataset = dcmread(test_data / "dicom" / "siemens_transfer_syntaxes" / "9.dcm")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    uid = dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid("siemens", "stored")
    await gateway.store(encoded(dataset))
    path = f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{uid}/frames/1"
    accept = 'multipart/related; type="image/*"; transfer-syntax=*'
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        answer = await gateway.get(path, accept=accept)
        assert answer.status_code == 200
        assert f"transfer-syntax={syntax}" in answer.headers["content-type"]
    else:
        assert (await gateway.get(path, accept=accept)).status_code == 406
