"""The whole pipeline on the SYNTHETIC phantom: what a caller gets, and how bad input is answered."""

from __future__ import annotations

import numpy as np
import pytest

from ai_services.imaging.phantom import Phantom, lumbar_phantom
from ai_services.pipelines.lumbar_mr.pipeline import run
from ai_services.prediction import PipelineError, Prediction
from tests.builders.mr_series import mr_series

PHANTOM_SEED = 0


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return lumbar_phantom(PHANTOM_SEED)


@pytest.fixture(scope="module")
def prediction(phantom) -> Prediction:
    return run(mr_series(phantom.pixels, phantom.affine_lps))


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def vertebrae_of(prediction: Prediction) -> np.ndarray:
    numbers = [segment.number for segment in prediction.segments if segment.label.startswith("vertebra")]
    return np.isin(prediction.mask, numbers)


def _finding(prediction: Prediction, code: str, level: str | None):
    (found,) = [item for item in prediction.findings if item.code == code and item.level == level]
    return found


def test_structures_lie_where_the_phantom_drew_them(phantom, prediction):
    # Slices come back in ascending order along the normal, which is the reverse of the phantom's order.
    drawn = phantom.mask[::-1]
    discs = [segment.number for segment in prediction.segments if segment.label == "disc"]
    assert _dice(vertebrae_of(prediction), drawn == 1) > 0.75
    assert _dice(np.isin(prediction.mask, discs), drawn == 2) > 0.75
    assert _dice(prediction.mask == 2, drawn == 3) > 0.65


def test_the_affine_and_the_order_of_instances_belong_to_the_mask(phantom, prediction):
    datasets = mr_series(phantom.pixels, phantom.affine_lps)
    (disc,) = [segment.number for segment in prediction.segments if segment.level == "L3-L4"]
    found = prediction.affine_lps @ [*np.argwhere(prediction.mask == disc).mean(axis=0), 1]
    drawn = phantom.affine_lps @ [*np.argwhere(_drawn_disc(phantom, "L3-L4")).mean(axis=0), 1]
    np.testing.assert_allclose(found, drawn, atol=2)
    assert len(prediction.sop_instance_uids) == len(datasets) == len(prediction.mask)


def test_the_levels_are_named_from_the_lowest_disc(phantom, prediction):
    names = [segment.level for segment in prediction.segments if segment.label == "disc"]
    assert names[:5] == ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2"]
    assert prediction.numbering.confident
    heights = []
    for segment in prediction.segments[2:7]:
        centre = np.argwhere(prediction.mask == segment.number).mean(axis=0)
        heights.append(float((prediction.affine_lps @ [*centre, 1])[2]))
        drawn_at = phantom.affine_lps @ [*np.argwhere(_drawn_disc(phantom, segment.level)).mean(axis=0), 1]
        assert abs(heights[-1] - drawn_at[2]) < 6
    assert heights == sorted(heights)


def _drawn_disc(phantom: Phantom, level: str | None) -> np.ndarray:
    from scipy import ndimage

    groups, count = ndimage.label(phantom.mask == 2)
    rows = {number: ndimage.center_of_mass(groups == number)[1] for number in range(1, count + 1)}
    ordered = sorted(rows, key=lambda number: -rows[number])
    index = [disc.level for disc in phantom.discs].index(str(level))
    return groups == ordered[index]


def test_measurements_are_near_what_was_drawn(prediction):
    for level in ("L4-L5", "L3-L4", "L2-L3"):
        index = _finding(prediction, "F13", level)
        assert index.unit == "{ratio}"
        assert index.uncertainty is not None
        assert 0.15 < float(index.value) < 0.6
        canal = _finding(prediction, "canal-ap", level)
        assert canal.unit == "mm"
        assert abs(float(canal.value) - 15.0) < 4.0 if level != "L4-L5" else float(canal.value) < 15.5


def test_each_lumbar_level_has_a_grade_and_a_morphology_with_a_probability(prediction):
    for level in ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2"):
        grade = _finding(prediction, "F06", level)
        assert grade.value in {"1", "2", "3", "4", "5"}
        assert 0 < grade.confidence <= 1
        assert 1 <= grade.expected <= 5
        form = _finding(prediction, "F01", level)
        assert form.value in {"normal", "bulge", "herniation-unspecified"}
        assert 0 < form.confidence <= 1


