"""Measures of a drawn disc are what was drawn, in millimetres, whatever the grey scale."""

from __future__ import annotations

import numpy as np
import pytest

from ai_services.pipelines.lumbar_mr.features import disc_features, spine_features
from ai_services.pipelines.lumbar_mr.patch import CHANNELS, PATCH_SHAPE


def drawn(*, bulge_mm: float = 0.0, grey: float = 1.0, height_mm: float = 10.0) -> np.ndarray:
    """A disc 36 mm deep between two bodies, with a canal of 14 mm that a bulge narrows."""
    patch = np.zeros((len(CHANNELS), *PATCH_SHAPE), np.float32)
    half, back = round(height_mm), 88 + round(2 * bulge_mm)
    rows = slice(48 - half, 48 + half)
    patch[4, :, 16:88] = 1
    patch[4, rows] = 0
    patch[2, rows, 16:back] = 1
    patch[3, :, 90:118] = 1
    patch[3, rows, 90 : max(90, back + 2)] = 0
    patch[0] = 0.4 * (patch[4] > 0) + 0.5 * (patch[2] > 0) + 1.0 * (patch[3] > 0)
    patch[0] *= grey
    return patch


@pytest.mark.parametrize("grey", [1.0, 0.5])
def test_sizes_and_brightness_are_those_drawn(grey):
    row = disc_features(drawn(grey=grey))
    assert row["depth"] == pytest.approx(36, abs=1)
    assert row["height_mean"] == pytest.approx(10, abs=0.5)
    assert row["t2_mean_fluid"] == pytest.approx(0.5, abs=0.05)
    assert row["bulge_max"] == pytest.approx(0, abs=0.6)
    assert row["canal_share"] == pytest.approx(1, abs=0.05)


def test_a_bulge_is_measured_beyond_the_bodies_and_narrows_the_canal():
    row = disc_features(drawn(bulge_mm=4))
    assert row["bulge_max"] == pytest.approx(4, abs=0.6)
    assert row["bulge_area"] == pytest.approx(40, rel=0.2)
    assert row["canal_share"] == pytest.approx(10 / 14, abs=0.08)


def test_a_disc_is_compared_with_its_own_spine():
    patches = np.stack([drawn(height_mm=5), drawn(), drawn()])
    table, names = spine_features(patches, range(3), [35.0, 36.0])
    column = dict(zip(names, table.T, strict=True))
    assert column["height_mean_over_median"][0] == pytest.approx(-5, abs=0.6)
    assert column["height_mean_below"][1] == pytest.approx(5, abs=0.5)
    assert np.isnan(column["pitch_below"][0])
    assert column["pitch_above"][0] == 35


def test_an_empty_patch_gives_missing_measures_and_no_error():
    table, names = spine_features(np.zeros((1, len(CHANNELS), *PATCH_SHAPE), np.float32), [0], [])
    assert np.isnan(table[0, names.index("bulge_max")])
