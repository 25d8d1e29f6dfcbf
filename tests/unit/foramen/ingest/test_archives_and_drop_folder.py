"""ZIP bombs and path tricks, DICOMDIR, and the drop folder with a real archive's answers and crashes (SYNTHETIC)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from foramen.ingest.drop_folder import DropFolder
from foramen.ingest.run import Destination
from foramen.ingest.sources import find, read
from foramen.ingest.zip_archive import Limits
from foramen.kernel.errors import ConflictError
from foramen.supervisor.ports import free_port
from tests.builders.dicom import encoded, series
from tests.unit.foramen.ingest.test_ingest import StorageScp

SECRET = "Zhang San 1980"


@pytest.fixture
def archive() -> Iterator[StorageScp]:
    scp = StorageScp()
    yield scp
    scp.server.shutdown()


def faults(path: Path, limits: Limits | None = None) -> dict[str, str]:
    return {item.name: item.fault for item in read(find([path]), None, limits=limits) if item.fault}


def whole(seed: int = 1) -> bytes:
    return encoded(series(1, seed=seed)[0])


@pytest.mark.parametrize("name", ["../x.dcm", "/x.dcm", "a/../../x.dcm", "C:x.dcm", "..\\x.dcm"])
def test_names_that_lead_out_of_an_archive_are_refused_and_named(tmp_path: Path, name: str):
    inside = tmp_path / "in"
    inside.mkdir()
    with zipfile.ZipFile(inside / "s.zip", "w") as target:
        target.writestr(name, whole())
        target.writestr("good.dcm", whole(2))
    found = list(read(find([inside]), None))
    assert [item.fault for item in found if item.fault] == ["its name leads out of the archive"]
    assert [item.name for item in found if not item.fault] == ["s.zip:good.dcm"]
    assert not (tmp_path / "x.dcm").exists()


def test_links_and_encrypted_members_and_archives_in_archives(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as target:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(link, "/etc/passwd")
        target.writestr("inner.zip", _zip(tmp_path, whole()))
    assert faults(tmp_path / "s.zip") == {
        "s.zip:link.dcm": "it is a link or a device, not a file",
        "s.zip:inner.zip": "it is an archive in an archive: send it by itself",
    }


def _zip(folder: Path, content: bytes) -> bytes:
    with zipfile.ZipFile(folder / "i.zip", "w") as target:
        target.writestr("x.dcm", content)
    return (folder / "i.zip").read_bytes()


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        with target.open("bomb.dcm", "w") as member:
            for _ in range(100):
                member.write(bytes(1024 * 1024))
        target.writestr("good.dcm", whole())
    assert faults(tmp_path / "b.zip") == {"b.zip:bomb.dcm": "it grows more than 200 times when unpacked"}
    small = faults(tmp_path / "b.zip", Limits(member_bytes=1000, total_bytes=10_000))
    assert set(small.values()) == {"it is larger than 1000 bytes"}
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as target:
        for number in range(5):
            target.writestr(f"{number}.dcm", whole(number + 1))
    total = faults(tmp_path / "many.zip", Limits(member_bytes=10_000, total_bytes=len(whole()) * 2 + 100))
    assert list(total.values()) == [f"the ZIP archive grows to more than {len(whole()) * 2 + 100} bytes"]


def test_an_announced_size_that_lies_is_found_out(tmp_path: Path):
    content = bytearray(_zip(tmp_path, whole()))
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (100).to_bytes(4, "little")
    (tmp_path / "lie.zip").write_bytes(content)
    (reason,) = faults(tmp_path / "lie.zip").values()
    assert "cannot be read" in reason


def test_a_cut_archive_is_named(tmp_path: Path):
    (tmp_path / "cut.zip").write_bytes(_zip(tmp_path, whole())[:-30])
    assert list(faults(tmp_path / "cut.zip")) == ["cut.zip"]


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A medium with a DICOMDIR, written by pydicom."""
    files = FileSet()
    for dataset in series(3):
        dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "1", "20260105", "120000"
        files.add(dataset)
    files.write(tmp_path / "medium")
    return tmp_path / "medium"


@pytest.mark.requirement("PS3.10 8.6: the files that a DICOMDIR names")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dicomdir_names_what_is_missing(medium: Path):
    items = list(read(find([medium / "DICOMDIR"]), None))
    assert ([item.fault for item in items], len(items)) == ([""] * 3, 3)
    assert len(list(read(find([medium]), None))) == 3
    lost = next(path for path in sorted(medium.rglob("*")) if path.is_file() and path.name != "DICOMDIR")
    lost.unlink()
    (reason,) = faults(medium).values()
    assert reason == "the DICOMDIR lists it, and it is not there"


@pytest.mark.requirement("PS3.10 8.5: file IDs of a DICOMDIR stay on their medium")
def test_a_dicomdir_in_lower_case_and_one_that_points_out(medium: Path, tmp_path: Path):
    for path in sorted(medium.rglob("*"), key=lambda item: -len(item.parts)):
        path.rename(path.with_name(path.name.lower()))
    assert not faults(medium / "dicomdir")
    content = (medium / "dicomdir").read_bytes()
    at = content.index(b"\x04\x00\x00\x15CS")
    (tmp_path / "x").write_bytes(whole())
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    wrong = b"..\\X".ljust(length)
    (medium / "dicomdir").write_bytes(content[: at + 8] + wrong + content[at + 8 + length :])
    assert "the DICOMDIR lists it, and it is not there" in faults(medium / "dicomdir").values()