def test_what_sagittal_images_cannot_tell_is_absent_and_never_normal(prediction):
    for code in ("F02", "F04", "F05", "F07", "F08", "F10", "F11", "F16"):
        finding = _finding(prediction, code, None)
        assert finding.value is None
        assert finding.absent_reason == "not-performed"
        assert finding.absent_text_en
        assert finding.absent_text_zh


def test_models_and_times_are_named(prediction):
    assert {model.name for model in prediction.models} == {"lumbar_mr-segmentation", "lumbar_mr-grading"}
    assert {"read", "normalise", "segment", "instances", "grade", "measure"} <= set(prediction.seconds)


def test_the_same_series_gives_the_same_answer_whatever_the_order_of_its_instances(phantom):
    small = lumbar_phantom(PHANTOM_SEED, slices=5, spacing_mm=(5.0, 0.7, 0.7))
    datasets = mr_series(small.pixels, small.affine_lps)
    first, second = run(datasets), run(datasets[::-1])
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.findings == second.findings


@pytest.mark.parametrize("turn", ["upside-down", "mirrored", "transposed"])
def test_rows_and_columns_may_run_any_way_when_the_header_says_so(turn):
    small = lumbar_phantom(PHANTOM_SEED, slices=5, spacing_mm=(5.0, 0.7, 0.7))
    pixels, affine = small.pixels, small.affine_lps.copy()
    if turn == "upside-down":
        pixels = pixels[:, ::-1]
        affine[:3, 3] += affine[:3, 1] * (pixels.shape[1] - 1)
        affine[:3, 1] *= -1
    elif turn == "mirrored":
        pixels = pixels[:, :, ::-1]
        affine[:3, 3] += affine[:3, 2] * (pixels.shape[2] - 1)
        affine[:3, 2] *= -1
    else:
        pixels = np.swapaxes(pixels, 1, 2)
        affine[:, [1, 2]] = affine[:, [2, 1]]
    turned = run(mr_series(pixels, affine))
    straight = run(mr_series(small.pixels, small.affine_lps))
    assert [segment.name for segment in turned.segments] == [segment.name for segment in straight.segments]
    for number in (1, 2, 3):
        there, here = np.argwhere(turned.mask == number), np.argwhere(straight.mask == number)
        np.testing.assert_allclose(
            (turned.affine_lps @ [*there.mean(axis=0), 1])[1:3],
            (straight.affine_lps @ [*here.mean(axis=0), 1])[1:3],
            atol=1.0,
        )


def _reason(datasets) -> str:
    with pytest.raises(PipelineError) as caught:
        run(datasets)
    assert caught.value.text_zh
    assert not caught.value.retryable
    return caught.value.reason_code


def test_no_slices():
    assert _reason([]) == "zero-slices"


def test_a_missing_slice(phantom):
    datasets = mr_series(phantom.pixels[:6], phantom.affine_lps)
    assert _reason(datasets[:2] + datasets[3:]) == "missing-slices"


def test_a_constant_image(phantom):
    assert _reason(mr_series(np.full((3, 200, 200), 7), phantom.affine_lps)) == "blank-image"


def test_noise_is_not_a_spine(phantom):
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 1000, (3, 320, 256))
        assert _reason(mr_series(noise, phantom.affine_lps)) == "not-lumbar-mr"


def test_not_a_number(phantom):
    datasets = mr_series(phantom.pixels[:3], phantom.affine_lps)
    for dataset in datasets:
        dataset.RescaleSlope = "nan"
    assert _reason(datasets) == "invalid-pixel-data"


def test_images_that_are_not_sagittal(phantom):
    axial = phantom.affine_lps[:, [2, 1, 0, 3]].copy()
    axial[:3, :3] = np.array([[0, 0, 0.7], [0, 0.7, 0], [4.0, 0, 0]])
    assert _reason(mr_series(phantom.pixels[:3], axial)) == "not-sagittal"


def test_a_very_small_image(phantom):
    assert _reason(mr_series(phantom.pixels[:3, :5, :5], phantom.affine_lps)) == "field-of-view-too-small"
