"""Files of the archive, found and read directly; without its folder, by HTTP: the answers are the same.

DICOM PS3.18 §10.4
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.retrieve.fetched_files import FetchedFiles
from dicomweb.retrieve.stored_files import StoredFiles
from dicomweb.study_index import IndexedInstance
from foramen.kernel.errors import NotFoundError
from foramen.kernel.secret_files import read_or_create_secret
from tests.builders.dicom import encoded, series
from tests.contract.dicomweb.conftest import Gateway

pytestmark = pytest.mark.requirement("PS3.18 10.4: retrieve, from files of the archive or through it")


@pytest.fixture(scope="module")
async def stored(gateway: Gateway) -> list[Dataset]:
    datasets = series(3, seed=531, patient_id="SYN-531")
    assert (await gateway.store(*datasets)).status_code == 200
    return datasets


async def parts(gateway: Gateway, url: str, folder: Path) -> tuple[StoredFiles, Database, Archive]:
    settings, database = gateway.orthanc.settings, Database(url)
    password = read_or_create_secret(settings.home, "orthanc")
    archive = Archive(settings.archive_url, settings.orthanc_username, password)
    return StoredFiles(database, archive, folder, FetchedFiles(settings.home / "f", 4000)), database, archive


async def indexed(database: Database, study: str) -> list[IndexedInstance]:
    query = """SELECT study_instance_uid, series_instance_uid, sop_instance_uid, orthanc_id, transfer_syntax_uid, frames
               FROM dicomweb.instance WHERE study_instance_uid = $1 ORDER BY instance_number"""
    async with database.connection() as connection:
        return [IndexedInstance(*row) for row in await connection.fetch(query, study)]


async def test_files_are_found_once_and_are_what_was_stored(
    gateway: Gateway, module_database_url: str, stored: list[Dataset]
):
    storage = gateway.orthanc.settings.home / "orthanc" / "storage"
    files, database, archive = await parts(gateway, module_database_url, storage)
    instances = await indexed(database, stored[0].StudyInstanceUID)
    await files.fill(stored[0].StudyInstanceUID)
    gateway.orthanc.stop()  # What is known is not asked for again.
    try:
        again, other, _ = await parts(gateway, module_database_url, storage)
        for instance, dataset in zip(instances, stored, strict=True):
            path, layout = await again.layout(instance)
            assert path.read_bytes() == encoded(dataset)
            ((offset, length),) = layout.frame(1) or [(0, 0)]
            assert path.read_bytes()[offset : offset + length] == dataset.PixelData
        await other.close()
    finally:
        gateway.orthanc.start()
    await archive.close()
    await database.close()


async def test_without_the_folder_files_are_fetched_within_a_limit(
    gateway: Gateway, module_database_url: str, stored: list[Dataset], tmp_path: Path
):
    files, database, archive = await parts(gateway, module_database_url, tmp_path / "nowhere")
    assert not files.within_reach
    instances = await indexed(database, stored[0].StudyInstanceUID)
    for instance, dataset in zip(instances, stored, strict=True):
        path, layout = await files.layout(instance)
        assert path.read_bytes() == encoded(dataset)
        assert layout.direct
    kept = list((gateway.orthanc.settings.home / "f").rglob("*-*"))
    assert sum(path.stat().st_size for path in kept) <= 4000 or len(kept) == 1
    await archive.close()
    await database.close()


async def test_a_deleted_file_is_not_found_and_not_an_error(
    gateway: Gateway, module_database_url: str, stored: list[Dataset]
):
    storage = gateway.orthanc.settings.home / "orthanc" / "storage"
    files, database, archive = await parts(gateway, module_database_url, storage)
    extra = series(1, seed=532, patient_id="SYN-532")
    await gateway.store(*extra)
    (instance,) = await indexed(database, extra[0].StudyInstanceUID)
    before = await files.path(instance)
    with gateway.orthanc.client() as client:
        client.delete(f"/instances/{instance.orthanc_id}")
        with pytest.raises(NotFoundError):
            await files.path(instance)
        client.post("/instances", content=encoded(extra[0]))
    after = await files.path(instance)
    assert after != before
    assert after.read_bytes() == encoded(extra[0])
    await archive.close()
    await database.close()
