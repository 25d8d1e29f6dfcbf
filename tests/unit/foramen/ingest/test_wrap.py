"""Pictures wrapped as a sagittal MR series: true geometry, stable UIDs, nothing guessed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from highdicom import spatial
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from foramen.ingest.pictures import read_slice
from foramen.ingest.spider import spider_patient_series, spider_patient_sidecar, spider_patients
from foramen.ingest.wrap import Slice, wrap_slices, wrap_volume
from foramen.kernel.errors import InvalidRequestError, NotFoundError
from tests.builders.dicom import encoded, series, sidecar


@pytest.mark.requirement("PS3.3 C.7.6.2: image plane of a wrapped series")
def test_columns_run_to_the_back_rows_to_the_feet_and_slices_along_x():
    volume = np.zeros((3, 10, 20), np.uint16)
    datasets = wrap_volume(volume, sidecar(pixel_spacing_mm=(0.5, 0.25), slice_spacing_mm=4.0))
    # (column, row) → LPS millimetres; independent arithmetic by highdicom.
    to_lps = spatial.PixelToReferenceTransformer(
        datasets[0].ImagePositionPatient, datasets[0].ImageOrientationPatient, datasets[0].PixelSpacing
    )
    first, right, below = to_lps(np.array([[0, 0], [1, 0], [0, 1]]))
    assert np.allclose(right - first, [0, 0.25, 0])
    assert np.allclose(below - first, [0, 0, -0.5])
    xs = [item.ImagePositionPatient[0] for item in datasets]
    assert np.allclose(np.diff(xs), 4.0)
    assert np.isclose(sum(xs), 0)
    assert len({item.FrameOfReferenceUID for item in datasets}) == 1


def test_missing_indexes_stay_gaps_and_every_second_slice_is_two_steps():
    plane = np.ones((4, 4), np.uint8)
    every_second = wrap_slices([Slice(index, plane) for index in (8, 4, 6)], sidecar(slice_spacing_mm=1.0))
    assert [item.SpacingBetweenSlices for item in every_second] == [2.0] * 3
    assert np.allclose([item.ImagePositionPatient[0] for item in every_second], [-2, 0, 2])
    gap = wrap_slices([Slice(index, plane) for index in (1, 2, 5)], sidecar(slice_spacing_mm=1.0))
    assert np.allclose(np.diff([item.ImagePositionPatient[0] for item in gap]), [1, 3])


def test_the_same_input_gives_the_same_bytes_and_any_change_other_uids():
    first, again = series(2, seed=5), series(2, seed=5)
    assert [encoded(item) for item in first] == [encoded(item) for item in again]
    for changed in (
        series(2, seed=6),
        series(2, seed=5, patient_id="SYN-2"),
        series(2, seed=5, pixel_spacing_mm=(1, 1)),
    ):
        assert {item.SOPInstanceUID for item in changed}.isdisjoint(item.SOPInstanceUID for item in first)


def test_series_with_one_study_key_lie_in_one_study():
    one, two = series(1, seed=1, study_key="a")[0], series(1, seed=2, study_key="a")[0]
    assert one.StudyInstanceUID == two.StudyInstanceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert series(1, seed=1, study_key="a", patient_id="SYN-9")[0].StudyInstanceUID != one.StudyInstanceUID


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_pixels_survive_writing_and_reading(depth: str):
    for dataset in series(2, depth=depth, size=(7, 5)):
        back = dcmread(BytesIO(encoded(dataset)))
        assert back.SOPClassUID == MRImageStorage
        assert back.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert back.BodyPartExamined == "LSPINE"
        assert back.BitsStored == np.dtype(depth).itemsize * 8
        assert np.array_equal(back.pixel_array, dataset.pixel_array)
        assert back.pixel_array.shape == (7, 5)


def test_synthetic_is_written_into_the_descriptions():
    dataset = series(1, synthetic=True, study_description="Lumbar", series_description="T2")[0]
    assert (dataset.StudyDescription, dataset.SeriesDescription) == ("SYNTHETIC Lumbar", "SYNTHETIC T2")


@pytest.mark.parametrize(
    "slices",
    [
        [],
        [Slice(1, np.zeros((4, 4), np.uint8)), Slice(1, np.zeros((4, 4), np.uint8))],
        [Slice(1, np.zeros((4, 4), np.uint8)), Slice(2, np.zeros((4, 5), np.uint8))],
        [Slice(1, np.zeros((4, 4), np.float32))],
        [Slice(1, np.zeros((4, 4, 3), np.uint8))],
        [Slice(1, np.zeros((0, 4), np.uint8))],
    ],
)
def test_what_is_no_series_is_refused(slices: list[Slice]):
    with pytest.raises(InvalidRequestError):
        wrap_slices(slices, sidecar())


@pytest.mark.test_data
def test_spider_patients_are_wrapped_under_a_made_up_identity(test_data: Path):
    assert len(spider_patients(test_data)) == 30
    datasets = spider_patient_series(test_data, "65")
    assert (datasets[0].PatientID, datasets[0].IssuerOfPatientID) == ("SYN-SPIDER-65", "DEMO")
    assert "wrapped from SPIDER derived PNG" in datasets[0].SeriesDescription
    assert datasets[0].SpacingBetweenSlices == 2.0
    assert list(datasets[0].PixelSpacing) == [0.46875, 0.46875]
    assert "LossyImageCompression" not in datasets[0]
    source = sorted((test_data / "spider" / "t2_space" / "images").glob("65_t2_SPACE_slice*"))
    first = min(source, key=lambda path: int(path.stem.split("slice")[1]))
    assert np.array_equal(datasets[0].pixel_array, read_slice(first, spider_patient_sidecar(test_data, "65")).pixels)


@pytest.mark.test_data
def test_an_unknown_spider_patient_is_not_found(test_data: Path):
    with pytest.raises(NotFoundError):
        spider_patient_series(test_data, "9999")
