"""Corrected series: what they mend, where they lie in the patient, what their headers say."""

from __future__ import annotations

import json
from copy import deepcopy
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from ai_services.imaging import artefacts
from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.phantom import lumbar_phantom
from ai_services.imaging.volume import Volume
from ai_services.quality import pixel_measures
from ai_services.quality.corrections import Step, correct, resampled, standardised
from ai_services.quality.derived_series import derived_series
from ai_services.quality.frames import parts_of
from ai_services.quality.measure import Grade
from ai_services.quality.report import VERSION, report_of, reports_of
from foramen.cli import app
from foramen.kernel.corrected_series import STEPS, VERSIONS, corrected_series_uids
from tests.builders.mr_series import mr_series

ALL = tuple(Step)


@pytest.fixture(scope="module")
def series() -> list[Dataset]:
    phantom = lumbar_phantom(3, slices=5, rows=112, columns=96, spacing_mm=(4.0, 2.6, 2.6))
    return mr_series(phantom.pixels, phantom.affine_lps, FrameOfReferenceUID="1.2.3")


def smooth_volume(seed: int, shape: tuple[int, int, int] = (4, 60, 48)) -> Volume:
    grid = np.indices(shape).astype(np.float32)
    rng = np.random.default_rng(seed)
    array = 500 + 100 * np.sin(grid[1] / 9 + rng.uniform(0, 6)) + 80 * np.cos(grid[2] / 7)
    affine = np.array([[4.0, 0, 0, -8], [0, 0, 0.7, 3], [0, -0.9, 0, 40], [0, 0, 0, 1]])
    return Volume(array.astype(np.float32), affine)


def test_bias_correction_takes_the_field_away():
    volume = smooth_volume(0, (6, 128, 128))
    inside = np.hypot(*(np.indices((128, 128)) - 64)) < 52
    clean = np.where(inside, volume.array, 5).astype(np.float32)
    biased = Volume(artefacts.with_bias_field(clean, 0.4), volume.affine_lps)
    mended = correct(biased, (Step.BIAS,)).volume.array
    where = np.broadcast_to(inside, clean.shape)

    def error(array: np.ndarray) -> float:
        ratio = array[where] / clean[where]
        return float(ratio.std() / ratio.mean())

    assert error(mended) < error(biased.array) / 3


def test_denoising_takes_noise_away_and_leaves_edges(series: list[Dataset]):
    volume = volume_from_datasets(series).volume
    noisy = Volume(artefacts.with_noise(volume.array, 60), volume.affine_lps)
    mended = correct(noisy, (Step.DENOISE,)).volume.array
    before, after = (float(np.sqrt(((array - volume.array) ** 2).mean())) for array in (noisy.array, mended))
    assert after < 0.8 * before


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100), pixel_mm=st.floats(0.35, 1.6))
def test_resampling_keeps_every_point_where_it_is(seed: int, pixel_mm: float):
    volume = smooth_volume(seed)
    again, _ = resampled(volume, pixel_mm)
    assert again.spacing_mm == pytest.approx((4.0, pixel_mm, pixel_mm))
    index = np.array([2.0, again.array.shape[1] // 2, again.array.shape[2] // 2])
    row, column = volume.to_index(again.to_lps(index))[1:]
    plane = volume.array[2]
    r, c = int(row), int(column)
    weights = np.outer([1 - (row - r), row - r], [1 - (column - c), column - c])
    expected = float((plane[r : r + 2, c : c + 2] * weights).sum())
    # Linear interpolation of a sine of period 44 px; shrinking also averages over the new pixel.
    assert again.array[tuple(index.astype(int))] == pytest.approx(expected, abs=6)


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.1, 20))
def test_standardised_series_of_two_scanners_are_equal(factor: float):
    volume = smooth_volume(3)
    other = Volume(volume.array * np.float32(factor), volume.affine_lps)
    assert np.allclose(standardised(volume)[0].array, standardised(other)[0].array, atol=1.5)


def test_the_new_series_says_what_it_was_made_from(series: list[Dataset]):
    read = volume_from_datasets(series)
    untouched = [dataset.PixelData for dataset in series]
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in series}
    sources = [by_uid[uid] for uid in read.sop_instance_uids]
    corrected = correct(read.volume, ALL)
    made = derived_series(sources, corrected, ALL, series_number=9000)
    assert [dataset.PixelData for dataset in series] == untouched
    assert [d.SOPInstanceUID for d in made] == [
        d.SOPInstanceUID for d in derived_series(sources, corrected, ALL, series_number=9000)
    ]
    assert {d.SeriesInstanceUID for d in made}.isdisjoint({d.SeriesInstanceUID for d in series})
    for dataset, source in zip(made, sources, strict=True):
        assert list(dataset.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.FrameOfReferenceUID == "1.2.3" == source.FrameOfReferenceUID
        assert [code.CodeValue for code in dataset.DerivationCodeSequence] == ["113046", "113087", "113085"]
    stored = []
    for dataset in made:
        file = BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        file.seek(0)
        stored.append(dcmread(file))
    again = volume_from_datasets(stored).volume
    assert np.allclose(again.affine_lps, corrected.volume.affine_lps, atol=1e-4)
    assert np.abs(again.array - corrected.volume.array).max() <= 1


def test_every_copy_can_be_told_by_its_uid(series: list[Dataset]):
    """Registration tells copies from new input by these UIDs alone: a step or a version it does not know would hide."""
    assert [step.value for step in Step] == list(STEPS)
    assert VERSIONS[-1] == VERSION
    read = volume_from_datasets(series)
    for steps in ((Step.RESAMPLE,), ALL):
        made = derived_series(series, correct(read.volume, steps), steps, series_number=9000)
        assert made[0].SeriesInstanceUID in corrected_series_uids(str(series[0].SeriesInstanceUID))


def test_a_float_scale_below_sixteen_bits_comes_back(series: list[Dataset]):
    read = volume_from_datasets(series)
    tiny = Volume(read.volume.array / np.float32(5000), read.volume.affine_lps)
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in series}
    corrected = correct(tiny, (Step.RESAMPLE,))
    sources = [by_uid[uid] for uid in read.sop_instance_uids]
    made = derived_series(sources, corrected, (Step.RESAMPLE,), series_number=1)
    again = volume_from_datasets(made).volume
    assert np.allclose(again.array, corrected.volume.array, atol=float(tiny.array.max()) / 60000)


