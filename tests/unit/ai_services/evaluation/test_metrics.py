"""Metrics of outlines, grades and their intervals: known answers and properties that must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ai_services.evaluation.figures import with_intervals
from ai_services.evaluation.grading import (
    auroc,
    average_precision,
    balanced_accuracy,
    calibration_error,
    confusion,
    quadratic_kappa,
)
from ai_services.evaluation.overlap import dice, instances_of, panoptic_quality, surface_distances

SPACING = (4.0, 0.5, 0.5)
masks = arrays(np.bool_, (3, 8, 9))


@given(masks, masks)
def test_dice_is_symmetric_and_within_its_range(one: np.ndarray, other: np.ndarray) -> None:
    if not one.any() and not other.any():
        assert np.isnan(dice(one, other))
        return
    assert dice(one, other) == dice(other, one)
    assert 0 <= dice(one, other) <= 1
    assert (dice(one, other) == 1) == bool((one == other).all())


@given(masks, masks)
@settings(max_examples=40)
def test_surface_distances_are_symmetric_and_scale_with_the_spacing(one: np.ndarray, other: np.ndarray) -> None:
    forth, back = surface_distances(one, other, SPACING), surface_distances(other, one, SPACING)
    if forth.assd_mm is None or forth.hausdorff95_mm is None:
        assert not one.any() or not other.any()
        return
    assert (forth.hausdorff95_mm, forth.assd_mm) == pytest.approx((back.hausdorff95_mm, back.assd_mm))
    doubled = surface_distances(one, other, (8.0, 1.0, 1.0))
    assert doubled.assd_mm == pytest.approx(2 * forth.assd_mm)


def test_a_plane_moved_by_three_pixels_is_that_far_away() -> None:
    one, other = np.zeros((1, 20, 20), np.bool_), np.zeros((1, 20, 20), np.bool_)
    one[0, :, 5], other[0, :, 8] = True, True
    distances = surface_distances(one, other, SPACING)
    assert (distances.hausdorff95_mm, distances.assd_mm) == (1.5, 1.5)


def test_panoptic_quality_counts_found_missed_and_invented() -> None:
    truth, mine = np.zeros((1, 6, 30), np.int32), np.zeros((1, 6, 30), np.int32)
    truth[0, :, 0:8], truth[0, :, 12:20] = 1, 2
    mine[0, :, 0:8], mine[0, :, 22:26] = 7, 8
    result = panoptic_quality(mine, truth)
    assert (result.found, result.missed, result.invented, result.mean_iou) == (1, 1, 1, 1.0)
    assert result.quality == 0.5


def test_instances_smaller_than_a_disc_are_not_instances() -> None:
    mask = np.zeros((3, 20, 20), np.bool_)
    mask[:, 2:12, 2:12], mask[1, 17, 17] = True, True
    labels = instances_of(mask, 10.0, SPACING)
    assert set(np.unique(labels)) == {0, 1}
    assert labels[1, 17, 17] == 0


def test_figures_of_grades_are_what_the_textbook_says() -> None:
    truth, called = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 2])
    counts = confusion(truth, called, 3)
    assert balanced_accuracy(counts) == pytest.approx((1 + 0.5 + 1) / 3)
    # Σ w·observed = 1; Σ w·expected = 4·(2·3/6 + 2·2/6) + 1·(2·1/6 + 2·2/6 + 2·3/6 + 2·1/6) = 9
    assert quadratic_kappa(counts) == pytest.approx(1 - 1 / 9)
    score = np.array([0.1, 0.4, 0.35, 0.8])
    assert auroc(np.array([False, False, True, True]), score) == pytest.approx(0.75)
    assert average_precision(np.array([False, False, True, True]), score) == pytest.approx(0.8333, abs=1e-4)


def test_a_figure_that_does_not_exist_is_not_a_number() -> None:
    one_class = np.zeros(4, np.bool_)
    figures = with_intervals({"auroc": lambda i: auroc(one_class[i], np.arange(4.0)[i])}, np.array([1, 1, 2, 2]))
    assert figures["auroc"].value is None
    assert figures["auroc"].as_json()["interval_95"] is None


def test_calibration_error_is_the_gap_between_said_and_true() -> None:
    confidence = np.full(100, 0.9)
    assert calibration_error(confidence, np.arange(100) < 90) == pytest.approx(0)
    assert calibration_error(confidence, np.arange(100) < 60) == pytest.approx(0.3)


def test_intervals_take_the_patient_as_the_unit() -> None:
    """Discs of one patient are copies of one another: more of them must not make the interval narrower."""
    generator = np.random.default_rng(7)
    by_patient = generator.random(30)
    few = _width(np.repeat(by_patient, 2), np.repeat(np.arange(30), 2))
    many = _width(np.repeat(by_patient, 20), np.repeat(np.arange(30), 20))
    assert many == pytest.approx(few, rel=1e-9)
    assert _width(np.repeat(by_patient, 20), np.arange(600)) < few / 3


@given(st.integers(0, 2**31))
@settings(max_examples=5)
def test_the_same_seed_gives_the_same_interval(seed: int) -> None:
    patients, values = np.arange(20), np.linspace(0, 1, 20)
    metric = {"mean": lambda i: float(values[i].mean())}
    assert with_intervals(metric, patients, seed, 50) == with_intervals(metric, patients, seed, 50)


def _width(values: np.ndarray, patients: np.ndarray) -> float:
    figure = with_intervals({"mean": lambda i: float(values[i].mean())}, patients)["mean"]
    assert figure.low is not None
    assert figure.high is not None
    return figure.high - figure.low
