"""Fits the calibration constants and thresholds on scores of unseen patients (stage 11).

Temperature for the ordinal grade, logistic (Platt) for the rest: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ai_services.pipelines.lumbar_mr.grade import (
    BULGING,
    HERNIATION,
    MODIC,
    NARROWING,
    SPONDYLOLISTHESIS,
    Calibration,
    calibrated,
    morphology,
    pfirrmann_probabilities,
)


def fit_calibration(scores: NDArray[np.float32], truth: NDArray[np.float32]) -> Calibration:
    """Fit all constants.

    Parameters
    ----------
    scores : shape (disc, 7 or 9), of models that have not seen the disc's patient
    truth : same shape, see `grading.targets` and `graded_discs.TARGETS`
    """
    draft = Calibration(
        temperature=_temperature(scores[:, :4], truth[:, :4].sum(axis=1).astype(int)),
        bulging=_logistic(scores[:, BULGING], truth[:, BULGING]),
        herniation=_logistic(scores[:, HERNIATION], truth[:, HERNIATION]),
        narrowing=_logistic(scores[:, NARROWING], truth[:, NARROWING]),
        bulging_threshold=0.5,
        herniation_threshold=0.5,
        modic=_logistic(scores[:, MODIC], truth[:, MODIC]) if scores.shape[1] > MODIC else None,
        spondylolisthesis=(
            _logistic(scores[:, SPONDYLOLISTHESIS], truth[:, SPONDYLOLISTHESIS])
            if scores.shape[1] > SPONDYLOLISTHESIS
            else None
        ),
    )
    return _with_thresholds(draft, scores, truth)


def morphology_truth(truth: NDArray[np.float32]) -> NDArray[np.int64]:
    """0 normal, 1 bulge, 2 herniation: a herniation counts whether or not the disc also bulges."""
    return np.where(truth[:, HERNIATION] > 0.5, 2, np.where(truth[:, BULGING] > 0.5, 1, 0)).astype(np.int64)


def balanced_accuracy(truth: NDArray[np.int64], chosen: NDArray[np.int64]) -> float:
    """Mean recall of the classes that occur."""
    return float(np.mean([(chosen[truth == value] == value).mean() for value in np.unique(truth)]))


def _temperature(cumulative: NDArray[np.float32], grade_index: NDArray[np.int64]) -> float:
    def loss(temperature: float) -> float:
        row = pfirrmann_probabilities(cumulative, temperature)[np.arange(len(grade_index)), grade_index]
        return float(-np.log(np.maximum(row, 1e-6)).mean())

    candidates = np.exp(np.linspace(np.log(0.3), np.log(4), 80))
    return float(min(candidates, key=loss))


def _logistic(score: NDArray[np.float32], label: NDArray[np.float32]) -> tuple[float, float]:
    model = LogisticRegression(C=1e3).fit(score[:, None], label > 0.5)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _with_thresholds(draft: Calibration, scores: NDArray[np.float32], truth: NDArray[np.float32]) -> Calibration:
    """Thresholds with the best sum of accuracy and balanced accuracy over normal, bulge and herniation.

    Balanced accuracy alone calls so many herniations that five of six calls are wrong; accuracy alone calls none.
    """
    bulging = calibrated(scores[:, BULGING], draft.bulging)
    herniation = calibrated(scores[:, HERNIATION], draft.herniation)
    actual = morphology_truth(truth)
    best, best_value = draft, -1.0
    for bulging_threshold in np.arange(0.3, 0.71, 0.05):
        for herniation_threshold in np.arange(0.04, 0.5, 0.02):
            trial = dataclasses.replace(
                draft,
                bulging_threshold=round(float(bulging_threshold), 2),
                herniation_threshold=round(float(herniation_threshold), 2),
            )
            chosen = morphology(bulging, herniation, trial)[0]
            value = balanced_accuracy(actual, chosen) + float((chosen == actual).mean())
            if value > best_value:
                best, best_value = trial, value
    return best
