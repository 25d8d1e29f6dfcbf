"""The upload page: every kind of file, converted, stored with the person's rights, and answered for (SYNTHETIC)."""

from __future__ import annotations

import json
import re
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image
from pydicom import dcmread

from foramen.image_database.text import said
from tests.builders.dicom import encoded, series
from tests.contract.ingest.conftest import DOCTOR, MOUNT, Site
from tests.unit.foramen.ingest.samples import BINARY_STL, jpeg, mp4, without_character_set

ABOUT = {"patient_id": "SYN-51", "issuer": "DEMO", "patient_name": "测试^合成", "study_description": "SYNTHETIC upload"}
CHINESE = "王^小东"


async def search(site: Site, **parameters: str) -> list[dict]:
    browser = await site.signed_in(DOCTOR)
    page = await browser.http.get(f"{MOUNT}/", params=parameters)
    return [] if "No study matches" in page.text else [page.text]


def nifti(folder: Path) -> bytes:
    image = SimpleITK.GetImageFromArray(np.random.default_rng(5).normal(size=(4, 10, 8)).astype(np.float32))
    image.SetSpacing((0.5, 0.75, 4.0))
    SimpleITK.WriteImage(image, str(folder / "v.nii.gz"))
    return (folder / "v.nii.gz").read_bytes()


async def test_every_kind_of_file_in_one_form(site: Site, tmp_path: Path):
    await site.add_patient("p51", "SYN-51")
    browser = await site.signed_in(DOCTOR)
    png = BytesIO()
    Image.fromarray(np.full((30, 20), 90, np.uint8)).save(png, "PNG")
    files = {
        "one.dcm": encoded(series(1, seed=51)[0]),
        "v.nii.gz": nifti(tmp_path),
        "a.jpg": jpeg(),
        "b.png": png.getvalue(),
        "film.mp4": mp4(tmp_path),
        "bone.stl": BINARY_STL,
        "noise.bin": b"\x00" * 300,
    }
    answer = await browser.send(files, **ABOUT)
    assert answer.status_code == 200, answer.text
    text = answer.text
    assert "7 files, 9 instances stored; something was refused of 1 files" in text
    assert "stored as 16-bit integers with Rescale Slope" in text
    assert "not a DICOM file" in text
    assert "noise.bin" in text
    (page,) = await search(site, description="SYNTHETIC upload")
    assert "测试合成" in page
    assert not list((site.settings.home / "uploads").glob("*"))


async def test_a_zip_with_a_bad_member_names_it_and_stores_the_rest(site: Site):
    browser = await site.signed_in(DOCTOR)
    whole = encoded(series(1, seed=52)[0])
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("A/1.dcm", whole)
        archive.writestr("A/2.dcm", whole[:-40])
        archive.writestr("../outside.dcm", whole)
    answer = await browser.send({"s.zip": packed.getvalue()})
    assert "3 files, 1 instances stored; something was refused of 2 files" in answer.text
    assert "its name leads out of the archive" in answer.text
    assert "s.zip:A/2.dcm" in answer.text


async def test_the_same_again_is_stored_and_other_pixels_under_its_uid_are_refused(site: Site):
    browser = await site.signed_in(DOCTOR)
    (one,) = series(1, seed=53)
    assert "1 instances stored" in (await browser.send({"1.dcm": encoded(one)})).text
    assert "1 instances stored" in (await browser.send({"1.dcm": encoded(one)})).text
    one.PixelData = bytes(len(one.PixelData))
    again = (await browser.send({"1.dcm": encoded(one)})).text
    assert "0 instances stored" in again
    assert "another image is stored under its UID" in again


async def test_a_chinese_name_without_its_character_set_is_right_everywhere(site: Site):
    await site.add_patient("p54", "SYN-54")
    browser = await site.signed_in(DOCTOR)
    content = without_character_set(CHINESE.encode("gb18030"), patient_id="SYN-54", seed=54)
    answer = await browser.send({"cn.dcm": content}, csrf=None)
    assert "taken to be GB18030" in answer.text
    zh = site.browser(**{"accept-language": "zh-CN"})
    zh.http.cookies = browser.http.cookies
    assert "未注明字符集，按 GB18030 读取" in (await zh.send({"cn.dcm": content})).text
    (page,) = await search(site, name="王小东", patient_id="SYN-54")
    assert "王小东" in page
    study = re.search(rf"{MOUNT}/studies/([\d.]+)", page)[1]
    stored = dcmread(BytesIO(_from_archive(site, study)))
    assert stored.SpecificCharacterSet == "GB18030"
    assert stored["PatientName"].value.original_string.rstrip(b" ") == CHINESE.encode("gb18030")


def _from_archive(site: Site, study: str) -> bytes:
    with site.orthanc.client() as client:
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study}}
        (identity,) = client.post("/tools/find", content=json.dumps(query)).json()
        return client.get(f"/instances/{identity}/file").content


async def test_what_is_no_dicom_needs_a_patient_and_a_sidecar_does_as_well(site: Site):
    browser = await site.signed_in(DOCTOR)
    refused = (await browser.send({"a.jpg": jpeg()})).text
    assert "a picture needs a sidecar" in refused
    sidecar = json.dumps({"patient_id": "SYN-55", "issuer": "DEMO"}).encode()
    taken = (await browser.send({"a.jpg": jpeg(), "sidecar.json": sidecar})).text
    assert "1 instances stored" in taken


@pytest.mark.parametrize("fields", [{"patient_birth_date": "yesterday"}, {"patient_sex": "X"}, {"modality": "ZZ"}])
async def test_a_bad_field_is_named_without_its_value_and_nothing_is_stored(site: Site, fields: dict[str, str]):
    browser, before = await site.signed_in(DOCTOR), site.orthanc.count()
    answer = await browser.send({"a.jpg": jpeg()}, **ABOUT | fields)
    assert answer.status_code == 400
    assert f"A field is not as it must be: {next(iter(fields))}" in answer.text
    assert site.orthanc.count() == before


async def test_no_file_is_said(site: Site):
    browser = await site.signed_in(DOCTOR)
    answer = await browser.http.post(f"{MOUNT}/upload", data={"csrf": await browser.csrf()}, files={"files": ("", b"")})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "name", ["../../etc/x.dcm", "..\\x.dcm", "/abs.dcm", ".hidden", "a\x01b.dcm", "长" * 200 + ".dcm"]
)
async def test_file_names_stay_in_their_folder(site: Site, name: str):
    browser = await site.signed_in(DOCTOR)
    answer = await browser.send({name: encoded(series(1, seed=56)[0])})
    assert answer.status_code == 200
    assert "1 instances stored" in answer.text


def test_reasons_are_said_in_chinese():
    assert said("the file is truncated", "zh") == "文件不完整"
    assert said("BodyPartExamined has an odd length", "zh") == "BodyPartExamined 的长度为奇数"
