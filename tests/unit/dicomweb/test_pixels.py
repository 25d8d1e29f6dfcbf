"""Frames as bytes and pictures, on pydicom's own test files of many encodings."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from dicomweb.retrieve.decoding import CannotDecodeError, frame_array, little_endian_frame
from dicomweb.retrieve.encoding import transcode
from dicomweb.retrieve.picture import rendered
from dicomweb.retrieve.rendering_parameters import Rendering
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE
from tests.builders.dicom import series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def path_of(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def parsed(name: str) -> Dataset:
    return dcmread(path_of(name))


@pytest.mark.parametrize(
    "name",
    [f"MR_small{kind}.dcm" for kind in ("", "_RLE", "_bigendian", "_jp2klossless", "_jpeg_ls_lossless", "_implicit")],
)
def test_one_image_gives_the_same_frame_and_file_in_every_encoding(name: str, tmp_path: Path):
    reference = parsed("MR_small.dcm").pixel_array
    frame = little_endian_frame(parsed(name), 1)
    assert np.array_equal(np.frombuffer(frame, "<i2").reshape(reference.shape), reference)
    transcode(path_of(name), tmp_path / "plain", EXPLICIT_LITTLE)
    plain = dcmread(tmp_path / "plain")
    assert plain.SOPInstanceUID == parsed(name).SOPInstanceUID
    assert plain.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert np.array_equal(plain.pixel_array, reference)


@pytest.mark.parametrize("name", ["SC_rgb_small_odd.dcm", "ExplVR_BigEnd.dcm", "SC_rgb_rle.dcm"])
def test_colour_frames_agree_with_the_planar_configuration_of_their_metadata(name: str):
    dataset = parsed(name)
    frame = np.frombuffer(little_endian_frame(dataset, 1), np.uint8)
    pixels = dataset.pixel_array if int(dataset.get("NumberOfFrames") or 1) == 1 else dataset.pixel_array[0]
    shape = pixels.shape
    planar = frame.reshape(3, *shape[:2]).transpose(1, 2, 0) if dataset.PlanarConfiguration else frame.reshape(shape)
    assert np.array_equal(planar, pixels)


def test_half_the_chroma_is_sent_where_the_metadata_say_so(tmp_path: Path):
    dataset = parsed("SC_rgb_dcmtk_+eb+cy+s2.dcm")
    full = frame_array(dataset, 1, raw=True)
    frame = np.frombuffer(little_endian_frame(dataset, 1), np.uint8)
    assert dataset.PhotometricInterpretation == "YBR_FULL_422"
    assert frame.size == dataset.Rows * dataset.Columns * 2
    groups = frame.reshape(dataset.Rows, -1, 4)
    assert np.array_equal(groups[..., :2].reshape(full.shape[:2]), full[..., 0])
    assert np.array_equal(groups[..., 2:], full[:, ::2, 1:])


def test_one_bit_frames_start_on_a_byte():
    dataset = series(1, size=(5, 5))[0]
    frames = np.random.default_rng(1).integers(0, 2, (2, 5, 5)).astype(np.uint8)
    dataset.NumberOfFrames, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 2, 1, 1, 0
    dataset.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes() + b"\x00"
    for number in (1, 2):
        bits = np.unpackbits(np.frombuffer(little_endian_frame(dataset, number), np.uint8), bitorder="little")
        assert np.array_equal(bits[:25].reshape(5, 5), frames[number - 1])


@pytest.mark.parametrize("number", [0, 2])
def test_a_frame_that_is_not_there(number: int):
    with pytest.raises(CannotDecodeError):
        little_endian_frame(parsed("MR_small.dcm"), number)


@pytest.mark.parametrize("name", ["CT_small.dcm", "SC_rgb_rle.dcm", "JPEG2000.dcm"])
@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg"])
def test_pictures_have_the_size_of_the_frame_and_show_something(name: str, media_type: str):
    dataset = parsed(name)
    picture = Image.open(BytesIO(rendered(dataset, [1], Rendering(media_type))))
    assert picture.size == (dataset.Columns, dataset.Rows)
    values = np.asarray(picture)
    assert values.max() > values.min()


def test_a_viewport_keeps_the_proportions():
    picture = Image.open(BytesIO(rendered(parsed("CT_small.dcm"), [1], Rendering(viewport=(64, 32)))))
    assert picture.size == (32, 32)


def test_monochrome1_is_shown_inverted():
    dataset = parsed("CT_small.dcm")
    plain = np.asarray(Image.open(BytesIO(rendered(dataset, [1], Rendering("image/png")))))
    dataset.PhotometricInterpretation = "MONOCHROME1"
    inverted = np.asarray(Image.open(BytesIO(rendered(dataset, [1], Rendering("image/png")))))
    assert np.abs(plain.astype(int) + inverted - 255).max() <= 1
