"""How right the grades are that are told, when the least sure ones are withheld: coverage against risk (stage 11).

El-Yaniv and Wiener, J Mach Learn Res 11:1605 (2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_services.evaluation.figures import DEFAULT_SEED, Figure, with_intervals


def curve(
    confidence: NDArray[np.float64],
    error: NDArray[np.int64],
    patients: NDArray[np.int64],
    coverages: Sequence[float],
    seed: int = DEFAULT_SEED,
) -> list[dict[str, Any]]:
    """For each coverage the least confidence told, and how right are those told and those withheld.

    Parameters
    ----------
    confidence : shape (disc,), calibrated probability of what is called
    error : shape (disc,), grades away from the truth
    patients : shape (disc,), for the intervals
    """
    found = []
    for coverage in coverages:
        threshold = float(np.quantile(confidence, 1 - coverage)) if coverage < 1 else 0.0
        told = confidence >= threshold
        found.append(
            {
                "coverage": float(told.mean()),
                "threshold": round(threshold, 4),
                "accuracy": _share((error == 0)[told], patients[told], seed),
                "within_one": _share((error <= 1)[told], patients[told], seed),
                "withheld_accuracy": _share((error == 0)[~told], patients[~told], seed),
            }
        )
    return found


def _share(right: NDArray[np.bool_], patients: NDArray[np.int64], seed: int) -> dict[str, Any] | None:
    if not len(right):
        return None
    figure: Figure = with_intervals({"share": lambda rows: float(right[rows].mean())}, patients, seed)["share"]
    return figure.as_json()
