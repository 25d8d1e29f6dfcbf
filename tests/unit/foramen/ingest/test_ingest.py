"""`foramen ingest`: every file is sent or named with its reason; what was acknowledged is not sent again."""

from __future__ import annotations

import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pynetdicom import AE, AllStoragePresentationContexts, evt
from typer.testing import CliRunner

from foramen.cli import app
from foramen.ingest.send import send_instances
from foramen.ingest.sidecar import read_sidecar
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.settings import get_settings
from foramen.supervisor.ports import free_port
from tests.builders.dicom import encoded, series


class StorageScp:
    """An archive that keeps what it accepts and answers with a status of our choice."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.status = 0x0000
        self.no_delay: list[int] = []
        self.port = free_port()
        entity = AE(ae_title="ARCHIVE")
        entity.require_called_aet = True
        entity.supported_contexts = AllStoragePresentationContexts
        handlers = [(evt.EVT_C_STORE, self._store)]
        self.server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _store(self, event) -> int:
        self.received.append(event.request.AffectedSOPInstanceUID)
        return self.status


@pytest.fixture
def archive() -> Iterator[StorageScp]:
    scp = StorageScp()
    yield scp
    scp.server.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    yield tmp_path / "home"
    get_settings.cache_clear()


def ingest(archive: StorageScp, *paths: Path, options: tuple[str, ...] = ()):
    arguments = ["ingest", *map(str, paths), "--dicom-port", str(archive.port), "--aet", "ARCHIVE", *options]
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    for number, dataset in enumerate(series(3)):
        (path / f"{number}.dcm").write_bytes(encoded(dataset))
    (path / "LICENSE").write_text("a paper, not an image")
    return path


@pytest.mark.requirement("PS3.4 B: storage as SCU, what was acknowledged is not sent again")
def test_a_folder_is_sent_and_a_repeat_sends_nothing(archive: StorageScp, folder: Path):
    result = ingest(archive, folder)
    assert result.exit_code == 0, result.output
    assert "stored 3" in result.output
    again = ingest(archive, folder)
    assert again.exit_code == 0
    assert "stored 0, acknowledged before 3" in again.output
    assert len(archive.received) == 3


def test_a_zip_archive_is_sent(archive: StorageScp, folder: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as target:
        for path in folder.iterdir():
            target.write(path, f"IMAGES/{path.name}")
    assert ingest(archive, tmp_path / "study.zip").exit_code == 0
    assert len(archive.received) == 3


def test_broken_files_are_named_with_their_reason_and_the_rest_is_sent(archive: StorageScp, folder: Path):
    whole = (folder / "0.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:-50])
    (folder / "noise.bin").write_bytes(b"\x00" * 500)
    (folder / "empty.dcm").write_bytes(b"")
    result = ingest(archive, folder, folder / "absent.dcm")
    assert result.exit_code == 1
    assert "stored 3, acknowledged before 0, failed 4" in result.output
    assert "cut.dcm: the file is truncated" in result.output
    assert "noise.bin: not a DICOM file" in result.output
    assert "absent.dcm: there is no such file" in result.output


@pytest.mark.requirement("PS3.4 B.2.3: refusals of the archive are told")
def test_a_refusing_archive_is_reported_and_tried_again_next_time(archive: StorageScp, folder: Path):
    archive.status = 0xA700
    result = ingest(archive, folder)
    assert result.exit_code == 1
    assert "out of resources (status A700H)" in result.output
    archive.status = 0x0000
    assert ingest(archive, folder).exit_code == 0
    assert len(archive.received) == 6


def test_nobody_there_and_a_wrong_title_are_said_in_words(archive: StorageScp):
    datasets = series(2)
    (one, two) = send_instances(datasets, "127.0.0.1", free_port(), "ARCHIVE")
    assert one.reason == two.reason
    assert "nobody answers" in one.reason
    assert not one.stored
    (wrong, _) = send_instances(datasets, "127.0.0.1", archive.port, "OTHER")
    assert "rejected the association" in wrong.reason
    assert archive.received == []


@pytest.mark.requirement("PS3.8 9.3.8: an association that is aborted fails the rest")
def test_an_association_that_breaks_off_fails_the_rest(archive: StorageScp, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foramen.ingest.send._TIMEOUT_S", 2.0)
    datasets = series(3)

    def abort(event) -> int:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0

    archive.server.bind(evt.EVT_C_STORE, abort)
    outcomes = send_instances(datasets, "127.0.0.1", archive.port, "ARCHIVE")
    assert len(outcomes) == 3
    assert not any(item.stored for item in outcomes)


def test_pictures_with_a_sidecar_become_one_series(archive: StorageScp, tmp_path: Path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in (3, 4, 5):
        Image.fromarray(np.full((8, 6), index * 20, np.uint8)).save(pictures / f"knee_{index}.png")
    sidecar = {
        "patient_id": "SYN-1", "issuer": "DEMO", "synthetic": True,
        "pixel_spacing_mm": [0.5, 0.5], "slice_spacing_mm": 3,
    }  # fmt: skip
    (pictures / "sidecar.json").write_text(json.dumps(sidecar))
    result = ingest(archive, pictures)
    assert result.exit_code == 0, result.output
    assert len(set(archive.received)) == 3
    assert "acknowledged before 3" in ingest(archive, pictures).output


def test_pictures_without_a_sidecar_and_broken_pictures_are_reported(archive: StorageScp, tmp_path: Path):
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(tmp_path / "a_1.png")
    (tmp_path / "b_2.png").write_bytes((tmp_path / "a_1.png").read_bytes()[:40])
    without = ingest(archive, tmp_path / "a_1.png")
    assert without.exit_code == 1
    assert "a picture needs a sidecar" in without.output
    path = tmp_path / "side.json"
    path.write_text(json.dumps({"patient_id": "SYN-1", "pixel_spacing_mm": [1, 1], "slice_spacing_mm": 1}))
    result = ingest(archive, tmp_path / "a_1.png", tmp_path / "b_2.png", options=("--sidecar", str(path)))
    assert result.exit_code == 1
    assert "b_2.png: not a readable picture" in result.output
    assert len(archive.received) == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"patient_id": "x", "pixel_spacing_mm": [0, 1], "slice_spacing_mm": 1}',
     '{"patient_id": "x", "pixel_spacing_mm": [1, 1], "slice_spacing_mm": 1, "slice_index_pattern": "("}',
     '{"patient_id": "x", "pixel_spacing_mm": [1, 1], "slice_spacing_mm": 1, "nonsense": 1}'],
)  # fmt: skip
def test_a_bad_sidecar_names_the_field_and_never_its_value(tmp_path: Path, text: str):
    path = tmp_path / "sidecar.json"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match="sidecar is not valid"):
        read_sidecar(path)
