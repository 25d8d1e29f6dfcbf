"""Who is trained on, who is cross-validated and who is never touched: by patient, in this one place (stage 11)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

HELD_OUT = (5, 41, 45, 52, 57, 110)
"""Patients that no network, tree, calibration or threshold has seen; acceptance looks at them."""
FOLDS = 5
SEED = 20261122


def fold_of_patients(herniated: Mapping[int, bool], *, folds: int = FOLDS, seed: int = SEED) -> dict[int, int]:
    """Fold of each patient but the held-out ones; the rare patients with a herniation are dealt out evenly.

    Parameters
    ----------
    herniated : patient to whether any disc is herniated
    """
    rng = np.random.default_rng(seed)
    result: dict[int, int] = {}
    for wanted in (True, False):
        group = [patient for patient in sorted(herniated) if herniated[patient] is wanted and patient not in HELD_OUT]
        for rank, index in enumerate(rng.permutation(len(group))):
            result[group[index]] = rank % folds
    return result
