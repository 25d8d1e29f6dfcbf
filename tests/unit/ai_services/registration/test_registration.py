"""MR-CT registration on SYNTHETIC phantoms with known transforms: error, refusal, and the DICOM object."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmwrite
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ai_services.imaging.ct_phantom import CtSetting, ct_phantom
from ai_services.imaging.volume import Volume
from ai_services.registration.quality import Quality, reasons_against, spread_mm, target_error_mm
from ai_services.registration.register import Registration, RegistrationError, register
from ai_services.registration.rigid import RigidTransform, from_landmarks, sitk_image
from ai_services.registration.spatial_registration import build_spatial_registration
from tests.builders.ct_series import ct_series
from tests.builders.mr_series import mr_series

NAMES = ("L1", "L2", "L3", "L4", "L5")
LARGEST_ERROR_MM = 1.5
GOOD = Quality(1.0, 0.9, 0.2, 1.0, 5, 0.9)


@dataclass(frozen=True)
class Pair:
    """A SYNTHETIC CT and a sagittal MR-like volume of it, elsewhere by a known transform."""

    ct: Volume
    ct_bodies: Mapping[str, Volume]
    mr: Volume
    mr_bodies: Mapping[str, Volume]
    true: RigidTransform
    centres: NDArray[np.float64]


def known(angles_deg: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> RigidTransform:
    return RigidTransform(Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix(), np.array(shift_mm))


@pytest.fixture(scope="module")
def ct() -> tuple[Volume, dict[str, Volume]]:
    phantom = ct_phantom(3, CtSetting(spacing_mm=(2.0, 1.6, 1.6)))
    volume = Volume(phantom.pixels.astype(np.float32), phantom.affine_lps)
    return volume, {
        name: Volume((phantom.labels == phantom.label_of[name, "body"]).astype(np.float32), phantom.affine_lps)
        for name in NAMES
    }


def pair(ct: tuple[Volume, dict[str, Volume]], true: RigidTransform) -> Pair:
    """T2-like grey values of the CT on a sagittal grid with 4 mm slices, noise of its own and masks to fit."""
    volume, bodies = ct
    centres = np.array([item.to_lps(np.argwhere(item.array > 0.5).mean(axis=0)) for item in bodies.values()])
    affine = np.zeros((4, 4))
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[3, 3] = (4, 0, 0), (0, 0, -1.1), (0, 1.1, 0), 1
    middle = true.apply(centres.mean(axis=0))
    shape = (15, 200, 110)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    points = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    index = volume.to_index(true.inverse().apply(points)).T
    hu = ndimage.map_coordinates(volume.array, index, order=1, cval=-1000).reshape(shape)
    grey = np.interp(hu, [-1000, -200, -100, 0, 60, 90, 150, 300, 800], [0, 0, 700, 900, 250, 420, 480, 200, 30])
    grey += np.random.default_rng(1).normal(0, 30, shape)
    moved = {
        name: Volume(
            ndimage.map_coordinates(item.array, index, order=0, cval=0).reshape(shape).astype(np.float32), affine
        )
        for name, item in bodies.items()
    }
    return Pair(volume, bodies, Volume(grey.astype(np.float32), affine), moved, true, centres)


def test_a_known_transform_is_found_again(ct: tuple[Volume, dict[str, Volume]]) -> None:
    true = known((-11, 4, -7), (-25, 15, 40))
    made = pair(ct, true)
    found = register(made.ct, made.mr, made.ct_bodies, made.mr_bodies)
    assert target_error_mm(found.transform, true, made.centres).max() < LARGEST_ERROR_MM
    assert found.quality.vertebrae == len(NAMES)
    assert found.quality.overlap is not None
    assert found.quality.overlap > 0.85


def test_vertebrae_that_are_numbered_differently_are_refused(ct: tuple[Volume, dict[str, Volume]]) -> None:
    """The spine repeats itself: names off by one give small distances and much overlap, and the wrong level."""
    made = pair(ct, known((2, 1, -2), (3, 4, -5)))
    off_by_one = {upper: made.mr_bodies[lower] for upper, lower in pairwise(NAMES)}
    with pytest.raises(RegistrationError, match="one level higher or lower") as refused:
        register(made.ct, made.mr, made.ct_bodies, off_by_one)
    assert refused.value.quality is not None
    assert refused.value.quality.better_elsewhere


def test_too_few_vertebrae_in_common_are_refused(ct: tuple[Volume, dict[str, Volume]]) -> None:
    volume, bodies = ct
    two = {name: bodies[name] for name in NAMES[:2]}
    with pytest.raises(RegistrationError, match="2 landmarks in common"):
        register(volume, volume, bodies, two)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"surface_mm": 4.0}, "surfaces of vertebrae lie 4.0 mm apart"),
        ({"surface_mm": None}, "was not measured"),
        ({"overlap": 0.5}, "overlap of vertebrae is 0.50"),
        ({"spread_mm": 9.0}, "different starts"),
        ({"vertebrae": 2}, "2 vertebrae in common"),
        ({"landmark_mm": 12.0}, "centroids"),
    ],
)
def test_each_measure_can_refuse_alone(changed: dict[str, float | None], said: str) -> None:
    assert reasons_against(GOOD) == ()
    (reason,) = reasons_against(replace(GOOD, **changed))
    assert said in reason


degrees = st.floats(-60, 60)
millimetres = st.floats(-200, 200)


@settings(max_examples=60, deadline=None)
@given(st.tuples(degrees, degrees, degrees), st.tuples(millimetres, millimetres, millimetres), st.integers(0, 999))
def test_landmarks_give_the_transform_back_and_it_undoes_itself(
    angles: tuple[float, float, float], shift: tuple[float, float, float], seed: int
) -> None:
    true = known(angles, shift)
    points = np.random.default_rng(seed).normal(0, 50, (5, 3))
    names = dict(zip(NAMES, points, strict=True))
    found = from_landmarks(names, {name: true.apply(point) for name, point in names.items()})
    np.testing.assert_allclose(found.matrix(), true.matrix(), atol=1e-6)
    np.testing.assert_allclose(found.inverse().apply(found.apply(points)), points, atol=1e-6)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert spread_mm([found, true], points) < 1e-5


def test_a_tilted_stack_keeps_its_points_in_simpleitk() -> None:
    """ITK knows no shear: what lies at a place in the patient must lie there after straightening."""
    affine = np.array([[0.0, 0, 1, -20], [0, 0.94, 0, -15], [2, 0.34, 0, 5], [0, 0, 0, 1]])
    array = np.zeros((20, 30, 40), dtype=np.float32)
    array[8:12, 12:18, 15:25] = 100
    volume = Volume(array, affine)
    middle = volume.to_lps(np.array([9.5, 14.5, 19.5]))
    image = sitk_image(volume)
    index = image.TransformPhysicalPointToIndex(middle.tolist())
    assert image[index] == pytest.approx(100, abs=1)


def test_the_dicom_object_maps_the_moving_frame_to_that_of_the_ct_and_is_valid(
    ct: tuple[Volume, dict[str, Volume]], tmp_path: Path
) -> None:
    phantom = ct_phantom(3, CtSetting(spacing_mm=(30.0, 10.0, 10.0)))
    common = {"IssuerOfPatientID": "DEMO", "StudyDate": "20261123", "StudyTime": "080000", "PatientSex": "O"}
    common |= {"PatientBirthDate": "19700101", "StudyID": "1", "AccessionNumber": "A1", "ReferringPhysicianName": ""}
    fixed = ct_series(phantom, FrameOfReferenceUID="1.2.3.1", **common)
    moving = mr_series(np.zeros((3, 8, 8), np.uint16), np.eye(4), FrameOfReferenceUID="1.2.3.2", **common)
    true = known((5, 0, 3), (10, 20, 30))
    made = build_spatial_registration(
        Registration(true, GOOD), fixed, moving, datetime(2026, 11, 23, tzinfo=UTC), "1.0"
    )
    here, there = made.RegistrationSequence
    assert (made.FrameOfReferenceUID, here.FrameOfReferenceUID, there.FrameOfReferenceUID) == (
        "1.2.3.1",
        "1.2.3.1",
        "1.2.3.2",
    )
    values = there.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
    matrix = np.array([float(value) for value in values]).reshape(4, 4)
    point = np.array([12.0, -7.0, 33.0])
    np.testing.assert_allclose((matrix @ [*true.apply(point), 1.0])[:3], point, atol=1e-4)
    assert "n=5" in there.MatrixRegistrationSequence[0].FrameOfReferenceTransformationComment
    file = tmp_path / "registration.dcm"
    dcmwrite(file, made)  # as a DICOMweb client writes it: nothing is added
    assert file.read_bytes()[128:132] == b"DICM"
    told = subprocess.run(
        [Path(sys.executable).with_name("dciodvfy"), "-new", file], capture_output=True, text=True, check=False
    ).stderr
    assert "SpatialRegistration" in told
    assert [line for line in told.splitlines() if line.startswith("Error")] == []


def test_one_frame_of_reference_needs_no_registration() -> None:
    series = ct_series(ct_phantom(3, CtSetting(spacing_mm=(30.0, 10.0, 10.0))), FrameOfReferenceUID="1.2.3")
    with pytest.raises(ValueError, match="same frame"):
        build_spatial_registration(
            Registration(known((0, 0, 0), (0, 0, 0)), GOOD), series, series, datetime(2026, 11, 23, tzinfo=UTC), "1.0"
        )
