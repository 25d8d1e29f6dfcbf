"""Metadata: prebuilt, passed on compressed, in XML too; never stale, and decided for each request.

DICOM PS3.18 §10.4.1.1.2; RFC 9110 §8.8.3 (ETag), §12.5.3 (Accept-Encoding)
"""

from __future__ import annotations

import asyncio
import gzip
from importlib.resources import files
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
import zstandard
from pydicom import Dataset

from tests.builders.dicom import series
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import READ, Gateway

XML = 'multipart/related; type="application/dicom+xml"'
NATIVE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


@pytest.fixture(scope="module")
async def study(gateway: Gateway) -> list[Dataset]:
    """Two series of one study."""
    first, second = series(3, seed=33, patient_id="SYN-33"), series(2, seed=34, patient_id="SYN-33")
    for dataset in second:
        dataset.StudyInstanceUID = first[0].StudyInstanceUID
    assert (await gateway.store(*first, *second)).status_code == 200
    return [*first, *second]


async def metadata(gateway: Gateway, path: str, encoding: str = "identity", **headers: str) -> httpx.Response:
    return await gateway.http.get(f"{path}/metadata", headers=gateway.reader | {"Accept-Encoding": encoding} | headers)


async def raw(gateway: Gateway, path: str, encoding: str) -> tuple[httpx.Headers, bytes]:
    headers = gateway.reader | {"Accept-Encoding": encoding}
    async with gateway.http.stream("GET", f"{path}/metadata", headers=headers) as answer:
        return answer.headers, b"".join([chunk async for chunk in answer.aiter_raw()])


def of(dataset: Dataset, level: str = "study") -> str:
    path = f"/studies/{dataset.StudyInstanceUID}"
    path += f"/series/{dataset.SeriesInstanceUID}" if level != "study" else ""
    return path + (f"/instances/{dataset.SOPInstanceUID}" if level == "instance" else "")


def uids(items: list[dict[str, Any]]) -> set[str]:
    return {item["00080018"]["Value"][0] for item in items}


@pytest.mark.requirement("PS3.18 10.4.1.1.2: metadata of studies, series and instances")
async def test_every_level_has_its_instances(gateway: Gateway, study: list[Dataset]):
    found = (await metadata(gateway, of(study[0]))).json()
    assert uids(found) == {item.SOPInstanceUID for item in study}
    assert uids((await metadata(gateway, of(study[4], "series"))).json()) == {item.SOPInstanceUID for item in study[3:]}
    (one,) = (await metadata(gateway, of(study[1], "instance"))).json()
    assert one in found
    assert one["7FE00010"]["BulkDataURI"].startswith("http://127.0.0.1:8000/dicom-web/studies/")
    assert one["00200032"]["Value"] == [float(number) for number in study[1].ImagePositionPatient]


