"""Compression that is cut off, or whose study goes meanwhile, loses nothing and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dicomweb.lifecycle.codec import Codec, pool_of
from dicomweb.lifecycle.nearline import Attachment, Nearline
from dicomweb.lifecycle.packed_files import PackedFiles
from dicomweb.lifecycle.turns import TURN
from dicomweb.lifecycle.unpacking import Unpacking
from tests.builders.dicom import series
from tests.builders.patience import patience
from tests.contract.dicomweb.conftest import Gateway
from tests.contract.dicomweb.lifecycle.files import kept, plain_files


@pytest.mark.parametrize("step", ["packed", "compared", "renamed", "noted", "let go"])
async def test_a_crash_between_any_two_steps_of_packing_leaves_the_study_readable(
    gateway: Gateway,
    stored: Any,
    packing: PackedFiles,
    nearline: Nearline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
):
    _, _, names = stored
    name = names[0]

    class Crash(BaseException):
        pass

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    before = kept(tmp_path, name).read_bytes()
    unpacking = gateway.service._archive.unpacking
    if step in ("packed", "compared"):
        place, calls = packing._codec, []

        def codec(operation: str, *files: Path) -> str:
            done = place(operation, *files)
            calls.append(operation)
            if calls[-1] == ("pack" if step == "packed" else "unpack"):
                crash()
            return done

        monkeypatch.setattr(packing, "_codec", codec)
        # A killed process removes nothing.
        monkeypatch.setattr(Path, "unlink", lambda self, **_: None)
    else:
        where = {"renamed": (PackedFiles, "_note"), "noted": (PackedFiles, "_let_go"), "let go": (Path, "unlink")}[step]
        monkeypatch.setattr(*where, crash)
    with pytest.raises(Crash):
        packing.pack(name)
    monkeypatch.undo()
    packing._connection.rollback()
    packing._connection.execute("SELECT pg_advisory_unlock_all()")
    packing._connection.commit()
    await unpacking.unpack(name)
    assert kept(tmp_path, name).read_bytes() == before
    assert packing.pack(name).freed > 0
    assert not plain_files(tmp_path, [name])
    await unpacking.unpack(name)
    assert kept(tmp_path, name).read_bytes() == before
    for one in names:
        nearline.recall(one)
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []


async def test_what_is_swept_while_it_is_packed_leaves_nothing(
    gateway: Gateway, stored: Any, packing: PackedFiles, nearline: Nearline, tmp_path: Path, codec: Codec
):
    _, ids, names = stored

    def deleted_meanwhile(operation: str, source: Path, target: Path) -> str:
        done = codec(operation, source, target)
        if operation == "unpack":
            with gateway.orthanc.client() as client:
                assert client.delete(f"/instances/{ids[0]}").status_code == 200
            assert nearline.sweep() >= 1
            target.write_bytes(original)  # A sweep takes what is being made, too; make it come after that.
            source.write_bytes(b"packed")
        return done

    original = kept(tmp_path, names[0]).read_bytes()
    packing._codec = deleted_meanwhile
    assert packing.pack(names[0]).freed == 0
    assert list(kept(tmp_path, names[0]).parent.iterdir()) == []


async def test_a_killed_compression_loses_no_image_and_the_next_one_finishes(
    gateway: Gateway, nearline: Nearline, tmp_path: Path, module_database_url: str
):
    """A real process, killed twice in the middle; its codec processes go with it."""
    images = series(24, seed=4711, size=(256, 256), patient_id="LIFE-KILLED")
    study, known = str(images[0].StudyInstanceUID), {str(image.SOPInstanceUID) for image in images}
    assert (await gateway.store(*images)).status_code == 200
    with gateway.orthanc.client() as client:
        ids = [client.post("/tools/lookup", content=uid).json()[0]["ID"] for uid in sorted(known)]
        names = [client.get(f"/instances/{one}/attachments/dicom/info").json()["Uuid"] for one in ids]
    for name in names:
        nearline.move(Attachment(name, study))
    before = {name: kept(tmp_path, name).read_bytes() for name in names}
    changed = {"nearline_folder": tmp_path / "nearline", "nearline_compress_after_days": 365}
    changed |= {"database_url": module_database_url, "nearline_states": "registered,on-hold,stored"}
    changed |= {"nearline_unused_days": 0}
    settings = gateway.orthanc.settings.model_copy(update=changed)
    values = {name.upper(): str(value) for name, value in settings.model_dump(exclude_none=True, mode="json").items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORAMEN_")}
    environment = inherited | {f"FORAMEN_{name}": value for name, value in values.items()}

    def compress() -> subprocess.Popen[str]:
        with psycopg.connect(module_database_url) as connection:
            connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid <> %s", (study,))
            connection.execute(
                "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02'"
                " WHERE study_instance_uid = %s",
                (study,),
            )
        command = [sys.executable, "-m", "foramen", "lifecycle", "compress"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    async def compressing(enough: int) -> subprocess.Popen[str]:
        """A process that has compressed so many, and is at the next ones."""
        running = compress()
        while len(names) - len(plain_files(tmp_path, names)) < enough:
            if running.poll() is not None:  # The intake was at the study just now: it was not due.
                running = compress()
            await asyncio.sleep(0.02)
        return running

    for enough in (4, 12):
        running = await asyncio.wait_for(compressing(enough), patience(60))
        running.kill()
        assert running.wait() == -signal.SIGKILL
        left = plain_files(tmp_path, names)
        assert 0 < len(left) < len(names)
    pool = pool_of(settings)
    unpacking = Unpacking(gateway.service._database, tmp_path / "nearline", pool)
    for name in names:
        assert await unpacking.unpack(name)
        assert kept(tmp_path, name).read_bytes() == before[name]
    await pool.close()
    running = await asyncio.wait_for(compressing(len(names)), patience(60))
    assert await asyncio.to_thread(running.wait, 60) == 0
    assert not [one for one in nearline.verify() if one[0] in names]
    folders = {kept(tmp_path, name).parent for name in names}
    assert sorted(path.name for one in folders for path in one.iterdir()) == sorted(f"{name}.packed" for name in names)
    with psycopg.connect(module_database_url) as connection:  # Not due for the tests that follow.
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid = %s", (study,))
        young = "UPDATE dicomweb.study SET study_date = '20260105' WHERE study_instance_uid = %s"
        connection.execute(young, (study,))


async def test_deleting_a_compressed_image_leaves_nothing_of_it(
    gateway: Gateway, stored: Any, packing: PackedFiles, nearline: Nearline, tmp_path: Path
):
    study, ids, names = stored
    for name in names:
        packing.pack(name)
    with gateway.orthanc.client() as client:
        for one in ids:
            assert client.delete(f"/instances/{one}").status_code == 200
    assert nearline.sweep(study) == 2
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []
    # Deleted while it was being unpacked for a reader: no copy of it appears.
    assert await gateway.service._archive.unpacking.unpack(names[0]) is False


async def test_a_study_that_is_swept_while_it_is_unpacked_leaves_no_copy(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path, module_database_url: str
):
    _, _, names = stored
    packing.pack(names[0])
    with psycopg.connect(module_database_url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (TURN,))
        connection.commit()
        unpacking = asyncio.create_task(gateway.service._archive.unpacking.unpack(names[0]))
        folder = tmp_path / "nearline" / names[0][:2] / names[0][2:4]

        async def made() -> bool:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            return bool(connection.execute(waiting).fetchone()[0])

        await gateway.until(made)
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE attachment = %s", (names[0],))
        connection.commit()
        connection.execute("SELECT pg_advisory_unlock(%s)", (TURN,))
        connection.commit()
    assert await unpacking is False
    assert [path.name for path in folder.iterdir()] == [f"{names[0]}.packed"]
