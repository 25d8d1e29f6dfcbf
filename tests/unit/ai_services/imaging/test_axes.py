"""The written axis conventions hold: asymmetric volume, any orientation, tilted gantry, round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.volume import Volume
from ai_services.pipelines.lumbar_mr.preprocess import prepare, sagittal_orientation
from tests.builders.mr_series import mr_series


def _affine(row, column, step, origin=(10.0, -20.0, 30.0), spacing=(0.5, 0.75)):
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 3] = step, origin
    affine[:3, 1] = np.asarray(row, dtype=float) * spacing[0]
    affine[:3, 2] = np.asarray(column, dtype=float) * spacing[1]
    return affine


STANDARD = _affine((0, 0, -1), (0, 1, 0), (-4, 0, 0))


def test_each_voxel_of_an_asymmetric_volume_is_found_at_its_lps_position():
    pixels = np.arange(3 * 5 * 7).reshape(3, 5, 7)
    result = volume_from_datasets(mr_series(pixels, STANDARD))
    k, r, c = 2, 4, 1
    expected = np.array([10.0, -20.0, 30.0]) + k * np.array([-4, 0, 0]) + r * np.array([0, 0, -0.5])
    expected = expected + c * np.array([0, 0.75, 0])
    index = tuple(np.rint(result.volume.to_index(expected)).astype(int))
    assert result.volume.array[index] == pixels[k, r, c]


def test_slices_are_sorted_by_position_whatever_the_order_of_arrival():
    datasets = mr_series(np.arange(4)[:, None, None] * np.ones((4, 6, 6), int), STANDARD)
    shuffled = [datasets[index] for index in (2, 0, 3, 1)]
    forward, mixed = volume_from_datasets(datasets), volume_from_datasets(shuffled)
    assert mixed.sop_instance_uids == forward.sop_instance_uids
    np.testing.assert_array_equal(mixed.volume.array, forward.volume.array)
    np.testing.assert_allclose(mixed.volume.affine_lps, forward.volume.affine_lps)


def test_a_tilted_gantry_keeps_its_shear_in_the_affine():
    sheared = _affine((0, 0, -1), (0, 1, 0), (-4, 0, 1.1))
    result = volume_from_datasets(mr_series(np.zeros((5, 6, 6), int), sheared))
    np.testing.assert_allclose(result.volume.affine_lps, sheared, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    spacing=st.tuples(st.floats(0.3, 1.5), st.floats(0.3, 1.5), st.floats(0.8, 5.0)),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
)
def test_any_oblique_series_comes_back_with_its_geometry(angles, spacing, origin):
    a, b, c = angles
    turn = (
        np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        @ np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    )
    row, column = turn @ [0, 0, -1], turn @ [0, 1, 0]
    affine = _affine(row, column, np.cross(column, row) * spacing[2], origin, spacing[:2])
    result = volume_from_datasets(mr_series(np.zeros((4, 5, 6), int), affine))
    np.testing.assert_allclose(result.volume.affine_lps, affine, atol=1e-3)
    point = result.volume.to_lps(np.array([2.5, 1.25, 3.5]))
    np.testing.assert_allclose(result.volume.to_index(point), [2.5, 1.25, 3.5], atol=1e-6)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("row_sign", [1, -1])
@pytest.mark.parametrize("column_sign", [1, -1])
def test_preparation_brings_the_head_up_and_the_front_left_by_the_affine(transpose, row_sign, column_sign):
    row, column = np.array([0, 0, -1.0]) * row_sign, np.array([0, 1.0, 0]) * column_sign
    row, column = (column, row) if transpose else (row, column)
    affine = _affine(row, column, (-4, 0, 0), spacing=(0.94, 0.94))
    shape = (3, 40, 60) if transpose else (3, 60, 40)
    # One bright voxel at a known place in the patient: near the head and the front.
    volume = Volume(np.zeros(shape, np.float32), affine)
    corners = volume.to_lps(np.array([[1, r, c] for r in (2, shape[1] - 3) for c in (2, shape[2] - 3)]))
    head_front = corners[np.argmax(corners[:, 2] - corners[:, 1])]
    volume.array[tuple(np.rint(volume.to_index(head_front)).astype(int))] = 100
    prepared = prepare(volume)
    found = np.unravel_index(prepared.oriented.argmax(), prepared.oriented.shape)
    assert found == (1, 2, 2)
    orientation = sagittal_orientation(affine)
    np.testing.assert_array_equal(orientation.undo(orientation.apply(volume.array)), volume.array)
