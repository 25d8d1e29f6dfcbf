"""Quality measures find SYNTHETIC faults of known size, grow with them, and say when they could not look."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging import artefacts
from ai_services.quality import pixel_measures
from ai_services.quality.measure import CannotLookError, Grade, limits, measured
from ai_services.quality.page import NAMES

FloatArray = NDArray[np.float32]


@pytest.fixture(scope="module")
def body() -> FloatArray:
    """A SYNTHETIC body of three tissues in air, little noise, room on all sides."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:160, :192]
    inside = ((rows - 80) / 60) ** 2 + ((columns - 96) / 58) ** 2 < 1
    planes = []
    for _ in range(7):
        texture = ndimage.gaussian_filter(rng.normal(size=inside.shape), 20)
        tissue = np.array([300, 500, 800])[np.digitize(texture, np.quantile(texture, (0.3, 0.7)))]
        planes.append(ndimage.gaussian_filter(np.where(inside, tissue, 0).astype(float), 1))
    return artefacts.with_noise(np.stack(planes).astype(np.float32), 8)


def of(stack: FloatArray, name: str, axis: int | None = 2) -> float:
    mask = pixel_measures.foreground_of(stack)
    if name in ("ghosting_percent",):
        return pixel_measures.ghosting_percent(stack, mask, axis)
    if name == "wrap_percent":
        return pixel_measures.wrap_percent(mask, axis)
    return float(getattr(pixel_measures, name)(stack, mask))


def test_noise_is_found_in_its_size(body: FloatArray):
    for sigma in (40, 80):  # less than that drowns in the fine structure of this small body
        found = of(artefacts.with_noise(body, sigma), "noise_percent") / 100 * 500
        assert found == pytest.approx(np.hypot(sigma, 8), rel=0.2)


def test_the_bias_field_is_found_in_its_size_and_a_flat_image_has_none(body: FloatArray):
    assert of(body, "bias_percent") < 1.5
    mask = pixel_measures.foreground_of(body)
    drawn = artefacts.with_bias_field(np.ones_like(body), 0.5)[mask]
    truth = 100 * drawn.std() / drawn.mean()
    assert of(artefacts.with_bias_field(body, 0.5), "bias_percent") == pytest.approx(truth, rel=0.25)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_ghost_is_found_along_the_phase_direction_only(body: FloatArray, axis: int):
    ghosted = artefacts.with_ghost(body, 0.08, axis)
    assert of(body, "ghosting_percent", axis) < 1
    assert of(ghosted, "ghosting_percent", axis) > 2.5
    assert of(ghosted, "ghosting_percent", 3 - axis) < 2.5


def test_more_ghost_is_more(body: FloatArray):
    found = [of(artefacts.with_ghost(body, strength), "ghosting_percent") for strength in (0.02, 0.05, 0.1)]
    assert found == sorted(found)
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("pixels", [3, 6, 12])
def test_moved_slices_are_found_in_millimetres(body: FloatArray, pixels: int):
    still = np.repeat(body[:1], 7, axis=0)
    moved = artefacts.with_moved_slices(still, pixels)
    assert pixel_measures.slice_shift_mm(moved, (0.7, 0.7)) == pytest.approx(0.7 * pixels, abs=0.2)
    assert pixel_measures.slice_shift_mm(still, (0.7, 0.7)) == 0


def test_wrap_is_suspected_where_the_body_reaches_both_borders(body: FloatArray):
    assert of(body, "wrap_percent") == 0
    assert of(artefacts.with_wrap(body, 50), "wrap_percent") > 40


@pytest.mark.parametrize("text", ["SYNTHETIC", "AB12"])
def test_text_in_every_slice_is_suspected(body: FloatArray, text: str):
    assert pixel_measures.burnt_in_letters(body) == 0
    assert pixel_measures.burnt_in_letters(artefacts.with_text(body, text)) >= len(text) - 2


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.05, 50), offset=st.just(0.0))
def test_the_grey_scale_of_a_scanner_changes_nothing(body: FloatArray, factor: float, offset: float):
    scaled = (body * np.float32(factor) + np.float32(offset)).astype(np.float32)
    assert of(scaled, "noise_percent") == pytest.approx(of(body, "noise_percent"), rel=0.02)
    assert of(scaled, "ghosting_percent") == pytest.approx(of(body, "ghosting_percent"), abs=0.05)


@pytest.mark.parametrize("name", ["noise_percent", "bias_percent"])
def test_constant_images_could_not_be_looked_at(name: str):
    with pytest.raises(CannotLookError):
        of(np.full((3, 32, 32), 7, dtype=np.float32), name)


def test_without_a_phase_direction_ghosts_and_wrap_could_not_be_looked_at(body: FloatArray):
    for name in ("ghosting_percent", "wrap_percent"):
        with pytest.raises(CannotLookError):
            of(body, name, None)


def test_a_field_map_has_no_body_to_look_at(body: FloatArray):
    """SYNTHETIC: values about zero, as of a field map or a phase image; every measure of the body says why."""
    with pytest.raises(CannotLookError, match="no signal"):
        pixel_measures.foreground_of(body - 4 * body.max())


def test_two_slices_are_too_few(body: FloatArray):
    with pytest.raises(CannotLookError):
        pixel_measures.slice_shift_mm(body[:2], (1, 1))
    with pytest.raises(CannotLookError):
        pixel_measures.burnt_in_letters(body[:2])


def test_limits_grade_in_both_directions():
    assert [measured("noise", value, "").grade for value in (1, 8, 20)] == [Grade.GOOD, Grade.DOUBTFUL, Grade.POOR]
    found = [measured("head-foot-coverage", value, "").grade for value in (300, 200, 100)]
    assert found == [Grade.GOOD, Grade.DOUBTFUL, Grade.POOR]
    assert set(limits()) == set(NAMES)
