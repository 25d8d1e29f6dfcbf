"""How well grades of discs agree with a radiologist's (stage 11).

Expected calibration error: https://arxiv.org/abs/1706.04599 (15 bins of equal width). Kappa, balanced accuracy,
AUROC and average precision are those of scikit-learn (a test compares them), written out because a bootstrap asks for
each a thousand times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ai_services.evaluation.figures import DEFAULT_SEED, Figure, Metric, with_intervals

CALIBRATION_BINS = 15
GRADES = 5
FORMS = 3
NORMAL, BULGE, HERNIATION = 0, 1, 2


@dataclass(frozen=True, slots=True)
class GradedDiscs:
    """Discs side by side with their truth; `NaN` or -1 where the pipeline does not speak of the disc.

    Parameters
    ----------
    patients : shape (disc,)
    pfirrmann, pfirrmann_truth : shape (disc,), 1..5; -1 not graded by the pipeline
    pfirrmann_probability : shape (disc, 5)
    form, form_truth : shape (disc,), 0 normal, 1 bulge, 2 herniation; -1 not graded
    labels : yes-or-no truths by name, each shape (disc,)
    probabilities : by the same names, each shape (disc,); NaN throughout where the pipeline has no such output
    """

    patients: NDArray[np.int64]
    pfirrmann: NDArray[np.int64]
    pfirrmann_truth: NDArray[np.int64]
    pfirrmann_probability: NDArray[np.float64]
    form: NDArray[np.int64]
    form_truth: NDArray[np.int64]
    labels: dict[str, NDArray[np.bool_]]
    probabilities: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.patients)

    def where(self, keep: NDArray[np.bool_]) -> GradedDiscs:
        """Some of the discs."""
        return GradedDiscs(
            self.patients[keep],
            self.pfirrmann[keep],
            self.pfirrmann_truth[keep],
            self.pfirrmann_probability[keep],
            self.form[keep],
            self.form_truth[keep],
            {name: values[keep] for name, values in self.labels.items()},
            {name: values[keep] for name, values in self.probabilities.items()},
        )


def grading_figures(discs: GradedDiscs, seed: int = DEFAULT_SEED) -> dict[str, Figure]:
    """Every figure of a set of discs that the pipeline graded."""
    metrics: dict[str, Metric] = {}
    if len(discs):
        metrics |= _pfirrmann(discs) | _form(discs)
        for name, probability in discs.probabilities.items():
            if not np.isnan(probability).all():
                metrics |= _binary(name, probability, discs.labels[name])
    return with_intervals(metrics, discs.patients, seed)


def calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Expected calibration error 0..1.

    Parameters
    ----------
    confidence : shape (row,), the probability given to what is called
    correct : shape (row,), whether it was so
    """
    bins = np.clip((np.asarray(confidence) * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    said = np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS)
    was = np.bincount(bins, weights=correct.astype(np.float64), minlength=CALIBRATION_BINS)
    return float(np.abs(said - was).sum() / max(1, count.sum()))


def confusion(truth: NDArray[np.int64], called: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Counts, shape (truth, called), of class numbers from 0."""
    counts = np.bincount(truth * classes + called, minlength=classes * classes).reshape(classes, classes)
    return np.asarray(counts, dtype=np.float64)


def balanced_accuracy(counts: NDArray[np.float64]) -> float:
    """Mean recall of the classes that occur in truth."""
    of_class = counts.sum(axis=1)
    return float((np.diag(counts)[of_class > 0] / of_class[of_class > 0]).mean())


def quadratic_kappa(counts: NDArray[np.float64]) -> float:
    """Cohen's kappa with quadratic weights; ValueError where chance alone agrees (one class everywhere)."""
    number = np.arange(len(counts))
    weights = (number[:, None] - number[None, :]) ** 2
    by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    expected = float((weights * by_chance).sum())
    if expected == 0:
        raise ValueError("one class only")
    return 1 - float((weights * counts).sum()) / expected


def auroc(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Area under the receiver operating characteristic (Mann-Whitney U); ValueError where one class is missing."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if positive == 0 or negative == 0:
        raise ValueError("one class only")
    ranks = rankdata(score)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def average_precision(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Precision averaged over the steps of recall; ValueError where nothing is positive."""
    if not truth.any():
        raise ValueError("nothing positive")
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.diff(score[order]) != 0, True)  # equal scores are one step
    hits = np.cumsum(truth[order])[ends]
    called = np.flatnonzero(ends) + 1
    gained = np.diff(hits, prepend=0) / hits[-1]
    return float((gained * hits / called).sum())


def _pfirrmann(discs: GradedDiscs) -> dict[str, Metric]:
    mine, truth, probability = discs.pfirrmann - 1, discs.pfirrmann_truth - 1, discs.pfirrmann_probability
    correct = mine == truth
    return {
        "pfirrmann_accuracy": lambda i: float(correct[i].mean()),
        "pfirrmann_within_one": lambda i: float((np.abs(mine[i] - truth[i]) <= 1).mean()),
        "pfirrmann_balanced_accuracy": lambda i: balanced_accuracy(confusion(truth[i], mine[i], GRADES)),
        "pfirrmann_quadratic_kappa": lambda i: quadratic_kappa(confusion(truth[i], mine[i], GRADES)),
        "pfirrmann_calibration_error": lambda i: calibration_error(probability[i].max(axis=1), correct[i]),
    }


def _form(discs: GradedDiscs) -> dict[str, Metric]:
    mine, truth = discs.form, discs.form_truth
    called, herniated = mine == HERNIATION, truth == HERNIATION
    return {
        "severity_accuracy": lambda i: float((mine[i] == truth[i]).mean()),
        "severity_balanced_accuracy": lambda i: balanced_accuracy(confusion(truth[i], mine[i], FORMS)),
        "herniation_sensitivity": lambda i: _share(called[i][herniated[i]]),
        "herniation_specificity": lambda i: _share(~called[i][~herniated[i]]),
        "herniation_positive_predictive_value": lambda i: _share(herniated[i][called[i]]),
    }


def _binary(name: str, probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, Metric]:
    said = np.where(probability >= 0.5, probability, 1 - probability)
    correct = (probability >= 0.5) == truth
    return {
        f"{name}_auroc": lambda i: auroc(truth[i], probability[i]),
        f"{name}_average_precision": lambda i: average_precision(truth[i], probability[i]),
        f"{name}_calibration_error": lambda i: calibration_error(said[i], correct[i]),
    }


def _share(yes: NDArray[np.bool_]) -> float:
    if len(yes) == 0:
        raise ValueError("nothing to count")
    return float(yes.mean())
