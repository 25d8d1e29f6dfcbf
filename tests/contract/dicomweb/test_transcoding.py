"""Transcoding keeps every pixel, and hostile files end a codec process at most: real files of pydicom and of vendors.

DICOM PS3.5 Annex A, PS3.18 §8.7.3.5.2
"""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from dicomweb.retrieve import decoding, encoding, pixel_layout
from dicomweb.retrieve.codec_pool import CodecPool, UndecodableError
from dicomweb.retrieve.frames import frame_pieces
from dicomweb.retrieve.pieces import read
from dicomweb.retrieve.pixel_layout import PixelLayout, UnreadableFileError, scan
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE, HTJ2K_LOSSLESS, INSTANCE_TARGETS, LOSSLESS_TARGETS, RLE
from foramen.kernel.errors import UpstreamError
from tests.builders.dicom import encoded, series

pytestmark = [
    pytest.mark.requirement("PS3.18 8.7.3.5.2: transfer syntaxes a stored instance can be had in"),
    pytest.mark.filterwarnings("ignore"),
]
FILES = {
    "JPEG baseline, YBR 4:2:2": "SC_rgb_dcmtk_+eb+cy+s2.dcm",
    "JPEG extended 12 bit": "JPEG-lossy.dcm",
    "JPEG lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG-LS near lossless": "JPEGLSNearLossless_16.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
    "JPEG 2000 lossy": "JPEG2000.dcm",
    "RLE": "MR_small_RLE.dcm",
    "RLE, several frames": "SC_rgb_rle_2frame.dcm",
    "big endian": "MR_small_bigendian.dcm",
    "big endian colour": "SC_rgb_small_odd_big_endian.dcm",
    "implicit": "MR_small_implicit.dcm",
    "deflated": "image_dfl.dcm",
    "very small": "SC_rgb_small_odd.dcm",
}

_SLICE = encoded(series(1, seed=73, size=(16, 16))[0])


def local(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom does not bring {name}")
    return Path(str(path))


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[CodecPool]:
    pool = CodecPool(1, 2048 * 1024 * 1024, 20)
    yield pool
    await pool.close()


@pytest.mark.parametrize("target", INSTANCE_TARGETS)
@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
def test_every_pixel_survives(name: str, target: str, tmp_path: Path):
    source = local(name)
    before = dcmread(source)
    frames = range(1, decoding.number_of_frames(before) + 1)
    encoding.transcode(source, tmp_path / "out", target)
    after = dcmread(tmp_path / "out")
    assert (after.SOPInstanceUID, after.file_meta.TransferSyntaxUID) == (before.SOPInstanceUID, target)
    for number in frames:
        expected = decoding.frame_array(before, number, raw=False)
        assert np.array_equal(decoding.frame_array(after, number, raw=False), expected)
    layout = scan(tmp_path / "out")
    if target in (*LOSSLESS_TARGETS, EXPLICIT_LITTLE):  # What we write can be served from offsets.
        assert frame_pieces(tmp_path / "out", layout, list(frames), target) is not None


def test_high_throughput_jpeg_2000_is_read_too(tmp_path: Path):
    source = local("MR_small_bigendian.dcm")
    encoding.transcode(source, tmp_path / "fast", HTJ2K_LOSSLESS)
    for target in (EXPLICIT_LITTLE, RLE):
        encoding.transcode(tmp_path / "fast", tmp_path / "out", target)
        found, expected = (decoding.frame_array(dcmread(path), 1, raw=False) for path in (tmp_path / "out", source))
        assert np.array_equal(found, expected)


@pytest.mark.test_data
def test_seven_transfer_syntaxes_of_one_image_are_one(test_data: Path, tmp_path: Path):
    files = sorted((test_data / "dicom" / "siemens_transfer_syntaxes").glob("*.dcm"))
    assert len({dcmread(path).file_meta.TransferSyntaxUID for path in files}) == 7
    reference = decoding.frame_array(dcmread(files[0]), 1, raw=False)
    for path in files:
        for target in INSTANCE_TARGETS:
            encoding.transcode(path, tmp_path / "out", target)
            assert np.array_equal(decoding.frame_array(dcmread(tmp_path / "out"), 1, raw=False), reference)


@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
def test_frames_by_offset_are_those_of_a_full_parse(name: str):
    path = local(name)
    dataset, layout = dcmread(path), scan(path)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    for number in range(1, layout.frames + 1):
        pieces = frame_pieces(path, layout, [number], EXPLICIT_LITTLE)
        if pieces is not None:
            assert read(pieces[0]) == decoding.little_endian_frame(dataset, number)
        pieces = frame_pieces(path, layout, [number], syntax) if layout.spans else None
        if pieces is not None:
            assert read(pieces[0]) == decoding.stored_frame(dataset, number)
    assert PixelLayout.loads(layout.dumps()) == layout


def _by_pydicom(path: Path) -> PixelLayout | None:
    try:
        with path.open("rb") as file:
            return pixel_layout._of_any(path, file, path.stat().st_size)
    except Exception:  # noqa: BLE001  as `scan` does
        return None


def _quickly(path: Path) -> PixelLayout | None:
    try:
        return scan(path)
    except UnreadableFileError:
        return None


@pytest.mark.parametrize("name", [*FILES.values(), "CT_small.dcm", "MR_small.dcm"])
def test_a_layout_read_from_the_beginning_is_that_of_pydicom(name: str):
    assert _quickly(local(name)) == _by_pydicom(local(name)) is not None


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(130, len(_SLICE) - 1), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, len(_SLICE)),
)
def test_a_damaged_file_has_the_layout_that_pydicom_finds(tmp_path: Path, changes: list[tuple[int, int]], cut: int):
    content = bytearray(_SLICE)
    for place, value in changes:
        content[place] = value
    path = tmp_path / "damaged"
    path.write_bytes(content[: len(content) - cut])
    assert _quickly(path) == _by_pydicom(path)


