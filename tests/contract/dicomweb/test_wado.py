"""WADO-RS: instances, metadata, frames, bulk data and pictures come back as they were stored, in the form asked for.

DICOM PS3.18 §10.4
"""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from tests.builders.dicom import series
from tests.contract.dicomweb.conftest import Gateway

pytestmark = pytest.mark.requirement("PS3.18 10.4 Retrieve transaction")
DICOM = 'multipart/related; type="application/dicom"'


@pytest.fixture(scope="module")
async def stored(gateway: Gateway) -> list[Dataset]:
    datasets = series(3, seed=31, patient_id="SYN-31")
    datasets[0].add_new(0x00420011, "OB", b"\x07" * 2048)
    assert (await gateway.store(*datasets)).status_code == 200
    return datasets


def url(dataset: Dataset, level: str = "instance") -> str:
    path = f"/studies/{dataset.StudyInstanceUID}"
    if level != "study":
        path += f"/series/{dataset.SeriesInstanceUID}"
    return f"{path}/instances/{dataset.SOPInstanceUID}" if level == "instance" else path


def parts_of(response) -> list[tuple[str, bytes]]:
    boundary = re.search(r'boundary="?([^";]+)', response.headers["content-type"]).group(1)
    chunks = response.content.split(f"--{boundary}".encode())[1:-1]
    split = [chunk[2:-2].split(b"\r\n\r\n", 1) for chunk in chunks]
    return [(head.decode(), body) for head, body in split]


@pytest.mark.parametrize(("level", "count"), [("study", 3), ("series", 3), ("instance", 1)])
async def test_instances_come_back_whole(gateway: Gateway, stored: list[Dataset], level: str, count: int):
    answer = await gateway.get(url(stored[0], level), accept=DICOM)
    assert answer.status_code == 200
    parts = parts_of(answer)
    assert len(parts) == count
    originals = {item.SOPInstanceUID: item.PixelData for item in stored}
    for head, body in parts:
        assert "transfer-syntax=1.2.840.10008.1.2.1" in head
        dataset = dcmread(BytesIO(body))
        assert dataset.PixelData == originals[dataset.SOPInstanceUID]


async def test_a_transfer_syntax_that_cannot_be_made_is_406(gateway: Gateway, stored: list[Dataset]):
    answer = await gateway.get(url(stored[0]), accept=f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.4.50")
    assert answer.status_code == 406
    assert "1.2.840.10008.1.2.4.90" in answer.json()["issue"][0]["diagnostics"]
    assert (await gateway.get(url(stored[0]), accept="text/html")).status_code == 406


async def test_metadata_has_everything_but_the_pixels(gateway: Gateway, stored: list[Dataset]):
    answer = await gateway.get(f"{url(stored[0], 'series')}/metadata", accept="application/dicom+json")
    assert answer.status_code == 200
    found = {item["00080018"]["Value"][0]: item for item in answer.json()}
    first = found[stored[0].SOPInstanceUID]
    assert first["00280030"]["Value"] == [0.5, 0.6]
    assert first["00100010"]["Value"] == [{"Alphabetic": "SYNTHETIC^ONE"}]
    assert first["7FE00010"]["BulkDataURI"].startswith("http://127.0.0.1:8000/dicom-web/studies/")
    assert "InlineBinary" not in first["7FE00010"]
    bulk = await gateway.get(first["00420011"]["BulkDataURI"], accept="application/octet-stream")
    assert bulk.content == b"\x07" * 2048
    pixels = await gateway.get(first["7FE00010"]["BulkDataURI"])
    assert pixels.content == stored[0].PixelData


async def test_frames_as_a_viewer_asks_for_them(gateway: Gateway, stored: list[Dataset]):
    accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    answer = await gateway.get(f"{url(stored[1])}/frames/1", accept=accept)
    assert answer.status_code == 200
    ((head, body),) = parts_of(answer)
    assert "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1" in head
    assert body == stored[1].PixelData


@pytest.mark.parametrize(("frames", "status"), [("0", 404), ("2", 404), ("x", 400), ("1,2", 404), ("99999999999", 400)])
async def test_wrong_frame_numbers(gateway: Gateway, stored: list[Dataset], frames: str, status: int):
    assert (await gateway.get(f"{url(stored[0])}/frames/{frames}")).status_code == status


async def test_pictures_are_windowed(gateway: Gateway, stored: list[Dataset]):
    answer = await gateway.get(f"{url(stored[0])}/rendered?window=100,2", accept="image/png")
    assert answer.headers["content-type"] == "image/png"
    picture = np.asarray(Image.open(BytesIO(answer.content)))
    values = stored[0].pixel_array
    assert picture.shape == values.shape
    assert (picture[values > 101] == 255).all()
    assert (picture[values < 98] == 0).all()


@pytest.mark.parametrize("level", ["study", "series", "instance"])
async def test_thumbnails_at_every_level(gateway: Gateway, stored: list[Dataset], level: str):
    answer = await gateway.get(f"{url(stored[0], level)}/thumbnail")
    assert answer.status_code == 200
    assert max(Image.open(BytesIO(answer.content)).size) <= 128


@pytest.mark.parametrize("query", ["window=1", "window=a,b", "viewport=0,0", "quality=0", "window=1,2,cubic"])
async def test_bad_rendering_parameters_are_400(gateway: Gateway, stored: list[Dataset], query: str):
    assert (await gateway.get(f"{url(stored[0])}/rendered?{query}")).status_code == 400


@pytest.mark.parametrize("path", ["/studies/not-a-uid", "/studies/1.2.3/series/%2e%2e", "/studies/" + "1" * 65])
async def test_what_is_not_a_uid_is_400(gateway: Gateway, path: str):
    assert (await gateway.get(path)).status_code in (400, 404)


async def test_unknown_paths_and_methods_answer_in_the_same_form(gateway: Gateway):
    assert (await gateway.get("/nothing/here")).status_code == 404
    assert (await gateway.http.delete("/studies")).status_code == 405
