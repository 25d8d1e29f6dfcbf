"""Fixtures: a stored study, the second folder, what packs there, a bucket behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dicomweb.lifecycle.bucket import Bucket, bucket_of
from dicomweb.lifecycle.codec import Codec, pool_of, waiting_codec
from dicomweb.lifecycle.nearline import Attachment, Nearline
from dicomweb.lifecycle.packed_files import PackedFiles
from dicomweb.lifecycle.remote_files import RemoteFiles
from dicomweb.lifecycle.unpacking import Unpacking
from dicomweb.retrieve.codec_pool import CodecPool
from tests.builders.dicom import Orthanc, series
from tests.builders.s3_server import S3Server
from tests.contract.dicomweb.conftest import Gateway

_SEEDS = count(1)  # Each test has a study of its own.


@pytest.fixture
async def stored(gateway: Gateway) -> tuple[str, list[str], list[str]]:
    """A study of two instances: its UID, Orthanc ids, and names of their files."""
    seed = next(_SEEDS)
    instances = series(2, seed=seed, patient_id=f"LIFE-{seed}")
    assert (await gateway.store(*instances)).status_code == 200
    study = str(instances[0].StudyInstanceUID)
    with gateway.orthanc.client() as client:
        found = [client.post("/tools/lookup", content=str(one.SOPInstanceUID)).json()[0]["ID"] for one in instances]
        names = [client.get(f"/instances/{one}/attachments/dicom/info").json()["Uuid"] for one in found]
    return study, found, names


@pytest.fixture
def online(gateway: Gateway) -> Path:
    return gateway.orthanc.settings.home / "orthanc" / "storage"


@pytest.fixture
def nearline(gateway: Gateway, online: Path, tmp_path: Path, module_database_url: str) -> Any:
    with psycopg.connect(module_database_url) as connection:
        yield Nearline(connection, online, tmp_path / "nearline")


@pytest.fixture(scope="module")
def codec(orthanc: Orthanc) -> Iterator[Codec]:
    """The gateway's own codec processes; asked in a thread, as a command would without an event loop."""
    with ThreadPoolExecutor(1) as thread:
        lent = waiting_codec(orthanc.settings)
        ask = thread.submit(lent.__enter__).result()
        yield lambda *request: thread.submit(ask, *request).result()
        thread.submit(lent.__exit__, None, None, None).result()


@pytest.fixture(scope="module")
async def pool(orthanc: Orthanc) -> AsyncIterator[CodecPool]:
    """The processes that unpack for readers."""
    started = pool_of(orthanc.settings)
    yield started
    await started.close()


@pytest.fixture
async def packing(
    gateway: Gateway, stored: Any, nearline: Nearline, codec: Codec, pool: CodecPool, tmp_path: Path
) -> AsyncIterator[PackedFiles]:
    """The study's files in the nearline folder, and what packs them there; the gateway knows of the folder."""
    study, _, names = stored
    nearline._codec = codec
    for name in names:
        nearline.move(Attachment(name, study))
    archive = gateway.service._archive
    archive.unpacking = Unpacking(gateway.service._database, tmp_path / "nearline", pool)
    yield PackedFiles(nearline._connection, tmp_path / "nearline", codec)
    archive.unpacking = None


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3: S3Server, orthanc: Orthanc, tmp_path: Path) -> Bucket:
    changed = {**s3.settings, "nearline_folder": tmp_path / "nearline"}
    found = bucket_of(orthanc.settings.model_copy(update=changed))
    assert found is not None
    return found


@pytest.fixture
def offloading(
    gateway: Gateway, packing: PackedFiles, nearline: Nearline, bucket: Bucket, s3: S3Server, tmp_path: Path
) -> RemoteFiles:
    """As `packing`, with a bucket behind the folder."""
    assert s3.keys() == []
    nearline._bucket = gateway.service._archive.unpacking._bucket = bucket
    return RemoteFiles(nearline._connection, tmp_path / "nearline", bucket)
