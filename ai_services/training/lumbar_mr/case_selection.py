"""Which cases a page shows: by rule from the figures, never by hand, so that bad ones stay in (stage 11)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_services.evaluation.grading import HERNIATION, GradedDiscs
from ai_services.training.lumbar_mr.splits import HELD_OUT
from ai_services.training.lumbar_mr.unseen import Unseen

FEWEST_DISCS = 5
"""Patients with fewer matched discs are not ranked: one disc would decide."""


@dataclass(frozen=True)
class Spoken:
    """Cross-validated discs of one sequence beside their truth, with the row of `Unseen` that each is."""

    discs: GradedDiscs
    rows: NDArray[np.intp]
    levels: NDArray[np.int64]

    def of(self, patient: int) -> list[int]:
        """Indices of one patient's discs, from the lowest up."""
        own = np.flatnonzero(self.discs.patients == patient)
        return [int(index) for index in own[np.argsort(self.levels[own])]]


def by_agreement(spoken: Spoken, each: int) -> dict[str, list[int]]:
    """Patients with the largest, the middle and the smallest mean distance from the reader's Pfirrmann grade."""
    patients = [int(p) for p in np.unique(spoken.discs.patients) if len(spoken.of(int(p))) >= FEWEST_DISCS]
    distance = np.abs(spoken.discs.pfirrmann - spoken.discs.pfirrmann_truth)
    ranked = sorted(patients, key=lambda p: (-float(distance[spoken.of(p)].mean()), p))
    middle = max(0, len(ranked) // 2 - each // 2)
    return {"worst": ranked[:each], "median": ranked[middle : middle + each], "best": ranked[-each:]}


def herniations(spoken: Spoken, each: int) -> dict[str, list[int]]:
    """Herniated discs with the highest, middle and lowest probability, and the most suspected of the others."""
    probability = spoken.discs.probabilities["herniation"]
    herniated = spoken.discs.form_truth == HERNIATION
    true = sorted(np.flatnonzero(herniated).tolist(), key=lambda i: -float(probability[i]))
    false = sorted(np.flatnonzero(~herniated).tolist(), key=lambda i: -float(probability[i]))
    middle = max(0, len(true) // 2 - each // 2)
    return {
        "highest": true[:each],
        "middle": true[middle : middle + each],
        "lowest": true[-each:],
        "false": false[:each],
    }


def miscounted(unseen: Unseen, sequence: str, most: int) -> list[tuple[int, int, int]]:
    """Patient, discs found and graded where both differ, the largest difference first; without the held-out."""
    rows = [
        (int(patient), int(found), int(graded))
        for (patient, found, graded), own in zip(unseen.counts, unseen.count_sequences, strict=True)
        if own == sequence and graded and found != graded and int(patient) not in HELD_OUT
    ]
    return sorted(rows, key=lambda row: (-abs(row[1] - row[2]), row[0]))[:most]
