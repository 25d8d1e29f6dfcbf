"""Scores every disc with models that have not seen its patient, and measures them (stage 11).

Calibration and thresholds of a fold come from the other folds' unseen scores, so they have not seen the patient either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ai_services.evaluation.figures import Figure
from ai_services.evaluation.grading import GradedDiscs as Compared
from ai_services.evaluation.grading import grading_figures
from ai_services.pipelines.lumbar_mr.grade import MORPHOLOGY_CODES, Calibration, grade_discs
from ai_services.training.lumbar_mr.calibration import fit_calibration, morphology_truth
from ai_services.training.lumbar_mr.graded_discs import TARGETS
from ai_services.training.lumbar_mr.splits import SEED, fold_of_patients

Score = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float32]]
"""Trains on the first rows and returns the scores, shape (row, target), of the second."""


class Labelled(Protocol):
    """Graded discs as far as their labels go: `GradedDiscs` and `Unseen` both are."""

    @property
    def patients(self) -> NDArray[np.int64]:
        """Shape (disc,)."""

    @property
    def truth(self) -> NDArray[np.float32]:
        """Shape (disc, 9), see `graded_discs.TARGETS`."""


def folds_of(discs: Labelled) -> NDArray[np.int64]:
    """Fold of each disc, shape (disc,); -1 for held-out patients."""
    herniation = discs.truth[:, TARGETS.index("herniation")] > 0.5
    herniated = {int(p): bool(herniation[discs.patients == p].any()) for p in np.unique(discs.patients)}
    fold = fold_of_patients(herniated)
    return np.array([fold.get(int(patient), -1) for patient in discs.patients], dtype=np.int64)


def unseen_scores(discs: Labelled, score: Score) -> NDArray[np.float32]:
    """Scores of each disc from the fold that has not seen its patient, shape (disc, target); NaN for the held-out."""
    fold = folds_of(discs)
    result = np.full(discs.truth.shape, np.nan, dtype=np.float32)
    for number in range(fold.max() + 1):
        training, rest = np.flatnonzero((fold != number) & (fold >= 0)), np.flatnonzero(fold == number)
        result[rest] = score(training, rest)
    return result


def measured(
    discs: Labelled, scores: NDArray[np.float32], rows: NDArray[np.bool_], seed: int = SEED
) -> dict[str, Figure]:
    """Figures of cross-validated discs, each calibrated by the other folds.

    Parameters
    ----------
    discs, scores : of `unseen_scores`
    rows : shape (disc,), which discs count, for example those of one sequence
    seed : of the bootstrap
    """
    return grading_figures(cross_validated(discs, scores, rows)[0], seed)


def cross_validated(
    discs: Labelled, scores: NDArray[np.float32], rows: NDArray[np.bool_]
) -> tuple[Compared, NDArray[np.intp]]:
    """What is said about each disc by models, calibration and thresholds that have not seen its patient.

    Returns
    -------
    the discs beside their truth, and which row of `discs` each of them is
    """
    fold = folds_of(discs)
    parts, order = [], []
    for number in range(fold.max() + 1):
        others, own = rows & (fold >= 0) & (fold != number), np.flatnonzero(rows & (fold == number))
        calibration = fit_calibration(scores[others], discs.truth[others])
        parts.append(compared(discs, scores, own, calibration))
        order.append(own)
    return _joined(parts), np.concatenate(order)


def compared(
    discs: Labelled, scores: NDArray[np.float32], rows: NDArray[np.intp], calibration: Calibration
) -> Compared:
    """What the grader says about some discs beside their truth."""
    grades = grade_discs(scores[rows], calibration)
    truth = discs.truth[rows]
    names = tuple(grades[0].probabilities) if grades else ()
    return Compared(
        patients=discs.patients[rows],
        pfirrmann=np.array([grade.pfirrmann for grade in grades], dtype=np.int64),
        pfirrmann_truth=truth[:, :4].sum(axis=1).astype(np.int64) + 1,
        pfirrmann_probability=np.array([grade.pfirrmann_probabilities for grade in grades]).reshape(-1, 5),
        form=np.array([MORPHOLOGY_CODES.index(grade.morphology) for grade in grades], dtype=np.int64),
        form_truth=morphology_truth(truth),
        labels={name: truth[:, TARGETS.index(name)] > 0.5 for name in names},
        probabilities={name: np.array([grade.probabilities[name] for grade in grades]) for name in names},
    )


def _joined(parts: list[Compared]) -> Compared:
    def all_of(field: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, field) for part in parts])

    return Compared(
        patients=all_of("patients"),
        pfirrmann=all_of("pfirrmann"),
        pfirrmann_truth=all_of("pfirrmann_truth"),
        pfirrmann_probability=all_of("pfirrmann_probability"),
        form=all_of("form"),
        form_truth=all_of("form_truth"),
        labels={name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels},
        probabilities={name: np.concatenate([part.probabilities[name] for part in parts]) for name in parts[0].labels},
    )
