"""What is wrong with a series is said by name, and never crashes."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.volume import InvalidGeometryError, Volume
from tests.builders.mr_series import mr_series

AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, 0.7, -100], [0, -0.7, 0, 150], [0, 0, 0, 1]])


@pytest.fixture
def series() -> list[Dataset]:
    return mr_series(np.arange(5 * 6 * 7).reshape(5, 6, 7), AFFINE)


def _reason(datasets: list[Dataset]) -> str:
    with pytest.raises(InvalidGeometryError) as caught:
        volume_from_datasets(datasets)
    assert caught.value.text_en
    assert caught.value.text_zh
    return caught.value.reason_code


def test_no_images(series):
    assert _reason([]) == "zero-slices"


def test_a_missing_slice_is_noticed(series):
    assert _reason(series[:2] + series[3:]) == "missing-slices"


def test_small_scanner_jitter_is_tolerated(series):
    series[2].ImagePositionPatient = [-8.01, -100, 150]
    assert volume_from_datasets(series).volume.array.shape == (5, 6, 7)


def test_two_images_at_one_place(series):
    series[1].ImagePositionPatient = series[0].ImagePositionPatient
    assert _reason(series) == "duplicate-positions"


def test_slices_off_one_line(series):
    series[2].ImagePositionPatient = [-8, -80, 150]
    assert _reason(series) == "non-uniform-spacing"


@pytest.mark.parametrize("keyword", ["ImageOrientationPatient", "PixelSpacing", "ImagePositionPatient"])
def test_missing_geometry(series, keyword):
    for dataset in series:
        delattr(dataset, keyword)
    assert _reason(series) == "geometry-missing"


def test_directions_not_at_right_angles(series):
    for dataset in series:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0.3, -1]
    assert _reason(series) == "geometry-missing"


def test_images_of_different_size(series):
    series[3].Rows = 12
    assert _reason(series) == "mixed-geometry"


def test_enhanced_multi_frame_is_refused_by_name(series):
    series[0].PerFrameFunctionalGroupsSequence = Sequence([Dataset()])
    assert _reason(series) == "enhanced-multi-frame"


def test_truncated_pixels(series):
    series[0].PixelData = series[0].PixelData[:10]
    assert _reason(series) == "invalid-pixel-data"


def test_no_pixels(series):
    del series[0].PixelData
    assert _reason(series) == "invalid-pixel-data"


def test_bytes_that_are_not_what_the_transfer_syntax_says(series):
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = JPEG2000
    assert _reason(series) in {"unsupported-transfer-syntax", "invalid-pixel-data"}


def test_rescale_and_inverted_greyscale(series):
    for dataset in series:
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -5
    plain = volume_from_datasets(series).volume.array
    assert plain.max() == (5 * 6 * 7 - 1) * 2 - 5


def test_inverted_greyscale_is_turned_round(series):
    plain = volume_from_datasets(series).volume.array
    for dataset in series:
        dataset.PhotometricInterpretation = "MONOCHROME1"
    inverted = volume_from_datasets(series).volume.array
    assert np.unravel_index(inverted[0].argmax(), (6, 7)) == np.unravel_index(plain[0].argmin(), (6, 7))


def test_not_a_number_is_refused():
    with pytest.raises(InvalidGeometryError) as caught:
        Volume(np.full((2, 3, 4), np.nan, np.float32), AFFINE)
    assert caught.value.reason_code == "invalid-pixel-data"