def test_lying_lengths_give_no_frame(tmp_path: Path):
    dataset = series(1, seed=71, size=(64, 64))[0]
    content = encoded(dataset)
    path = tmp_path / "cut"
    path.write_bytes(content[:-100])
    assert scan(path).frame(1) is None
    place = content.rindex(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(content[: place + 8] + b"\xf0\xff\xff\xff" + content[place + 12 :])
    assert scan(path).length <= len(content)
    path.write_bytes(content[:300])
    assert scan(path).frames == 0


def test_a_deep_sequence_is_refused_and_not_a_crash(tmp_path: Path):
    head = encoded(series(1, seed=72)[0])
    start = head.index(b"\x28\x00\x02\x00US")
    nested = (b"\x20\x00\x11\x91SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    path = tmp_path / "deep"
    path.write_bytes(head[:start] + nested + head[start:])
    with pytest.raises(UnreadableFileError):
        scan(path)


def claimed(tmp_path: Path, **changes: object) -> Path:
    """A small RLE file that says of itself what it is not."""
    dataset = Dataset()
    dataset.update(dcmread(local("MR_small_RLE.dcm")))
    dataset.file_meta = dcmread(local("MR_small_RLE.dcm")).file_meta
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    path = tmp_path / "claimed.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


async def test_bombs_are_refused_in_flat_memory(pool: CodecPool, tmp_path: Path):
    bomb = claimed(tmp_path, Rows=65535, Columns=65535)
    with pytest.raises(UndecodableError):
        await pool.ask("frames", path=str(bomb), numbers=[1], syntax="native")
    many = claimed(tmp_path, NumberOfFrames=10_000_000)
    with pytest.raises(UndecodableError):
        await pool.ask("instance", path=str(many), target=str(tmp_path / "o"), syntax=EXPLICIT_LITTLE)
    deflated = tmp_path / "deflated.dcm"
    content = local("image_dfl.dcm").read_bytes()
    meta = 132 + 12 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    with deflated.open("wb") as file:  # Much more than may be, zeros, in one element.
        file.write(content[:meta])
        file.write(
            packer.compress(b"\x09\x00\x10\x00LO\x04\0TEST\x09\x00\x01\x10OB\0\0" + (2**31 - 2).to_bytes(4, "little"))
        )
        for _ in range(600):
            file.write(packer.compress(bytes(1024 * 1024)))
        file.write(packer.flush())
    mine = psutil.Process().memory_info().rss
    for operation, more in (("frames", {"numbers": [1], "syntax": "native"}), ("bulk", {"element": "00091001"})):
        with pytest.raises(UndecodableError):
            await pool.ask(operation, path=str(deflated), target=str(tmp_path / "o"), **more)
    assert psutil.Process().memory_info().rss - mine < 50 * 1024 * 1024
    assert sum(psutil.Process(pid).memory_info().rss for pid in pool.pids) < 400 * 1024 * 1024


async def test_a_child_that_dies_or_hangs_costs_one_answer(tmp_path: Path):
    pool = CodecPool(1, 2048 * 1024 * 1024, 1.0)
    good = {"path": str(local("MR_small_RLE.dcm")), "numbers": [1], "syntax": "native"}
    try:
        expected = (await pool.ask("frames", **good)).blobs
        (child,) = pool.pids
        os.kill(child, signal.SIGSTOP)  # What an endless loop in a codec looks like from here.
        with pytest.raises(UpstreamError) as late:
            await pool.ask("frames", **good)
        assert (late.value.status, late.value.issue_code) == (503, "timeout")
        assert (await pool.ask("frames", **good)).blobs == expected
        (second,) = pool.pids
        assert second != child
        os.kill(second, signal.SIGSTOP)
        pending = asyncio.create_task(pool.ask("frames", **good))
        await asyncio.sleep(0.2)
        os.kill(second, signal.SIGKILL)  # What a segmentation fault looks like.
        with pytest.raises(UndecodableError):
            await pending
        assert (await pool.ask("frames", **good)).blobs == expected
    finally:
        await pool.close()
    assert not pool.pids


async def test_an_abandoned_request_does_not_shift_the_answers(pool: CodecPool):
    colour = {"path": str(local("SC_rgb_rle_2frame.dcm")), "syntax": RLE}
    first = asyncio.create_task(pool.ask("frames", numbers=[1], **colour))
    await asyncio.sleep(0.01)
    first.cancel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = decoding.stored_frame(dcmread(colour["path"]), 2)
    answer = await pool.ask("frames", numbers=[2], path=colour["path"], syntax="stored")
    assert answer.blobs == [expected]