def test_a_missing_slice_and_uneven_distances_are_told(series: list[Dataset]):
    found = {m.code: m for m in report_of([d for n, d in enumerate(series) if n != 2])[0].measures}
    assert (found["missing-slices"].value, found["missing-slices"].grade) == (1, Grade.DOUBTFUL)
    assert found["spacing-irregularity"].grade is Grade.GOOD
    assert found["wrap"].grade is Grade.UNKNOWN  # The phantom does not say in which direction phase was encoded.
    assert found["wrap"].value is None


def test_what_cannot_be_decoded_is_said_and_not_guessed(series: list[Dataset]):
    broken = deepcopy(series)
    broken[0].PixelData = b"short"
    report, stack = report_of(broken)
    assert stack is None
    assert {m.grade for m in report.measures if m.code in ("noise", "bias-field", "burnt-in-text")} == {Grade.UNKNOWN}
    assert report.grade is not Grade.GOOD


@pytest.mark.test_data
def test_an_enhanced_series_is_measured(test_data: Path):
    """Real: four instances, the same six slices at four times (Siemens XA10)."""
    paths = sorted((test_data / "dicom" / "enhanced_mr" / "Siemens" / "XA10").glob("*.dcm"))
    ((report, stack),) = reports_of([dcmread(path) for path in paths])
    assert (report.images, report.repeats, report.part) == (6, 3, "")
    assert stack is not None
    assert stack.shape == (6, 64, 64)
    first = dcmread(paths[0])
    assert np.array_equal(np.sort(stack.ravel()), np.sort(first.pixel_array.astype(np.float32).ravel()))
    found = {measure.code: measure for measure in report.measures}
    # Six slices of 2.4 mm, 2.4 mm apart, 64 pixels of 3.375 mm; phase was encoded along the columns.
    assert found["head-foot-coverage"].value == pytest.approx(12.0, abs=0.1)
    assert found["left-right-coverage"].value == pytest.approx(63 * 3.375, abs=0.1)
    assert (found["slice-gap"].value, found["missing-slices"].value) == (pytest.approx(0, abs=1e-3), 0)
    assert {found[code].grade for code in ("bias-field", "ghosting", "wrap", "slice-shift")} <= {
        Grade.GOOD,
        Grade.DOUBTFUL,
        Grade.POOR,
    }


def test_volumes_of_other_echoes_are_measured_apart(series: list[Dataset]):
    """SYNTHETIC: one instance with two echoes of each of five slices."""
    enhanced = deepcopy(series[0])
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(enhanced, keyword)
    planes, groups, shared = [], [], Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = series[0].PixelSpacing
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = series[0].ImageOrientationPatient
    for echo in (20.0, 90.0):
        for dataset in series:
            group = Dataset()
            group.PlanePositionSequence, group.MREchoSequence = [Dataset()], [Dataset()]
            group.PlanePositionSequence[0].ImagePositionPatient = dataset.ImagePositionPatient
            group.MREchoSequence[0].EffectiveEchoTime = echo
            groups.append(group)
            planes.append(dataset.pixel_array)
    enhanced.SharedFunctionalGroupsSequence, enhanced.PerFrameFunctionalGroupsSequence = [shared], groups
    enhanced.NumberOfFrames, enhanced.PixelData = len(planes), np.stack(planes).tobytes()
    found = parts_of([enhanced])
    assert [(part.name, len(part.images), part.repeats) for part in found] == [
        ("1/2 TE 20 ms", 5, 0),
        ("2/2 TE 90 ms", 5, 0),
    ]
    for part in found:
        for image, dataset in zip(part.images, series, strict=True):
            assert np.array_equal(image.pixel_array, dataset.pixel_array)
            assert list(image.ImagePositionPatient) == list(dataset.ImagePositionPatient)
            assert list(image.PixelSpacing) == list(dataset.PixelSpacing)
    (classic,) = parts_of(series)
    assert (classic.name, classic.images) == ("", tuple(series))
    enhanced.PixelData = b"short"
    ((broken, stack),) = reports_of([enhanced])
    assert stack is None
    assert {m.grade for m in broken.measures if m.code in ("noise", "burnt-in-text")} == {Grade.UNKNOWN}


def test_the_command_writes_a_page_and_corrected_files(series: list[Dataset], tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, dataset in enumerate(series):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("not DICOM")
    arguments = ["quality", str(folder), "--out", str(tmp_path / "out"), "--correct", "resample,standardise"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (told,) = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["images"] == len(series)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "未注册的医疗器械" in page
    assert "data:image/png" in page
    assert str(series[0].get("PatientName", "")) not in page
    made = [dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    assert len(made) == len(series)
    assert CliRunner().invoke(app, ["quality", "--out", str(tmp_path / "x")]).exit_code == 2
    assert CliRunner().invoke(app, ["quality", str(tmp_path / "nothing"), "--out", str(tmp_path / "x")]).exit_code == 1
    assert pixel_measures.burnt_in_letters(np.stack([d.pixel_array for d in made]).astype(np.float32)) == 0
