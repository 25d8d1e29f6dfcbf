"""Volume → series → volume: every voxel stays where it was, read back by ITK; what is no volume is refused."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite

from foramen.ingest.sidecar import Description
from foramen.ingest.volume_file import Volume, read_volume
from foramen.ingest.volume_series import stored_values, wrap_world_volume
from foramen.kernel.errors import InvalidRequestError

WHO = Description(patient_id="SYN-1", patient_name="SYNTHETIC^ONE", synthetic=True)
LIMIT = 2**30
FORMATS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")


def rotation(alpha: float, beta: float, gamma: float) -> np.ndarray:
    """A right-handed matrix of three unit vectors."""
    a, b, c = (np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]) for t in (alpha, beta, gamma))
    x, y, z = np.eye(3), np.eye(3), np.eye(3)
    x[1:, 1:], y[np.ix_([0, 2], [0, 2])], z[:2, :2] = a, b, c
    return x @ y @ z


def image(voxels: np.ndarray, spacing=(0.5, 0.75, 4.0), origin=(-31.5, 12.25, 80.0), axes=None):
    found = SimpleITK.GetImageFromArray(voxels)
    found.SetSpacing(spacing)
    found.SetOrigin(origin)
    if axes is not None:
        found.SetDirection(np.asarray(axes).ravel().tolist())
    return found


def world_error_mm(before: SimpleITK.Image, after: SimpleITK.Image) -> float:
    """Largest distance between the places of the same corner voxels of two images."""
    size = before.GetSize()
    corners = [(x, y, z) for x in (0, size[0] - 1) for y in (0, size[1] - 1) for z in (0, size[2] - 1)]
    places = [[np.array(i.TransformIndexToPhysicalPoint(corner)) for corner in corners] for i in (before, after)]
    return max(float(np.linalg.norm(a - b)) for a, b in zip(*places, strict=True))


def as_dicom_reader_sees(datasets, folder: Path) -> SimpleITK.Image:
    """The series read by ITK's own DICOM reader (GDCM), slices in the order of their instance numbers."""
    paths = []
    for number, dataset in enumerate(datasets):
        dcmwrite(folder / f"{number}.dcm", dataset, enforce_file_format=True)
        paths.append(str(folder / f"{number}.dcm"))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(paths)
    return reader.Execute()


@pytest.mark.requirement("PS3.3 C.7.6.2: the place of every voxel of a volume")
@settings(max_examples=30, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-math.pi, math.pi)] * 3),
    spacing=st.tuples(*[st.floats(0.05, 12.0)] * 3),
    origin=st.tuples(*[st.floats(-1500.0, 1500.0)] * 3),
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    suffix=st.sampled_from((".nii", ".mha", ".nrrd")),
)
def test_every_voxel_keeps_its_place_in_the_world(angles, spacing, origin, shape, suffix):
    """PS3.3 C.7.6.2.1.1; ITK reads back what we wrote."""
    before = image(np.arange(math.prod(shape), dtype=np.int16).reshape(shape), spacing, origin, rotation(*angles))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SimpleITK.WriteImage(before, str(folder / f"v{suffix}"))
        datasets, _ = wrap_world_volume(read_volume(folder / f"v{suffix}", LIMIT), WHO)
        after = as_dicom_reader_sees(datasets, folder)
    assert np.array_equal(SimpleITK.GetArrayFromImage(after), SimpleITK.GetArrayFromImage(before))
    assert world_error_mm(before, after) < 1e-3


