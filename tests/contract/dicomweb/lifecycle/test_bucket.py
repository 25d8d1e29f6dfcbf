"""A bucket behind the second folder, on a real S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import obstore
import psycopg
import pytest
from obstore.store import S3Store

from dicomweb.lifecycle.at_rest import bytes_at_rest
from dicomweb.lifecycle.bucket import Bucket, bucket_of
from dicomweb.lifecycle.copies import ChecksumError
from dicomweb.lifecycle.nearline import Nearline
from dicomweb.lifecycle.packed_files import Packed, PackedFiles
from dicomweb.lifecycle.remote_files import RemoteFiles
from foramen.kernel.errors import InvalidRequestError, UpstreamError
from foramen.supervisor.ports import free_port
from tests.builders.dicom import Orthanc
from tests.builders.s3_server import S3Server
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.lifecycle.files import AS_STORED, changed, files_in, kept, plain_files


async def test_an_offloaded_study_is_read_byte_by_byte_as_it_was_stored(
    gateway: Gateway,
    stored: Any,
    packing: PackedFiles,
    offloading: RemoteFiles,
    nearline: Nearline,
    s3: S3Server,
    tmp_path: Path,
    module_database_url: str,
):
    study, ids, names = stored
    before = [kept(tmp_path, name).read_bytes() for name in names]
    packing.pack(names[0])  # One lies compressed in the bucket, the other as it is.
    sizes = [sum(path.stat().st_size for path in files_in(tmp_path) if name in path.name) for name in names]
    assert [offloading.offload(name) for name in names] == sizes
    assert files_in(tmp_path) == []
    ends = {names[0]: ".packed", names[1]: ""}
    assert s3.keys() == sorted(f"foramen/{name[:2]}/{name[2:4]}/{name}{end}" for name, end in ends.items())
    assert await gateway.service._archive.read(ids[1], keep=False) == before[1]  # As DIMSE asks.
    whole = await gateway.get(f"/studies/{study}", accept=AS_STORED)
    assert whole.status_code == 200
    assert all(one in whole.content for one in before)
    assert not [one for one in nearline.verify() if one[0] in names]
    with psycopg.connect(module_database_url) as connection:
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid <> %s", (study,))
        found = bytes_at_rest(connection, tmp_path / "nearline", 10**9)
        connection.rollback()
    assert (found.remote, found.unpacked) == (sum(sizes), sum(map(len, before)))
    assert found.stored == 10**9 - len(before[0]) - len(before[1]) + found.unpacked
    assert packing.pack(names[1]) == Packed(0)  # What is in the bucket is not compressed any more.
    assert [offloading.offload(name) for name in names] == [len(one) for one in before]  # The readers' copies go.
    assert len(s3.keys()) == 2
    for name in names:
        assert nearline.recall(name) > 0
    assert s3.keys() == files_in(tmp_path) == []
    online = gateway.service._wado.files
    assert [(online._storage / name[:2] / name[2:4] / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("step", ["begun", "uploaded", "compared", "noted"])
async def test_a_crash_at_any_step_of_offloading_loses_nothing(
    gateway: Gateway,
    stored: Any,
    packing: PackedFiles,
    offloading: RemoteFiles,
    nearline: Nearline,
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
):
    _, _, names = stored
    name, before = names[0], kept(tmp_path, names[0]).read_bytes()

    class Crash(BaseException):
        pass

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    places = {"begun": (Bucket, "put"), "uploaded": (Bucket, "digest"), "compared": (RemoteFiles, "_let_go")}
    monkeypatch.setattr(*places.get(step, (Path, "unlink")), crash)
    with pytest.raises(Crash):
        offloading.offload(name)
    monkeypatch.undo()
    offloading._connection.rollback()
    offloading._connection.execute("SELECT pg_advisory_unlock_all()")
    offloading._connection.commit()
    await gateway.service._archive.unpacking.unpack(name)
    assert kept(tmp_path, name).read_bytes() == before
    if step in ("begun", "uploaded", "compared"):
        packing.pack(name)  # In between it took another form: nothing of the first stays in the bucket.
    assert offloading.offload(name) > 0
    assert not plain_files(tmp_path, [name])
    assert len(s3.keys()) == 1
    await gateway.service._archive.unpacking.unpack(name)
    assert kept(tmp_path, name).read_bytes() == before
    nearline.recall(name)
    assert s3.keys() == []


async def test_a_bucket_that_keeps_something_else_is_noticed_before_and_after(
    gateway: Gateway,
    stored: Any,
    offloading: RemoteFiles,
    nearline: Nearline,
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    _, _, names = stored
    name, put = names[0], Bucket.put

    def short(self: Bucket, key: str, path: Path) -> None:
        (tmp_path / "short").write_bytes(path.read_bytes()[:-1])
        put(self, key, tmp_path / "short")

    monkeypatch.setattr(Bucket, "put", short)
    with pytest.raises(ChecksumError):
        offloading.offload(name)
    monkeypatch.undo()
    assert plain_files(tmp_path, [name]) == [name]
    assert s3.keys() == []
    offloading.offload(name)
    (key,) = s3.keys()
    content = bytes(obstore.get(s3.store, key).bytes())
    own = lambda: [one for one in nearline.verify() if one[0] == name]  # noqa: E731
    for wrong, fault in ((changed(content), "changed"), (None, "missing")):
        obstore.delete(s3.store, key) if wrong is None else obstore.put(s3.store, key, wrong)
        assert own() == [(name, fault)]
        with pytest.raises((ChecksumError, UpstreamError)):
            await gateway.service._archive.unpacking.unpack(name)
        with pytest.raises((ChecksumError, UpstreamError)):
            nearline.recall(name)
    assert files_in(tmp_path) == [kept(tmp_path, names[1])]
    obstore.put(s3.store, key, content)
    assert own() == []
    for one in names:
        nearline.recall(one)


async def test_a_bucket_out_of_reach_is_no_missing_study_and_what_is_deleted_leaves_it(
    gateway: Gateway, stored: Any, offloading: RemoteFiles, nearline: Nearline, s3: S3Server, tmp_path: Path
):
    study, ids, names = stored
    (tmp_path / "wrong").write_text("SYNTHETIC")
    wrong = {**s3.settings, "nearline_folder": tmp_path, "nearline_s3_key_file": tmp_path / "wrong"}
    offloading._bucket = bucket_of(gateway.orthanc.settings.model_copy(update=wrong))
    with pytest.raises(UpstreamError):  # A wrong key.
        offloading.offload(names[0])
    assert plain_files(tmp_path, names) == names
    offloading._bucket = nearline._bucket
    for name in names:
        offloading.offload(name)
    unpacking, there = gateway.service._archive.unpacking, nearline._bucket
    settings = gateway.orthanc.settings.model_copy(
        update={
            **{**s3.settings, "nearline_folder": tmp_path, "nearline_s3_endpoint": f"http://127.0.0.1:{free_port()}"},
        }
    )
    nearline._bucket = unpacking._bucket = away = bucket_of(settings)
    away._store = S3Store.from_url(  # As it is set up, without trying for a minute.
        "s3://away", endpoint=settings.nearline_s3_endpoint, skip_signature=True, region="x",
        client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )  # fmt: skip
    answer = await gateway.get(f"/studies/{study}", accept=AS_STORED)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "127.0.0.1" not in answer.text
    with gateway.orthanc.client() as client:
        for one in ids:
            assert client.delete(f"/instances/{one}").status_code == 200
    with pytest.raises(UpstreamError):  # What it cannot delete it does not forget.
        nearline.sweep(study)
    nearline._bucket = unpacking._bucket = None
    with pytest.raises(UpstreamError):
        nearline.sweep(study)
    nearline._bucket = unpacking._bucket = there
    assert nearline.sweep(study) == 2
    assert s3.keys() == []


@pytest.mark.parametrize(
    "change",
    [
        {"nearline_s3_endpoint": "http://s3.example.org"},
        {"nearline_s3_endpoint": None},
        {"nearline_s3_key_file": None},
        {"nearline_s3_key_file": Path("/nowhere/at/all")},
        {"nearline_folder": None},
    ],
    ids=str,
)
def test_a_bucket_set_up_in_part_or_over_plain_http_is_refused(
    s3: S3Server, orthanc: Orthanc, tmp_path: Path, change: dict[str, Any]
):
    whole = {**s3.settings, "nearline_folder": tmp_path}
    with pytest.raises(InvalidRequestError):
        bucket_of(orthanc.settings.model_copy(update=whole | change))
    assert bucket_of(orthanc.settings) is None
