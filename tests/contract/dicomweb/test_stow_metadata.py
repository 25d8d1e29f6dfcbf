"""STOW-RS of metadata and bulk data: DICOM JSON and XML with bulk parts become instances, or say why not.

DICOM PS3.18 §10.5.1.4, §8.7.3, Table 10.5.2-1
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from dicomweb.instance_check import FailureReason
from dicomweb.store.native_xml import from_xml, to_xml
from dicomweb.store.report import WarningReason
from tests.builders.dicom import BOUNDARY, series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import WRITE, Gateway

JSON, XML = "application/dicom+json", "application/dicom+xml"


def model_of(dataset: Dataset, location: str = "bulk/1") -> dict[str, Any]:
    """Metadata of a dataset with its pixel data elsewhere."""
    model = dataset.to_json_dict(1 << 30, lambda _: "")
    model["7FE00010"] = {"vr": "OW", "BulkDataURI": location}
    return {tag: item for tag, item in model.items() if not tag.startswith("0002")}


def body(kind: str, metadata: list[bytes], *bulk: tuple[str, str, bytes]) -> tuple[bytes, str]:
    parts = [(f"Content-Type: {kind}", content) for content in metadata]
    parts += [(f"Content-Type: {media}\r\nContent-Location: {place}", content) for media, place, content in bulk]
    text = b"".join(f"\r\n--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content for head, content in parts)
    return text + f"\r\n--{BOUNDARY}--\r\n".encode(), f'multipart/related; type="{kind}"; boundary={BOUNDARY}'


async def send(gateway: Gateway, content: bytes, content_type: str, accept: str = JSON) -> Any:
    headers = bearer(WRITE) | {"Content-Type": content_type, "Accept": accept}
    return await gateway.http.post("/studies", content=content, headers=headers)


async def stored(gateway: Gateway, dataset: Dataset) -> Dataset:
    path = f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
    answer = await gateway.get(path, accept='multipart/related; type="application/dicom"; transfer-syntax=*')
    assert answer.status_code == 200, answer.text
    boundary = answer.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    return dcmread(BytesIO(answer.content.split(b"--" + boundary)[1].partition(b"\r\n\r\n")[2]))


@pytest.mark.requirement("PS3.18 10.5.1.4: metadata in DICOM JSON with bulk data is stored")
async def test_json_with_bulk_data(gateway: Gateway) -> None:
    one, two = series(2, seed=201, patient_id="SYN-201")
    models = orjson.dumps([model_of(one, "bulk/1"), model_of(two, "bulk/2")])
    octets = "application/octet-stream"
    content, kind = body(JSON, [models], (octets, "bulk/1", one.PixelData), (octets, "bulk/2", two.PixelData))
    answer = await send(gateway, content, kind)
    assert answer.status_code == 200, answer.text
    for dataset in (one, two):
        back = await stored(gateway, dataset)
        assert back.PixelData == dataset.PixelData
        assert back.PatientName == dataset.PatientName
    again = await send(gateway, content, kind)
    assert again.status_code == 200


@pytest.mark.requirement("PS3.18 10.5.1.4: metadata in native XML with bulk data is stored")
async def test_xml_with_bulk_data(gateway: Gateway) -> None:
    one = series(1, seed=202, patient_id="SYN-202")[0]
    octets = "application/octet-stream"
    content, kind = body(XML, [to_xml(model_of(one))], (octets, "bulk/1", one.PixelData))
    answer = await send(gateway, content, kind, accept=XML)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == XML
    assert from_xml(answer.content)["00081199"]["Value"][0]["00081155"]["Value"] == [one.SOPInstanceUID]
    back = await stored(gateway, one)
    assert (back.PixelData, back.ImagePositionPatient) == (one.PixelData, one.ImagePositionPatient)


@pytest.mark.requirement("PS3.18 10.5.2: consumer images become uncompressed instances")
@pytest.mark.parametrize("form", ["png", "gif"])
async def test_a_picture_is_transformed(gateway: Gateway, form: str) -> None:
    one = series(1, seed=203 + len(form) + ord(form[0]), patient_id="SYN-203", depth="uint8")[0]
    pixels = np.random.default_rng(3).integers(0, 255, (16, 12)).astype("uint8")
    target = BytesIO()
    Image.fromarray(pixels, "L").save(target, form)
    model = {tag: item for tag, item in model_of(one).items() if not tag.startswith("0028")}
    content, kind = body(JSON, [orjson.dumps([model])], (f"image/{form}", "bulk/1", target.getvalue()))
    answer = await send(gateway, content, kind)
    assert answer.status_code == 200, answer.text
    assert np.array_equal((await stored(gateway, one)).pixel_array, pixels)


@pytest.mark.requirement("PS3.18 10.5.2: JPEG is kept as it is, and describes itself")
async def test_jpeg_is_encapsulated_unchanged(gateway: Gateway) -> None:
    one = series(1, seed=207, patient_id="SYN-207", depth="uint8")[0]
    target = BytesIO()
    Image.fromarray(np.full((16, 12), 90, "uint8"), "L").save(target, "jpeg")
    model = {tag: item for tag, item in model_of(one).items() if not tag.startswith("0028")}
    content, kind = body(JSON, [orjson.dumps([model])], ("image/jpeg", "bulk/1", target.getvalue()))
    answer = await send(gateway, content, kind)
    assert answer.status_code == 200, answer.text
    back = await stored(gateway, one)
    assert back.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert target.getvalue() in back.PixelData
    assert (back.Rows, back.Columns, back.PhotometricInterpretation) == (16, 12, "MONOCHROME2")


@pytest.mark.requirement("PS3.18 I.2.1: what was coerced is said, with the original in the instance")
async def test_text_that_its_character_set_cannot_hold_is_coerced(gateway: Gateway) -> None:
    one = series(1, seed=208, patient_id="SYN-208")[0]
    model = model_of(one) | {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "SYNTHETIC^合成"}]},
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
    }
    content, kind = body(JSON, [orjson.dumps([model])], ("application/octet-stream", "bulk/1", one.PixelData))
    answer = await send(gateway, content, kind)
    assert answer.status_code == 202
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081196"]["Value"] == [WarningReason.COERCED]
    original = item["04000561"]["Value"][0]["04000550"]["Value"][0]
    assert original == {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}
    back = await stored(gateway, one)
    assert str(back.PatientName) == "SYNTHETIC^合成"
    assert back.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].SpecificCharacterSet == "ISO_IR 100"


@pytest.mark.requirement("PS3.18 I.2.1: elements that were discarded are said")
async def test_file_meta_information_in_metadata_is_discarded(gateway: Gateway) -> None:
    one = series(1, seed=209, patient_id="SYN-209")[0]
    model = model_of(one) | {"00020013": {"vr": "SH", "Value": ["OTHERS"]}}
    content, kind = body(JSON, [orjson.dumps([model])], ("application/octet-stream", "bulk/1", one.PixelData))
    answer = await send(gateway, content, kind)
    assert answer.status_code == 202
    assert answer.json()["00081199"]["Value"][0]["00081196"]["Value"] == [WarningReason.ELEMENTS_DISCARDED]


@pytest.mark.requirement("PS3.18 10.5.3: what cannot be put together is refused, and says so")
async def test_bulk_data_that_was_not_sent(gateway: Gateway) -> None:
    one = series(1, seed=210, patient_id="SYN-210")[0]
    before = gateway.orthanc.count()
    answer = await send(gateway, *body(JSON, [orjson.dumps([model_of(one)])]))
    assert answer.status_code == 409
    (item,) = answer.json()["00081198"]["Value"]
    assert item["00081155"]["Value"] == [one.SOPInstanceUID]
    assert item["00081197"]["Value"] == [FailureReason.CANNOT_UNDERSTAND]
    assert gateway.orthanc.count() == before


@pytest.mark.requirement("PS3.18 10.5.3: malformed metadata changes nothing")
@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        (JSON, b"{"),
        (JSON, b"[1]"),
        (JSON, b"[]"),
        (XML, b"<NativeDicomModel"),
        (XML, b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><NativeDicomModel>&e;</NativeDicomModel>"),
        (XML, b"<other/>"),
    ],
)
async def test_malformed_metadata(gateway: Gateway, kind: str, metadata: bytes) -> None:
    before = gateway.orthanc.count()
    answer = await send(gateway, *body(kind, [metadata]))
    assert answer.status_code == 400
    assert gateway.orthanc.count() == before


@pytest.mark.requirement("PS3.18 10.5.3.3: the response is JSON or XML, as the client accepts")
async def test_an_answer_that_cannot_be_given_stores_nothing(gateway: Gateway) -> None:
    one = series(1, seed=211, patient_id="SYN-211")[0]
    content, kind = body(JSON, [orjson.dumps([model_of(one)])], ("application/octet-stream", "bulk/1", one.PixelData))
    before = gateway.orthanc.count()
    assert (await send(gateway, content, kind, accept="text/plain")).status_code == 406
    assert gateway.orthanc.count() == before
