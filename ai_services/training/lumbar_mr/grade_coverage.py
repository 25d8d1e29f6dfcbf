"""Coverage against risk of the Pfirrmann grades of the cross-validation (stage 11)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ai_services.evaluation.abstention import curve
from ai_services.evaluation.figures import DEFAULT_SEED
from ai_services.training.lumbar_mr.cross_validation import cross_validated
from ai_services.training.lumbar_mr.unseen import load_unseen


def grades_by_coverage(
    unseen_folder: Path, coverages: Sequence[float], seed: int = DEFAULT_SEED
) -> list[dict[str, Any]]:
    """Pfirrmann grades of T2 images of the cross-validation, told from the surest down.

    Parameters
    ----------
    unseen_folder : where the grading stage wrote its cross-validated scores
    coverages : shares of discs that are told

    Raises
    ------
    FileNotFoundError
        Where the grading stage has not run with this folder.
    """
    unseen = load_unseen(unseen_folder)
    rows = (unseen.sequences == "t2") & np.isfinite(unseen.scores).all(axis=1)
    discs, _ = cross_validated(unseen, unseen.scores, rows)
    confidence = discs.pfirrmann_probability.max(axis=1)
    return curve(confidence, np.abs(discs.pfirrmann - discs.pfirrmann_truth), discs.patients, coverages, seed)
