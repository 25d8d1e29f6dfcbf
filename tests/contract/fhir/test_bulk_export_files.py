"""Files of an export: ranges, compression, size, their end, and how often one may ask for them.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest

from tests.contract.fhir.api import Api, patient_resource, refused, running
from tests.contract.fhir.bulk_exports import (
    ASYNC,
    exported,
    finished,
    lines,
    patients,
)


async def test_ranges_and_compression(bulk_api: Api) -> None:
    await patients(bulk_api, *(f"ranged-{number}" for number in range(5)))
    manifest = await exported(bulk_api, "$export?_type=Patient")
    url = manifest["output"][0]["url"]
    whole = await bulk_api.get(url, accept_encoding="identity")
    size = int(whole.headers["content-length"])
    assert size == len(whole.content)
    etag = whole.headers["etag"]
    for asked, expected in (
        ("bytes=0-9", whole.content[:10]),
        (f"bytes={size - 5}-", whole.content[-5:]),
        ("bytes=-7", whole.content[-7:]),
        ("bytes=5-99999999", whole.content[5:]),
    ):
        part = await bulk_api.get(url, range=asked, if_range=etag)
        assert part.status_code == 206
        assert part.content == expected
        assert part.headers["content-range"].endswith(f"/{size}")
    assert (
        await bulk_api.get(url, range="bytes=0-9", if_range='"another"', accept_encoding="identity")
    ).status_code == 200
    beyond = await bulk_api.get(url, range=f"bytes={size}-")
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{size}"
    async with bulk_api.http.stream("GET", url, headers={**bulk_api.headers, "accept-encoding": "gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        raw = b"".join([piece async for piece in packed.aiter_raw()])
    assert gzip.decompress(raw) == whole.content
    head = await bulk_api.http.head(url, headers={**bulk_api.headers, "accept-encoding": "identity"})
    assert int(head.headers["content-length"]) == size


async def test_cancel_removes_everything(bulk_api: Api, home: Path) -> None:
    await patients(bulk_api, "cancelled-1")
    response = await bulk_api.get("/fhir/$export?_type=Patient", **ASYNC)
    manifest = (await finished(bulk_api, response)).json()
    status = response.headers["content-location"]
    folder = home / "bulk" / status.rpartition("/")[2]
    assert list(folder.iterdir())
    assert (await bulk_api.delete(status)).status_code == 202
    refused(await bulk_api.get(status), 404, "not-found")
    refused(await bulk_api.get(manifest["output"][0]["url"]), 404, "not-found")
    for _ in range(100):
        if not folder.exists():
            break
        await asyncio.sleep(0.05)
    assert not folder.exists()
    refused(await bulk_api.delete(status), 404, "not-found")


async def test_files_are_split_at_their_size(
    bulk_api: Api, monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_FILE_BYTES", "2000")
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
    async with running(database_url) as (_, client):
        api = Api(client)
        for number in range(30):
            await api.put_ok({**patient_resource(), "id": f"p-{number}"})
        manifest = await exported(api, "$export?_type=Patient")
        assert len(manifest["output"]) >= 4
        rows = (await lines(api, manifest))["Patient"]
        assert sorted(row["id"] for row in rows) == sorted(f"p-{number}" for number in range(30))
        for item in manifest["output"]:
            size = int((await api.get(item["url"], accept_encoding="identity")).headers["content-length"])
            assert 0 < size < 4000


async def test_asking_too_often_is_slowed_down(
    bulk_api: Api, monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "3")
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "3")
    async with running(database_url) as (_, client):
        api = Api(client)
        url = (await api.get("/fhir/$export", **ASYNC)).headers["content-location"]
        answers = [await api.get(url) for _ in range(8)]
        assert [a.status_code for a in answers[:3]] == [202, 202, 202]
        slowed = next(a for a in answers if a.status_code == 429)
        refused(slowed, 429, "throttled")
        assert slowed.headers["retry-after"] == "1"
        assert (await api.delete(url)).status_code == 202
