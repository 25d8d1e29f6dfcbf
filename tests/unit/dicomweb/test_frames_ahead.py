"""Frames read ahead: the bytes of the frame asked for and of no other, in memory that nobody else holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from dicomweb.retrieve.frames_ahead import AskedFrame, FrameAnswer, FramesAhead
from dicomweb.retrieve.pixel_layout import PixelLayout
from dicomweb.retrieve.stored_files import StoredFiles
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE
from dicomweb.study_index import IndexedInstance

ACCEPT = 'multipart/related; type="application/octet-stream"'


class Files:
    """Files of one folder, in which each frame's bytes begin at offset 7."""

    def __init__(self, folder: Path, sizes: list[int]) -> None:
        self.folder = folder
        self.contents = {f"id{number}": os.urandom(size) for number, size in enumerate(sizes)}
        for name, content in self.contents.items():
            (folder / name).write_bytes(b"preface" + content)

    def ready(self, orthanc_id: str) -> tuple[str, PixelLayout] | None:
        path = self.folder / orthanc_id
        if not path.exists():
            return None
        size = path.stat().st_size - 7
        return str(path), PixelLayout(EXPLICIT_LITTLE, 1, 7, size, size * 8, direct=True)


def frame(number: int, accept: str = ACCEPT, port: int = 1) -> AskedFrame:
    one = IndexedInstance("1.2", "1.2.3", "1.2.3." + "4" * (number + 1), f"id{number}", EXPLICIT_LITTLE, 1)
    return AskedFrame(one, 1, accept, ("127.0.0.1", port))


def read(ahead: FramesAhead, files: Files, asked: AskedFrame, following: AskedFrame | None) -> bytes:
    """What a client gets, of a server that copies what it is given at once."""
    answer = ahead.answer(asked, cast(StoredFiles, files))
    assert answer is not None
    content = pixels(answer)
    ahead.sent(asked, answer, following, cast(StoredFiles, files))
    return content


def pixels(answer: FrameAnswer) -> bytes:
    content = bytes(answer.body)
    assert dict(answer.headers)[b"content-length"] == str(len(content)).encode()
    if dict(answer.headers)[b"content-type"].startswith(b"multipart"):
        content = content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--foramen-")[0]
    return content


@pytest.mark.parametrize("accept", [ACCEPT, "application/octet-stream"])
def test_every_frame_is_its_own_whatever_was_read_ahead(tmp_path: Path, accept: str) -> None:
    files = Files(tmp_path, [1000, 1000, 990, 70_000, 500, 500, 1000, 1000])
    ahead, count = FramesAhead("http://host/dicom-web"), 8
    orders = ([*range(8)], [*reversed(range(8))], [0, 2, 1, 3, 5, 4, 4, 6, 7], [*range(8)])
    for order in orders:
        for number in order:
            following = frame(number + 1, accept) if number + 1 < count else None
            assert read(ahead, files, frame(number, accept), following) == files.contents[f"id{number}"]


def test_the_next_frame_is_read_once_somebody_goes_from_one_to_the_next(tmp_path: Path) -> None:
    files = Files(tmp_path, [1000] * 5)
    ahead = FramesAhead("http://host/dicom-web")
    read(ahead, files, frame(0), frame(1))
    assert ahead._ahead is None
    read(ahead, files, frame(1), frame(2))
    assert ahead._ahead is not None
    before = ahead._ahead[1]
    again = ahead.answer(frame(2), cast(StoredFiles, files))
    assert again is before
    read(ahead, files, frame(4), None)
    assert ahead._ahead is None


def test_a_series_that_is_shared_out_among_connections_is_not_read_ahead_of(tmp_path: Path) -> None:
    files = Files(tmp_path, [1000] * 6)
    ahead = FramesAhead("http://host/dicom-web")
    for number in range(5):
        asked, following = frame(number, port=number % 2), frame(number + 1, port=number % 2)
        assert read(ahead, files, asked, following) == files.contents[f"id{number}"]
        assert ahead._ahead is None


def test_a_file_that_was_stored_anew_is_read_anew(tmp_path: Path) -> None:
    files = Files(tmp_path, [1000] * 3)
    ahead = FramesAhead("http://host/dicom-web")
    for number in (0, 1):
        read(ahead, files, frame(number), frame(number + 1))
    files.folder = tmp_path / "elsewhere"
    files.folder.mkdir()
    (files.folder / "id2").write_bytes(b"prefaceanother")
    assert read(ahead, files, frame(2), None) == b"another"


def test_what_a_server_has_not_sent_yet_is_not_written_over(tmp_path: Path) -> None:
    files = Files(tmp_path, [1000] * 6)
    ahead = FramesAhead("http://host/dicom-web")
    kept = []
    for number in range(6):
        asked, following = frame(number), frame(number + 1) if number < 5 else None
        answer = ahead.answer(asked, cast(StoredFiles, files))
        assert answer is not None
        kept.append(answer.body)
        ahead.sent(asked, answer, following, cast(StoredFiles, files))
    for number, body in enumerate(kept):
        assert files.contents[f"id{number}"] in bytes(body)


def test_memory_is_filled_again_when_nobody_holds_it(tmp_path: Path) -> None:
    files = Files(tmp_path, [1000] * 4)
    ahead = FramesAhead("http://host/dicom-web")
    read(ahead, files, frame(0), None)
    spare = ahead._spare
    assert spare is not None
    answer = ahead.answer(frame(2), cast(StoredFiles, files))
    assert answer is not None
    assert answer.body is spare
