"""Burnt-in text is found in SYNTHETIC pictures and blackened; anatomy-like pictures are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from dicomweb.deidentification.burnt_in_text import text_regions
from dicomweb.deidentification.instance import HeldBackError
from dicomweb.deidentification.quiet_reading import quiet_reading
from tests.unit.dicomweb.test_deidentification import MR, SECONDARY_CAPTURE, done, mr

TEXTS = ("DOE^JOHN 1970-01-02", "ID 20391847 M 045Y", "12-May-2021 10:44")


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_reading():
        yield


def anatomy(seed: int = 1, size: int = 192) -> np.ndarray:
    """SYNTHETIC smooth blobs and noise, 12 bit."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.random((size, size)), 9)
    blobs = (blobs - blobs.min()) / (blobs.max() - blobs.min())
    return (blobs * 1500 + rng.random((size, size)) * 120).astype("<u2")


def with_text(
    picture: np.ndarray, text: str, size: int, ink: float = 1.0
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    layer = Image.new("L", picture.shape[::-1], 0)
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(size)
    draw.text((6, 6), text, fill=255, font=font)
    mask = np.asarray(layer) / 255
    burnt = picture * (1 - mask) + mask * ink * float(picture.max())
    left, top, right, bottom = draw.textbbox((6, 6), text, font=font)
    return burnt.astype(picture.dtype), (int(top), int(left), int(bottom), int(right))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [12, 16, 22])
def test_a_line_of_text_is_found_where_it_is(text, size):
    burnt, (top, left, bottom, right) = with_text(anatomy(size=320), text, size)
    covered = np.zeros(burnt.shape, bool)
    for one in text_regions(burnt):
        covered[one.top : one.bottom, one.left : one.right] = True
    assert covered[top:bottom, left:right].mean() > 0.9


@pytest.mark.parametrize("seed", range(10))
def test_pictures_without_text_are_left_alone(seed):
    assert text_regions(anatomy(seed)) == []


def test_flat_and_tiny_pictures_have_none():
    assert text_regions(np.zeros((64, 64), "<u2")) == []
    assert text_regions(np.arange(9, dtype="<u2").reshape(3, 3)) == []


@pytest.mark.requirement("PS3.15 E.3.1: clean pixel data")
def test_text_in_a_secondary_capture_is_blackened_and_in_an_mr_held_back():
    burnt, (top, left, bottom, right) = with_text(anatomy(), TEXTS[0], 16)
    changes = {"Rows": 192, "Columns": 192, "PixelData": burnt.tobytes()}
    with pytest.raises(HeldBackError, match="burnt-in-text"):
        done(mr(SOPClassUID=MR, **changes))
    for result in (done(mr(SOPClassUID=SECONDARY_CAPTURE, **changes)), done(mr(**changes), blacken=True)):
        assert result.pixels.blackened
        pixels = np.frombuffer(result.dataset.PixelData, "<u2").reshape(192, 192)
        assert (pixels[top:bottom, left:right] == 0).mean() > 0.95
        assert text_regions(pixels) == []
        assert (pixels[100:] == burnt[100:]).all()
        assert result.dataset.BurnedInAnnotation == "NO"


@pytest.mark.test_data
def test_real_series_are_not_suspected(test_data):
    from pydicom import dcmread

    files = (
        sorted((test_data / "dicom" / "ge_mprage").glob("i*"))[:4]
        + sorted((test_data / "dicom" / "philips_classic").glob("*.dcm"))[:4]
    )
    assert len(files) == 8
    assert [path.name for path in files if text_regions(dcmread(path).pixel_array)] == []