@pytest.fixture
def drop(archive: StorageScp, tmp_path: Path) -> DropFolder:
    folder = tmp_path / "drop"
    folder.mkdir()
    for name in ("done", "failed"):
        (folder / name).mkdir()
    return DropFolder(folder, Destination("127.0.0.1", archive.port, "ARCHIVE"), tmp_path / "home", settle_s=2.0)


def reason_of(folder: Path) -> dict:
    (file,) = folder.glob("*.reason.json")
    assert (file.stat().st_mode & 0o777) == 0o600
    return json.loads(file.read_text())


@pytest.mark.requirement("PS3.4 B: storage as SCU, from a drop folder")
def test_what_lies_still_is_sent_and_moved_without_its_name(drop: DropFolder, archive: StorageScp):
    entry = drop.folder / SECRET
    entry.mkdir()
    (entry / "1.dcm").write_bytes(whole())
    assert drop.look(0.0) == 0
    assert drop.look(1.9) == 0
    (entry / "2.dcm").write_bytes(whole(2))
    assert drop.look(2.5) == 0  # it changed: the clock begins anew
    assert drop.look(4.0) == 0
    assert drop.look(4.6) == 1
    assert len(archive.received) == 2
    assert not entry.exists()
    assert reason_of(drop.folder / "done")["stored"] == 2
    assert not [path for path in (drop.folder / "done").iterdir() if "Zhang" in path.name]


def settled(drop: DropFolder) -> int:
    drop.look(time.monotonic() - 100)
    return drop.look(time.monotonic())


def test_what_is_broken_goes_to_failed_with_the_reason(drop: DropFolder, archive: StorageScp):
    (drop.folder / f"{SECRET}.dcm").write_bytes(whole()[:-30])
    (drop.folder / "growing.part").write_bytes(b"x")
    (drop.folder / "link.dcm").symlink_to("/etc/passwd")
    assert settled(drop) == 2
    reasons = [json.loads(path.read_text())["failed"][0]["reason"] for path in (drop.folder / "failed").glob("*.json")]
    assert sorted(reasons) == ["it is a link", "the file is truncated"]
    assert (drop.folder / "growing.part").exists()
    assert not archive.received
    assert not [path for path in (drop.folder / "failed").iterdir() if "Zhang" in path.name]


def test_an_archive_that_is_away_moves_nothing(drop: DropFolder, archive: StorageScp):
    (drop.folder / "1.dcm").write_bytes(whole())
    drop.destination = Destination("127.0.0.1", free_port(), "ARCHIVE")
    assert settled(drop) == 0
    assert (drop.folder / "1.dcm").exists()
    drop.destination = Destination("127.0.0.1", archive.port, "ARCHIVE")
    archive.status = 0xA700
    assert settled(drop) == 0
    archive.status = 0xC000
    assert settled(drop) == 1
    assert list((drop.folder / "failed").glob("*.dcm"))


def test_broken_off_before_the_move_nothing_is_sent_twice(
    drop: DropFolder, archive: StorageScp, monkeypatch: pytest.MonkeyPatch
):
    (drop.folder / "1.dcm").write_bytes(whole())
    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", _crash)
        with pytest.raises(RuntimeError):
            settled(drop)
    assert (drop.folder / "1.dcm").exists()
    again = DropFolder(drop.folder, drop.destination, drop.home, drop.settle_s)
    assert settled(again) == 1
    assert len(archive.received) == 1
    report = reason_of(drop.folder / "done")
    assert (report["stored"], report["acknowledged_before"]) == (0, 1)


def _crash(*_: object) -> None:
    raise RuntimeError("power cut")


def test_only_one_process_watches_a_folder(drop: DropFolder):
    with drop.held(), pytest.raises(ConflictError), DropFolder(drop.folder, drop.destination, drop.home).held():
        pass


def test_the_command_watches_until_it_is_told_to_stop(drop: DropFolder, archive: StorageScp, tmp_path: Path):
    environment = {**os.environ, "FORAMEN_HOME": str(tmp_path / "home")}
    program = Path(sys.executable).with_name("foramen")
    arguments = ["ingest", "--watch", str(drop.folder), "--dicom-port", str(archive.port), "--aet", "ARCHIVE"]
    shutil.rmtree(drop.folder / "done")
    with subprocess.Popen(
        [program, *arguments, "--settle-s", "0.1"], env=environment, stderr=subprocess.DEVNULL
    ) as run:
        (drop.folder / "1.dcm").write_bytes(whole())
        deadline = time.monotonic() + 40
        while not list((drop.folder / "done").glob("*.dcm")) and time.monotonic() < deadline:
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 0
    assert list((drop.folder / "done").glob("*.dcm"))
    assert len(archive.received) == 1
