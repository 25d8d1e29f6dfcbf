"""Measures grading on unseen patients, each figure with a 95 % bootstrap interval by patient (stage 11).

Accuracy alone flatters herniation (about 95 % are negative), so balanced accuracy and AUROC are reported as well.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from ai_services.pipelines.lumbar_mr.grade import (
    BULGING,
    HERNIATION,
    NARROWING,
    Calibration,
    calibrated,
    morphology,
    pfirrmann_probabilities,
)
from ai_services.training.lumbar_mr.calibration import balanced_accuracy, morphology_truth

RESAMPLES = 1000
Figure = dict[str, float | list[float] | None]


def grading_figures(
    scores: NDArray[np.float32],
    truth: NDArray[np.float32],
    patients: NDArray[np.int64],
    calibration: Calibration,
    seed: int,
) -> dict[str, Figure]:
    """All grading figures of one set of discs.

    Parameters
    ----------
    scores, truth : shape (disc, 7), see `grading.targets`
    patients : shape (disc,), the unit of resampling
    calibration : fitted constants
    seed : of the bootstrap
    """
    grade = truth[:, :4].sum(axis=1).astype(np.int64)
    chosen_grade = pfirrmann_probabilities(scores[:, :4], calibration.temperature).argmax(axis=1)
    bulging = calibrated(scores[:, BULGING], calibration.bulging)
    herniation = calibrated(scores[:, HERNIATION], calibration.herniation)
    form, actual_form = morphology(bulging, herniation, calibration)[0], morphology_truth(truth)
    metrics: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "pfirrmann_accuracy": lambda i: float((chosen_grade[i] == grade[i]).mean()),
        "pfirrmann_within_one": lambda i: float((np.abs(chosen_grade[i] - grade[i]) <= 1).mean()),
        "pfirrmann_quadratic_kappa": lambda i: float(
            cohen_kappa_score(grade[i], chosen_grade[i], weights="quadratic", labels=[0, 1, 2, 3, 4])
        ),
        "bulging_auroc": lambda i: float(roc_auc_score(truth[i, BULGING], scores[i, BULGING])),
        "herniation_auroc": lambda i: float(roc_auc_score(truth[i, HERNIATION], scores[i, HERNIATION])),
        "herniation_average_precision": lambda i: float(
            average_precision_score(truth[i, HERNIATION], scores[i, HERNIATION])
        ),
        "narrowing_auroc": lambda i: float(roc_auc_score(truth[i, NARROWING], scores[i, NARROWING])),
        "morphology_accuracy": lambda i: float((form[i] == actual_form[i]).mean()),
        "morphology_balanced_accuracy": lambda i: balanced_accuracy(actual_form[i], form[i]),
        "herniation_sensitivity": lambda i: float((form[i] == 2)[actual_form[i] == 2].mean()),
        "herniation_specificity": lambda i: float((form[i] != 2)[actual_form[i] != 2].mean()),
    }
    return {name: _with_interval(metric, patients, seed) for name, metric in metrics.items()}


def bootstrap_mean(values: list[float], seed: int) -> Figure:
    """Mean over patients with its 95 % interval, and the worst patient."""
    array = np.asarray(values)
    drawn = np.random.default_rng(seed).integers(0, len(array), (RESAMPLES, len(array)))
    interval = [round(float(v), 3) for v in np.percentile(array[drawn].mean(axis=1), (2.5, 97.5))]
    return {"value": round(float(array.mean()), 3), "interval_95": interval, "worst": round(float(array.min()), 3)}


def _with_interval(metric: Callable[[NDArray[np.int64]], float], patients: NDArray[np.int64], seed: int) -> Figure:
    everyone = np.arange(len(patients))
    rng = np.random.default_rng(seed)
    by_patient = [everyone[patients == patient] for patient in np.unique(patients)]
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(by_patient), len(by_patient))
        value = _guarded(metric, np.concatenate([by_patient[index] for index in drawn]))
        if value is not None:
            values.append(value)
    interval = [round(float(v), 3) for v in np.percentile(values, (2.5, 97.5))] if len(values) > RESAMPLES / 2 else None
    value = _guarded(metric, everyone)
    return {"value": None if value is None else round(value, 3), "interval_95": interval}


def _guarded(metric: Callable[[NDArray[np.int64]], float], index: NDArray[np.int64]) -> float | None:
    """The figure, or None where a class is missing in this draw and the figure does not exist."""
    try:
        value = metric(index)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
