"""A figure with its 95 % interval: percentile bootstrap with the patient as the unit of resampling (stage 11).

Discs of one patient are alike, so drawing discs would make every interval too narrow: https://doi.org/10.1214/ss/1032280214.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
DEFAULT_SEED = 20261122

Metric = Callable[[NDArray[np.int64]], float]
"""Takes the rows that were drawn, gives the figure; ValueError or NaN where the figure does not exist for them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Parameters
    ----------
    value : the figure over all rows; None where it does not exist (a class is missing)
    low, high : 95 % interval; None where fewer than half of the draws gave a figure, or there is one patient only
    rows, patients : how many it rests on
    """

    value: float | None
    low: float | None
    high: float | None
    rows: int
    patients: int

    def as_json(self) -> dict[str, float | int | list[float] | None]:
        """For the JSON report: rounded to four digits."""
        interval = None if self.low is None or self.high is None else [round(self.low, 4), round(self.high, 4)]
        value = None if self.value is None else round(self.value, 4)
        return {"value": value, "interval_95": interval, "rows": self.rows, "patients": self.patients}


def with_intervals(
    metrics: Mapping[str, Metric], patients: NDArray[np.int64], seed: int = DEFAULT_SEED, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """Every metric with its interval, all on the same draws.

    Parameters
    ----------
    metrics : by name
    patients : shape (row,), the patient of each row
    seed, resamples : of the bootstrap
    """
    groups = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    if len(groups) > 1:
        generator = np.random.default_rng(seed)
        for _ in range(resamples):
            chosen = generator.integers(0, len(groups), len(groups))
            rows = np.concatenate([groups[index] for index in chosen])
            for name, metric in metrics.items():
                value = value_of(metric, rows)
                if value is not None:
                    drawn[name].append(value)
    everyone = np.arange(len(patients))
    return {
        name: _figure(value_of(metric, everyone), drawn[name], resamples, len(everyone), len(groups))
        for name, metric in metrics.items()
    }


def value_of(metric: Metric, rows: NDArray[np.int64]) -> float | None:
    """The figure of these rows, or None where it does not exist for them."""
    if len(rows) == 0:
        return None
    try:
        value = float(metric(rows))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _figure(value: float | None, drawn: list[float], resamples: int, rows: int, patients: int) -> Figure:
    if value is None or len(drawn) < resamples / 2 or len(drawn) == 0:
        return Figure(value, None, None, rows, patients)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Figure(value, float(low), float(high), rows, patients)
