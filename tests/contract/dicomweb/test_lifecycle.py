"""Files in the nearline folder stay readable by Orthanc and the gateway; holds stop deletion; crashes lose nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import obstore
import psycopg
import pytest
from obstore.store import S3Store
from typer.testing import CliRunner, Result

from dicomweb.lifecycle.archive_sizes import measure
from dicomweb.lifecycle.at_rest import bytes_at_rest
from dicomweb.lifecycle.bucket import Bucket, bucket_of
from dicomweb.lifecycle.codec import Codec, pool_of, waiting_codec
from dicomweb.lifecycle.copies import ChecksumError
from dicomweb.lifecycle.last_access import LastAccess
from dicomweb.lifecycle.legal_holds import in_force, place, release, require_not_held
from dicomweb.lifecycle.nearline import Attachment, Nearline
from dicomweb.lifecycle.packed_files import Packed, PackedFiles
from dicomweb.lifecycle.remote_files import RemoteFiles
from dicomweb.lifecycle.rules import TierRules, attachment, due, to_pack
from dicomweb.lifecycle.turns import TURN
from dicomweb.lifecycle.unpacking import Unpacking
from dicomweb.retrieve.codec_pool import CodecPool
from foramen.cli import app
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError, InvalidRequestError, NotFoundError, UpstreamError
from foramen.supervisor.ports import free_port
from tests.builders.dicom import Orthanc, series
from tests.builders.patience import patience
from tests.builders.s3_server import S3Server
from tests.builders.tokens import bearer
from tests.contract.dicomweb.conftest import Gateway

WHO = AccessContext("archivist", "foramen-cli", ())
RULES = TierRules(365, unused_days=90, pack_after_days=730)
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.fixture
async def stored(gateway: Gateway, request: pytest.FixtureRequest) -> tuple[str, list[str], list[str]]:
    """A study of two instances: its UID, Orthanc ids, and names of their files."""
    seed = abs(hash(request.node.name)) % 10_000
    instances = series(2, seed=seed, patient_id=f"LIFE-{seed}")
    assert (await gateway.store(*instances)).status_code == 200
    study = str(instances[0].StudyInstanceUID)
    with gateway.orthanc.client() as client:
        found = [client.post("/tools/lookup", content=str(one.SOPInstanceUID)).json()[0]["ID"] for one in instances]
        names = [client.get(f"/instances/{one}/attachments/dicom/info").json()["Uuid"] for one in found]
    return study, found, names


def changed(content: bytes, bit: int = 1) -> bytes:
    """The same length, another last byte."""
    return content[:-1] + bytes([content[-1] ^ bit])


@pytest.fixture
def online(gateway: Gateway) -> Path:
    return gateway.orthanc.settings.home / "orthanc" / "storage"


@pytest.fixture
def nearline(gateway: Gateway, online: Path, tmp_path: Path, module_database_url: str) -> Any:
    with psycopg.connect(module_database_url) as connection:
        yield Nearline(connection, online, tmp_path / "nearline")


async def test_a_moved_file_is_read_by_orthanc_and_gateway_and_comes_back(
    gateway: Gateway, stored: Any, nearline: Nearline, online: Path, tmp_path: Path
):
    study, ids, names = stored
    with gateway.orthanc.client() as client:
        before = [client.get(f"/instances/{one}/file").content for one in ids]
        for name in names:
            assert nearline.move(Attachment(name, study)) > 0
            assert nearline.move(Attachment(name, study)) == 0
            assert (online / name[:2] / name[2:4] / name).is_symlink()
        assert [client.get(f"/instances/{one}/file").content for one in ids] == before
        response = await gateway.get(
            f"/studies/{study}", accept='multipart/related; type="application/dicom"; transfer-syntax=*'
        )
        assert response.status_code == 200
        assert before[0] in response.content
        assert not [one for one in nearline.verify() if one[0] in names]
        for name in names:
            assert nearline.recall(name) > 0
            assert not (online / name[:2] / name[2:4] / name).is_symlink()
        assert [client.get(f"/instances/{one}/file").content for one in ids] == before
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []


async def test_a_copy_outlives_no_study_and_orthancs_deletion_leaves_the_copy_to_the_sweep(
    gateway: Gateway, stored: Any, nearline: Nearline, tmp_path: Path
):
    study, ids, names = stored
    for name in names:
        nearline.move(Attachment(name, study))
    nearline.sweep()
    assert nearline.sweep() == 0
    with gateway.orthanc.client() as client:
        assert client.delete(f"/instances/{ids[0]}").status_code == 200
    assert nearline.sweep() == 1
    assert len([path for path in (tmp_path / "nearline").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("step", ["copied", "noted", "linked"])
async def test_a_crash_at_any_step_loses_nothing(
    gateway: Gateway, stored: Any, nearline: Nearline, online: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    """The steps of a move are cut off one after the other; the file is read, and the move is done again."""
    study, ids, names = stored

    class Crash(BaseException):
        pass

    def crash(*_: Any, **__: Any) -> None:
        raise Crash

    where = {"copied": (psycopg.Connection, "execute"), "noted": (Path, "symlink_to"), "linked": (Path, "replace")}[
        step
    ]
    original = Path.replace
    if step == "linked":
        monkeypatch.setattr(
            Path, "replace", lambda self, to: crash() if self.name.endswith(".link") else original(self, to)
        )
    else:
        monkeypatch.setattr(*where, crash)
    with pytest.raises(Crash):
        nearline.move(Attachment(names[0], study))
    monkeypatch.undo()
    with gateway.orthanc.client() as client:
        assert client.get(f"/instances/{ids[0]}/file").status_code == 200
        assert nearline.move(Attachment(names[0], study)) > 0
        assert client.get(f"/instances/{ids[0]}/file").status_code == 200


async def test_a_broken_copy_is_noticed_and_never_takes_the_originals_place(
    gateway: Gateway, stored: Any, nearline: Nearline, online: Path, tmp_path: Path
):
    study, _, names = stored
    name = names[0]
    nearline.move(Attachment(name, study))
    copy = tmp_path / "nearline" / name[:2] / name[2:4] / name
    copy.write_bytes(changed(copy.read_bytes()))
    own = lambda: [one for one in nearline.verify() if one[0] == name]  # noqa: E731
    assert own() == [(name, "changed")]
    with pytest.raises(ChecksumError):
        nearline.recall(name)
    copy.unlink()
    assert own() == [(name, "missing")]
    with pytest.raises(UpstreamError):
        nearline.recall(name)
    assert os.path.lexists(online / name[:2] / name[2:4] / name)  # noqa: ASYNC240


async def test_a_held_study_is_not_removed_until_it_is_released(stored: Any, module_database_url: str):
    study, *_ = stored
    with psycopg.connect(module_database_url) as connection:
        require_not_held(connection, study)
        with pytest.raises(InvalidRequestError):
            place(connection, study, " ", WHO)
        place(connection, study, "court order 1", WHO)
        with pytest.raises(ConflictError):
            place(connection, study, "again", WHO)
        with pytest.raises(ConflictError):
            require_not_held(connection, study)
        assert [one.reason for one in in_force(connection) if one.study_instance_uid == study] == ["court order 1"]
        release(connection, study, WHO)
        require_not_held(connection, study)
        with pytest.raises(NotFoundError):
            release(connection, study, WHO)
        with pytest.raises(NotFoundError):
            place(connection, "1.2.3.9999", "no such study", WHO)
        events = [
            json.loads(row[0]) for row in connection.execute("SELECT event FROM dicomweb.audit_outbox").fetchall()
        ]
    codes = [one["subtype"][0]["code"] for one in events if f"urn:oid:{study}" in json.dumps(one)]
    assert codes[-2:] == ["legal-hold", "legal-hold-release"]


async def test_sizes_are_those_of_the_archive(gateway: Gateway, stored: Any):
    with gateway.orthanc.client() as client:
        found = measure(client)
        assert {one.modality for one in found.studies} == {"MR"}
        assert sum(one.size for one in found.studies) <= found.disk_size
        assert sum(one.instances for one in found.studies) == client.get("/statistics").json()["CountInstances"]
        assert all(one.size > 0 for one in found.studies)


async def test_old_registered_studies_are_due_and_young_or_waiting_ones_are_not(
    stored: Any, module_database_url: str, gateway: Gateway
):
    study, ids, names = stored
    today = date(2026, 11, 22)
    with psycopg.connect(module_database_url) as connection:
        old = (
            "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02', state = %s"
            " WHERE study_instance_uid = %s"
        )
        connection.execute(old, ("on-hold", study))
        assert study not in dict(due(connection, today, RULES))
        assert study in dict(due(connection, today, TierRules(365, states=("registered", "on-hold"))))
        connection.execute(old, ("registered", study))
        assert sorted(dict(due(connection, today, RULES))[study]) == sorted(ids)
        assert study not in dict(due(connection, today, TierRules(365 * 20)))
        connection.rollback()
    with gateway.orthanc.client() as client:
        assert attachment(client, study, ids[0]) == Attachment(names[0], study)
        assert attachment(client, study, "0" * 8) is None


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


def kept(tmp_path: Path, name: str) -> Path:
    return tmp_path / "nearline" / name[:2] / name[2:4] / name


def plain_files(tmp_path: Path, names: list[str]) -> list[str]:
    return [name for name in names if kept(tmp_path, name).exists()]


async def test_a_compressed_study_is_read_byte_by_byte_as_it_was_stored(
    gateway: Gateway, stored: Any, packing: PackedFiles, nearline: Nearline, tmp_path: Path, module_database_url: str
):
    study, ids, names = stored
    before = [kept(tmp_path, name).read_bytes() for name in names]
    assert [packing.pack(name).freed > 0 for name in names] == [True, True]
    assert not plain_files(tmp_path, names)
    assert await gateway.service._archive.read(ids[0], keep=False) == before[0]  # As DIMSE asks.
    assert plain_files(tmp_path, names) in ([], names[:1])  # Orthanc keeps in memory what it read or stored last.
    await gateway.service._archive.unpacking.unpack(names[0])
    assert plain_files(tmp_path, names) == names[:1]
    assert [packing.pack(name).freed > 0 for name in names] == [True, False]
    whole = await gateway.get(f"/studies/{study}", accept=AS_STORED)
    assert whole.status_code == 200
    assert all(one in whole.content for one in before)
    assert not [one for one in nearline.verify() if one[0] in names]
    with psycopg.connect(module_database_url) as connection:
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid <> %s", (study,))
        found = bytes_at_rest(connection, tmp_path / "nearline", 10**9)
        connection.rollback()
    assert (found.files, found.original, found.unpacked) == (2, sum(map(len, before)), sum(map(len, before)))
    assert 0 < found.packed < found.original
    assert found.stored == 10**9 - found.saved + found.unpacked
    for name in names:
        packing.pack(name)
        assert nearline.recall(name) > 0
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []
    online = gateway.service._wado.files
    assert [(online._storage / name[:2] / name[2:4] / name).read_bytes() for name in names] == before


async def test_frames_and_pictures_of_a_compressed_image_come_from_where_they_always_came(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path
):
    study, _, names = stored
    found = (await gateway.get(f"/studies/{study}/instances")).json()
    path = "/studies/{}/series/{}/instances/{}".format(
        *(found[0][tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    )
    asked = [(f"{path}/frames/1", "application/octet-stream"), (f"{path}/rendered", "image/png")]
    before = [(await gateway.get(*one[:1], accept=one[1])).content for one in asked]
    for one, expected in zip(asked, before, strict=True):
        for name in names:
            packing.pack(name)
        assert not plain_files(tmp_path, names)
        again = await gateway.get(one[0], accept=one[1])
        assert (again.status_code, again.content) == (200, expected)


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


async def test_what_does_not_come_back_exactly_stays_as_it_is(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path, codec: Codec
):
    _, _, names = stored

    def wrong(operation: str, source: Path, target: Path) -> str:
        done = codec(operation, source, target)
        if operation == "unpack":
            target.write_bytes(changed(target.read_bytes(), bit=2))
        return done

    packing._codec = wrong
    done = packing.pack(names[0])
    assert (done.kept, done.freed) == (True, 0)
    assert plain_files(tmp_path, names) == names
    folder = tmp_path / "nearline" / names[0][:2] / names[0][2:4]
    assert [path.name for path in folder.iterdir()] == [names[0]]
    copy = folder.parent.parent / names[1][:2] / names[1][2:4] / names[1]
    copy.write_bytes(changed(copy.read_bytes()))
    with pytest.raises(ChecksumError):  # The copy has rotted: that is no fault of the codec, and it is said.
        packing.pack(names[1])
    assert copy.exists()


async def test_a_second_folder_that_is_not_mounted_is_no_missing_study(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path
):
    study, _, names = stored
    packing.pack(names[0])  # One is compressed, one is not.
    (tmp_path / "nearline").rename(tmp_path / "elsewhere")
    assert (await gateway.get(f"/studies/{study}", accept=AS_STORED)).status_code == 503
    (tmp_path / "elsewhere").rename(tmp_path / "nearline")
    assert (await gateway.get(f"/studies/{study}", accept=AS_STORED)).status_code == 200


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


async def test_a_broken_packed_file_is_given_to_nobody(
    gateway: Gateway, stored: Any, packing: PackedFiles, nearline: Nearline, tmp_path: Path
):
    _, _, names = stored
    packing.pack(names[0])
    packed = tmp_path / "nearline" / names[0][:2] / names[0][2:4] / f"{names[0]}.packed"
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 0xFF
    packed.write_bytes(content)
    assert [one for one in nearline.verify() if one[0] == names[0]] == [(names[0], "changed")]
    with pytest.raises((ChecksumError, UpstreamError)):
        await gateway.service._archive.unpacking.unpack(names[0])
    with pytest.raises(ChecksumError):
        nearline.recall(names[0])
    assert [path.name for path in packed.parent.iterdir()] == [packed.name]


async def test_a_compressed_study_is_sent_image_by_image_and_breaks_off_at_one_that_is_broken(
    gateway: Gateway, stored: Any, packing: PackedFiles, tmp_path: Path
):
    study, _, names = stored
    before = {name: kept(tmp_path, name).read_bytes() for name in names}
    whole = await gateway.get(f"/studies/{study}", accept=AS_STORED)
    first, second = sorted(names, key=lambda name: whole.content.index(before[name]))
    for name in names:
        packing.pack(name)
    packed = kept(tmp_path, second).with_name(f"{second}.packed")
    packed.write_bytes(changed(packed.read_bytes()))
    headers = gateway.reader | {"Accept": AS_STORED}
    async with gateway.http.stream("GET", f"/studies/{study}", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(whole.content)))
        received = bytearray()
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012  what arrives before it breaks off counts
            async for chunk in answer.aiter_raw():
                received += chunk
    # The first left before anybody had looked at the second, of which nothing did.
    assert before[first] in received
    assert before[second][:1000] not in received
    assert plain_files(tmp_path, names) == [first]


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


def files_in(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()]


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


async def test_the_commands_move_compress_and_count_what_was_saved(
    gateway: Gateway,
    stored: Any,
    tmp_path: Path,
    module_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    s3: S3Server,
):
    study, _, names = stored
    settings = gateway.orthanc.settings.model_copy(
        update={
            **s3.settings,
            **{"nearline_s3_after_days": 365},
            **{"database_url": module_database_url, "nearline_folder": tmp_path / "nearline"},
            **{"nearline_states": "registered,on-hold,stored", "nearline_compress_after_days": 365},
        }
    )
    monkeypatch.setattr("foramen.commands.lifecycle.get_settings", lambda: settings)
    with psycopg.connect(module_database_url) as connection:
        connection.execute("DELETE FROM dicomweb.nearline_file")

    def aged(*arguments: str) -> Result:
        with psycopg.connect(module_database_url) as connection:  # Each time: the intake may still be at the study.
            connection.execute(
                "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02'"
                " WHERE study_instance_uid = %s",
                (study,),
            )
        return CliRunner().invoke(app, list(arguments))

    async def run(*arguments: str) -> str:
        done = await asyncio.to_thread(aged, *arguments)
        assert done.exit_code == 0, done.output
        return done.output

    async def when_due(*arguments: str) -> str:
        said = ""
        for _ in range(5):
            said = await run(*arguments)
            if "0 studies due" not in said:
                break  # Else the intake was at the study just now.
        return said

    assert "1 studies due; 2 files moved" in await when_due("lifecycle", "move")
    assert "1 studies due; 0 files compressed" in await when_due("lifecycle", "compress", "--dry")
    assert "1 studies due; 2 files compressed, 0 kept as is" in await when_due("lifecycle", "compress")
    assert "0 studies due" in await run("lifecycle", "compress")
    assert not plain_files(tmp_path, names)
    packed = files_in(tmp_path)
    assert "1 studies due; 2 files in the bucket now" in await when_due("lifecycle", "offload")
    assert "0 studies due" in await run("lifecycle", "offload")
    assert (files_in(tmp_path), len(s3.keys()), len(packed)) == ([], 2, 2)
    said = await run("capacity", "--per-day", "MR=1", "--folder", str(tmp_path / "capacity"))
    assert "(saved: 2 files" in said
    assert "(saved: 2 files" in (tmp_path / "capacity" / "capacity.html").read_text(encoding="utf-8")
    assert "good" in await run("lifecycle", "verify")
    assert "2 files" in await run("lifecycle", "recall", study)
    assert s3.keys() == []
    assert [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()] == []


async def test_a_study_that_somebody_reads_stays_online_and_what_was_unpacked_stays_unpacked(
    gateway: Gateway, stored: Any, packing: PackedFiles, module_database_url: str
):
    study, *_ = stored
    today = date(2026, 11, 22)
    accesses: LastAccess = gateway.service._audit.accesses
    assert (await gateway.get(f"/studies/{study}", scope="patient/ImagingStudy.r", patient="x")).status_code == 404
    await accesses.flush()  # Of other tests; a refusal is no access.
    assert study not in accesses._written
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02', state = 'registered'"
            " WHERE study_instance_uid = %s",
            (study,),
        )
        assert study in dict(to_pack(connection, today, RULES))
        assert study not in dict(to_pack(connection, today, TierRules(365)))  # Never, by that rule.
        for _ in range(3):
            assert (await gateway.get(f"/studies/{study}/metadata")).status_code == 200
        assert await accesses.flush() == 1
        assert (await gateway.get(f"/studies/{study}/metadata")).status_code == 200
        assert await accesses.flush() == 0  # At most once an hour.
        assert study not in dict(to_pack(connection, today, RULES))
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid = %s", (study,))
        assert study not in dict(due(connection, today, RULES))
        connection.execute(
            "UPDATE dicomweb.study_access SET accessed_at = now() - interval '91 days' WHERE study_instance_uid = %s",
            (study,),
        )
        assert study in dict(due(connection, today, RULES))
        connection.rollback()


async def test_a_study_that_has_moved_makes_room_for_the_next_one(
    gateway: Gateway, stored: Any, packing: PackedFiles, module_database_url: str
):
    study, *_ = stored
    await gateway.service._wado.files.fill(study)
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "UPDATE dicomweb.study SET study_date = '20200101', updated_at = '2020-01-02', state = 'registered'"
            " WHERE study_instance_uid = %s",
            (study,),
        )
        assert study not in dict(due(connection, date(2026, 11, 22), RULES))
        connection.execute("DELETE FROM dicomweb.nearline_file WHERE study_instance_uid = %s", (study,))
        assert study in dict(due(connection, date(2026, 11, 22), RULES))
        connection.rollback()


async def test_the_drift_page_is_for_those_who_keep_the_archive(gateway: Gateway, module_database_url: str):
    for scope, claims in (
        ("patient/Task.cruds patient/ImagingStudy.cruds", {"patient": "mine"}),
        ("user/Task.cruds user/ImagingStudy.cruds", {"fhirUser": "Practitioner/one"}),  # Of one institution.
        ("system/ImagingStudy.cruds", {}),
    ):
        refused = await gateway.get("/drift", scope=scope, **claims)
        assert (refused.status_code, refused.json()["issue"][0]["code"]) == (403, "forbidden")
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "INSERT INTO dicomweb.drift (study_instance_uid, kind, state, instances, trace_id)"
            " VALUES ('1.2.826.0.1.99', 'missing-in-archive', 'open', 3, %s)",
            ("0" * 32,),
        )
        connection.commit()
    chinese = await gateway.get("/drift", scope="foramen/admin", accept="text/html")
    assert chinese.status_code == 200
    assert chinese.headers["cache-control"] == "no-store"
    assert "1.2.826.0.1.99" in chinese.text
    assert '<html lang="zh-CN">' in chinese.text
    assert 'href="?lang=en"' in chinese.text
    english = await gateway.get("/drift?lang=en", scope="foramen/admin", accept="text/html")
    assert "Waiting for a person" in english.text
    data = (await gateway.get("/drift", scope="foramen/admin", accept="application/json")).json()
    assert "1.2.826.0.1.99" in [one["study"] for one in data["waiting"]]
    assert (await gateway.get("/drift?lang=fr", scope="foramen/admin")).status_code == 400
    trace = "a1" * 16
    headers = bearer("foramen/admin") | {"traceparent": f"00-{trace}-{'b2' * 8}-01"}
    assert (await gateway.http.get("/drift", headers=headers)).status_code == 200
    events = await gateway.until(lambda: gateway.audit_events(trace))
    assert [one["subtype"][0]["code"] for one in events] == ["read-drift"]