def test_a_left_handed_volume_keeps_its_place_too():
    """The formula of the standard itself, as readers may turn the order of slices around."""
    axes = np.diag([1.0, 1.0, -1.0])
    volume = Volume(np.zeros((4, 5, 6), np.int16), np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.7, 3.0]), axes)
    datasets, _ = wrap_world_volume(volume, WHO)
    for index, dataset in enumerate(datasets):
        position = np.array([float(value) for value in dataset.ImagePositionPatient])
        assert np.allclose(position, volume.origin + index * 3.0 * axes[:, 2], atol=1e-6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_gives_the_same_series(suffix: str, tmp_path: Path):
    voxels = np.random.default_rng(1).integers(-900, 2000, (4, 6, 5)).astype(np.int16)
    SimpleITK.WriteImage(image(voxels, axes=rotation(0.2, 0.1, -0.3)), str(tmp_path / f"v{suffix}"))
    datasets, told = wrap_world_volume(read_volume(tmp_path / f"v{suffix}", LIMIT), WHO)
    assert told == ()
    assert [int(item.InstanceNumber) for item in datasets] == [1, 2, 3, 4]
    assert np.array_equal(np.stack([item.pixel_array for item in datasets]), voxels)
    assert datasets[0].PixelRepresentation == 1
    assert "SYNTHETIC" in datasets[0].SeriesDescription


@pytest.mark.requirement("PS3.3 C.11.1: rescale of converted values")
@pytest.mark.parametrize(
    ("voxels", "kind", "slope"),
    [
        (np.array([0, 255], np.uint8), "uint8", 1.0),
        (np.array([-1, 5], np.int8), "int16", 1.0),
        (np.array([-32768, 32767], np.int32), "int16", 1.0),
        (np.array([0, 65535], np.uint32), "uint16", 1.0),
        (np.array([-1000.0, 3000.0], np.float32), "int16", 1.0),
        (np.array([0.0, 1.0e-7], np.float64), "uint16", None),
        (np.array([-3.5, 7.25], np.float32), "uint16", None),
        (np.array([0, 2**31], np.uint32), "uint16", None),
    ],
    ids=str,
)
def test_whole_numbers_stay_and_others_lose_at_most_half_a_step(voxels: np.ndarray, kind: str, slope: float | None):
    stored = stored_values(voxels.reshape(1, 1, -1))
    assert stored.voxels.dtype == kind
    assert (stored.slope == slope) if slope else bool(stored.told)
    back = stored.voxels.astype(np.float64) * stored.slope + stored.intercept
    worst = np.abs(back - voxels).max()
    assert worst <= (0 if slope else stored.slope * 0.5000001)


def test_what_is_no_number_becomes_the_smallest_value_and_is_said():
    stored = stored_values(np.array([[[np.nan, 2.5, np.inf, 7.5]]]))
    assert stored.told[0] == "2 voxels that are no number hold the smallest value"
    assert stored.voxels.ravel()[0] == stored.voxels.ravel()[1] == 0
    with pytest.raises(InvalidRequestError, match="Not one voxel"):
        stored_values(np.full((1, 1, 2), np.nan))


@pytest.mark.requirement("PS3.3 C.8.2.1: CT image")
def test_a_ct_has_its_rescale_and_type(tmp_path: Path):
    about = Description(patient_id="SYN-1", modality="CT")
    SimpleITK.WriteImage(image(np.full((2, 3, 4), -1000, np.int16)), str(tmp_path / "v.mha"))
    datasets, _ = wrap_world_volume(read_volume(tmp_path / "v.mha", LIMIT), about)
    assert datasets[0].SOPClassUID.name == "CT Image Storage"
    assert (datasets[0].RescaleSlope, datasets[0].RescaleIntercept, datasets[0].RescaleType) == (1, 0, "HU")


def refused(path: Path, match: str, limit: int = LIMIT) -> None:
    with pytest.raises(InvalidRequestError, match=match):
        read_volume(path, limit)


def test_a_header_that_points_elsewhere_is_refused(tmp_path: Path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    SimpleITK.WriteImage(image(np.zeros((2, 3, 4), np.uint8)), str(inside / "v.mhd"))
    head = (inside / "v.mhd").read_text()
    for name in ("../secret.raw", str(tmp_path / "secret.raw"), "LIST", "s%d.raw 1 2 1", "..\\secret.raw"):
        (inside / "v.mhd").write_text(head.replace("v.raw", name))
        refused(inside / "v.mhd", "outside its folder")
    (inside / "link.raw").symlink_to(tmp_path / "secret.raw")
    (inside / "v.mhd").write_text(head.replace("v.raw", "link.raw"))
    refused(inside / "v.mhd", "not beside it")
    SimpleITK.WriteImage(image(np.zeros((2, 3, 4), np.uint8)), str(inside / "v.nhdr"))
    head = (inside / "v.nhdr").read_text()
    assert "data file: v.raw" in head
    (inside / "v.nhdr").write_text(head.replace("data file: v.raw", "data file: ../secret.raw"))
    refused(inside / "v.nhdr", "outside its folder")


def test_a_volume_that_grows_beyond_the_limit_is_refused_by_its_header(tmp_path: Path):
    SimpleITK.WriteImage(image(np.zeros((64, 64, 64), np.uint8)), str(tmp_path / "v.nii.gz"))
    assert (tmp_path / "v.nii.gz").stat().st_size < 2000
    refused(tmp_path / "v.nii.gz", "larger than 100000 bytes", 100_000)


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_files_are_refused(tmp_path: Path, suffix: str):
    """ITK by itself fills up a NIfTI file that ends early with zeros."""
    voxels = np.random.default_rng(3).integers(0, 4000, (8, 30, 30)).astype(np.int16)
    SimpleITK.WriteImage(image(voxels), str(tmp_path / f"v{suffix}"))
    largest = max((path for path in tmp_path.iterdir()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1000])
    refused(tmp_path / f"v{suffix}", "truncated|Not a readable volume")


def test_foreign_files_are_refused(tmp_path: Path):
    for suffix in FORMATS:
        (tmp_path / f"noise{suffix}").write_bytes(b"\x00" * 500)
        refused(tmp_path / f"noise{suffix}", "Not a readable volume")


def test_a_nifti_without_a_position_is_refused(tmp_path: Path):
    SimpleITK.WriteImage(image(np.ones((2, 3, 4), np.int16)), str(tmp_path / "v.nii"))
    content = bytearray((tmp_path / "v.nii").read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    (tmp_path / "v.nii").write_bytes(content)
    refused(tmp_path / "v.nii", "says nothing of the position")


def test_four_dimensions_and_colours_are_refused(tmp_path: Path):
    four = SimpleITK.JoinSeries([image(np.zeros((2, 3, 4), np.int16))] * 3)
    SimpleITK.WriteImage(four, str(tmp_path / "v.nii"))
    refused(tmp_path / "v.nii", "More than three dimensions")
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True), str(tmp_path / "c.mha")
    )
    refused(tmp_path / "c.mha", "no grey values")