@pytest.mark.requirement("RFC 9110 12.5.3: metadata passed on as gzip and zstd")
async def test_compressed_forms_hold_the_same(gateway: Gateway, study: list[Dataset]):
    headers, plain = await raw(gateway, of(study[0]), "identity")
    assert "content-encoding" not in headers
    assert int(headers["content-length"]) == len(plain)
    headers, packed = await raw(gateway, of(study[0]), "gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 4
    headers, packed = await raw(gateway, of(study[0]), "gzip;q=0.5, zstd, br")
    assert headers["content-encoding"] == "zstd"
    reader = zstandard.ZstdDecompressor().stream_reader(BytesIO(packed), read_across_frames=True)
    assert reader.read() == plain
    headers, _ = await raw(gateway, of(study[0]), "gzip;q=0, br")
    assert "content-encoding" not in headers


@pytest.mark.requirement("RFC 9110 13.1.2: If-None-Match answers 304; what changed is told")
async def test_entity_tags(gateway: Gateway, study: list[Dataset]):
    more = series(3, seed=35, patient_id="SYN-35")
    await gateway.store(*more[:2])
    path = of(more[0])
    first = await metadata(gateway, path)
    tag = first.headers["etag"]
    same = await metadata(gateway, path, **{"If-None-Match": f'"x", {tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert (await metadata(gateway, path, Accept=XML, **{"If-None-Match": tag})).status_code == 200
    # Out of scope is as absent, also for who knows the tag.
    stranger = bearer("patient/ImagingStudy.rs", patient="nobody") | {"If-None-Match": tag}
    assert (await gateway.http.get(f"{path}/metadata", headers=stranger)).status_code == 404
    await gateway.store(more[2])
    grown = await metadata(gateway, path, **{"If-None-Match": tag})
    assert grown.status_code == 200
    assert uids(grown.json()) == {item.SOPInstanceUID for item in more}
    assert grown.headers["etag"] != tag


async def test_it_is_built_before_anybody_asks(gateway: Gateway, study: list[Dataset]):
    (one,) = series(1, seed=36, patient_id="SYN-36")
    await gateway.store(one)
    query = "SELECT revision FROM dicomweb.series_metadata WHERE study_instance_uid = $1"

    async def built() -> Any:
        async with gateway.service._database.connection() as connection:
            return await connection.fetchval(query, one.StudyInstanceUID)

    assert await gateway.until(built)


async def test_many_writers_leave_counts_and_metadata_right(gateway: Gateway):
    slices = series(8, seed=37, patient_id="SYN-37")
    answers = await asyncio.gather(*(gateway.store(item) for item in slices))
    assert {answer.status_code for answer in answers} == {200}
    (found,) = (await gateway.get(f"/studies?StudyInstanceUID={slices[0].StudyInstanceUID}")).json()
    assert found["00201208"]["Value"] == [8]
    assert found["00201206"]["Value"] == [1]
    assert len((await metadata(gateway, of(slices[0]))).json()) == 8


@pytest.mark.requirement("PS3.18 8.7.3.3: metadata as multipart application/dicom+xml")
async def test_xml(gateway: Gateway, study: list[Dataset]):
    for level, count in (("series", 3), ("instance", 1)):
        answer = await metadata(gateway, of(study[0], level), Accept=XML)
        boundary = answer.headers["content-type"].partition("boundary=")[2]
        parts = answer.content.split(f"--{boundary}".encode())[1:-1]
        assert len(parts) == count
        model = ElementTree.fromstring(parts[0].partition(b"\r\n\r\n")[2])  # noqa: S314  our own answer
        named = {item.get("keyword"): item for item in model}
        assert named["SOPInstanceUID"].findtext(f"{NATIVE}Value") == study[0].SOPInstanceUID
        assert named["PixelData"].find(f"{NATIVE}BulkData").get("uri").startswith("http://127.0.0.1:8000/dicom-web/")


async def test_head(gateway: Gateway, study: list[Dataset]):
    answer = await gateway.http.head(f"{of(study[0])}/metadata", headers=gateway.reader)
    assert answer.status_code == 200
    assert answer.content == b""
    whole = await gateway.get(f"{of(study[0])}/metadata", READ)
    assert answer.headers["etag"] == whole.headers["etag"]
    assert answer.headers["content-type"] == whole.headers["content-type"]


async def test_rows_of_an_older_index_are_made_anew(gateway: Gateway, study: list[Dataset]):
    from dicomweb.index.rebuilding import rebuild

    uid = study[0].StudyInstanceUID
    query = f"/instances?StudyInstanceUID={uid}&includefield=all&SeriesDescription=*SYNTHETIC*"
    before = (await gateway.get(query)).json()
    async with gateway.service._database.connection() as connection:
        await connection.execute(
            """UPDATE dicomweb.instance SET index_version = 0, attributes = '{}', sop_class_uid = NULL
               WHERE study_instance_uid = $1""",
            uid,
        )
        await connection.execute(
            """UPDATE dicomweb.study SET name_alphabetic = NULL, description = NULL, grams = NULL
               WHERE study_instance_uid = $1""",
            uid,
        )
    assert await rebuild(gateway.service._database) == 1
    assert await rebuild(gateway.service._database) == 0
    assert (await gateway.get(query)).json() == before
    for part in ("*THETIC*", "*TH*"):
        found = await gateway.get(f"/studies?StudyInstanceUID={uid}&PatientName={part}")
        assert len(found.json()) == 1
    async with gateway.service._database.connection() as connection:
        pieces = "SELECT grams FROM dicomweb.study WHERE study_instance_uid = $1"
        now = await connection.fetchval(pieces, uid)
        await connection.execute(
            """UPDATE dicomweb.study SET grams = ARRAY(SELECT g FROM unnest(grams) g WHERE char_length(g) <> 3)
               WHERE study_instance_uid = $1""",
            uid,
        )
        assert len(await connection.fetchval(pieces, uid)) < len(now)
        await connection.execute(files("dicomweb.migrations").joinpath("0065_short_pieces.sql").read_text())
        assert set(await connection.fetchval(pieces, uid)) == set(now)
