"""Spacing that a table gives wrongly is mended by the spine's own measures; a square image keeps square pixels."""

from __future__ import annotations

import pytest

from ai_services.imaging.plausible_spacing import plausible_spacing


def test_stretched_rows_of_a_square_field_of_view_are_found_out():
    row, column = plausible_spacing((700, 350), (0.8, 0.8), pitch_mm=72.0, depth_mm=35.0)
    assert column == 0.8
    assert row == pytest.approx(0.4, rel=0.05)


def test_a_tall_image_with_usual_discs_keeps_its_spacing():
    row, column = plausible_spacing((700, 500), (0.6, 0.6), pitch_mm=36.0, depth_mm=35.0)
    assert (row, column) == (pytest.approx(0.6, rel=0.01), 0.6)


def test_square_pixels_stay_square_and_a_wrong_scale_is_mended():
    row, column = plausible_spacing((512, 512), (1.0, 1.0), pitch_mm=66.0, depth_mm=62.0)
    assert row == column
    assert column * 66 == pytest.approx(37.3, abs=1)


def test_usual_anatomy_is_left_alone():
    assert plausible_spacing((512, 512), (0.6, 0.6), 31.0, 33.0) == (0.6, 0.6)
