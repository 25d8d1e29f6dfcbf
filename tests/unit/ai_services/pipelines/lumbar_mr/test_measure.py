"""Millimetres on shapes whose size is known."""

from __future__ import annotations

import numpy as np
import pytest

from ai_services.pipelines.lumbar_mr.crop import DiscPose
from ai_services.pipelines.lumbar_mr.measure import (
    Section,
    canal_diameter_mm,
    disc_height_index,
    disc_heights_mm,
)

SPACING = (0.5, 0.7)


def _section(slice_mm: float = 3.0) -> Section:
    """Discs 9 mm high and 35 mm deep every 36 mm, canal 14 mm wide behind."""
    segments = np.zeros((400, 200), np.uint8)
    for number, top in ((5, 40.0), (4, 76.0), (3, 112.0)):
        segments[round(top / 0.5) : round((top + 9) / 0.5), round(35 / 0.7) : round(70 / 0.7)] = number
    segments[:, round(77 / 0.7) : round(91 / 0.7)] = 2
    return Section(segments, SPACING, slice_mm)


def _pose(number: int) -> DiscPose:
    centre = _section().points_mm(number).mean(axis=0)
    return DiscPose(number - 2, 0, centre, np.array([0.0, 1.0]), np.array([-1.0, 0.0]))


def test_disc_heights():
    assert disc_heights_mm(_section(), 4, _pose(4)) == pytest.approx((9, 9, 9), abs=0.5)


def test_disc_height_index_is_disc_over_body():
    measured = disc_height_index(_section(), 4, _pose(4), (3, 5))
    assert measured is not None
    assert measured.value == pytest.approx(9 / 27, rel=0.1)
    assert 0 < measured.uncertainty < 0.1


def test_canal_diameter_and_its_uncertainty_widen_with_thick_slices():
    thin, thick = (canal_diameter_mm(_section(mm), 2, _pose(4)) for mm in (3.0, 4.5))
    assert thin is not None
    assert thick is not None
    assert thin.value == pytest.approx(14, abs=0.5)
    assert thick.uncertainty == pytest.approx(1.5 * thin.uncertainty)


def test_a_slanted_canal_is_measured_at_right_angles():
    segments = np.zeros((400, 400), np.uint8)
    row, column = np.mgrid[:400, :400] * 0.5
    across = (column - row) / np.sqrt(2)
    segments[np.abs(across) <= 6] = 2
    pose = DiscPose(1, 0, np.array([100.0, 80.0]), np.array([0.0, 1.0]), np.array([-1.0, 0.0]))
    measured = canal_diameter_mm(Section(segments, (0.5, 0.5), 3.0), 2, pose)
    assert measured is not None
    assert measured.value == pytest.approx(12, abs=0.4)


def test_what_is_not_in_the_slice_has_no_size():
    assert disc_heights_mm(_section(), 9, _pose(4)) is None
    assert disc_height_index(_section(), 4, _pose(4), ()) is None
    assert canal_diameter_mm(_section(), 9, _pose(4)) is None
