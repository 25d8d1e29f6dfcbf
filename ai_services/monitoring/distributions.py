"""Whether two samples of scores differ: PSI and Kolmogorov–Smirnov, tested by exchanging whole patients. Pure.

Discs of one patient are alike, so a test that takes each disc for itself would find drift everywhere. PSI: Siddiqi,
Credit Risk Scorecards (2005) §9; it grows with few patients, so its size alone tells nothing (Yurdakul 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ai_services.monitoring.thresholds import Thresholds

Outcome = Literal["steady", "alarm", "too-few", "no-reference"]
"""too-few and no-reference: it cannot be told; that is never steady."""
BINS = 10
_SMOOTH = 0.5
_EDGE = 1e-9
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Comparison:
    """One score of the window against the reference.

    Parameters
    ----------
    name : of the score
    outcome : see `Outcome`
    patients, reference_patients : how many each rests on; None where so few that the number is not told
    values : scores in the window; None as before
    psi, ks : None where it cannot be told
    p_psi, p_ks : share of exchanges that differ as much
    bins : names of the bins, with the share of the reference and of the window in each
    """

    name: str
    outcome: Outcome
    patients: int | None
    reference_patients: int | None
    values: int | None
    psi: float | None = None
    ks: float | None = None
    p_psi: float | None = None
    p_ks: float | None = None
    bins: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """Scores of one kind, one tuple a patient; `classes` names them where they are not numbers on a scale."""

    by_patient: tuple[tuple[float, ...], ...]
    classes: tuple[str, ...] = ()

    @property
    def values(self) -> int:
        """How many scores there are."""
        return sum(len(scores) for scores in self.by_patient)


def compare(name: str, window: Sample, reference: Sample | None, thresholds: Thresholds, checks: int) -> Comparison:
    """Compare a window with the reference.

    Parameters
    ----------
    name : of the score
    window, reference : samples of the same kind; no reference: it cannot be told
    thresholds : minima, sizes and error
    checks : how many checks share the family error
    """
    few = len(window.by_patient) < thresholds.patients
    patients = None if len(window.by_patient) < thresholds.cell else len(window.by_patient)
    values = None if patients is None else window.values
    known = None if reference is None else len(reference.by_patient)
    if reference is None or known is None:
        return Comparison(name, "no-reference", patients, None, values)
    if few or known < thresholds.patients:
        return Comparison(name, "too-few", patients, known, values)
    edges, names = _bins(reference, window)
    counts = _counts([*window.by_patient, *reference.by_patient], edges)
    steps = _steps([*window.by_patient, *reference.by_patient])
    own = np.arange(len(counts)) < len(window.by_patient)
    psi, ks = float(_psi(counts, own[None])[0]), float(_ks(steps, own[None])[0])
    error = thresholds.family_error / (2 * checks)
    # Fewer exchanges than this could never reach the error, and an alarm could never be told.
    exchanges = max(thresholds.permutations, int(np.ceil(1 / error)))
    generator = np.random.default_rng([thresholds.seed, sum(name.encode())])
    larger = np.zeros(2)
    for _ in range(0, exchanges, _AT_ONCE):
        exchanged = generator.permuted(np.tile(own, (_AT_ONCE, 1)), axis=1)
        larger += (np.sum(_psi(counts, exchanged) >= psi - _EDGE), np.sum(_ks(steps, exchanged) >= ks - _EDGE))
    p_psi, p_ks = (1 + larger) / (1 + _AT_ONCE * -(-exchanges // _AT_ONCE))
    alarms = (psi >= thresholds.psi and p_psi <= error) or (ks >= thresholds.ks and p_ks <= error)
    return Comparison(
        name=name,
        outcome="alarm" if alarms else "steady",
        patients=patients,
        reference_patients=known,
        values=values,
        psi=psi,
        ks=ks,
        p_psi=float(p_psi),
        p_ks=float(p_ks),
        bins=tuple(zip(names, _shares(counts[~own]), _shares(counts[own]), strict=True)),
    )


def population_stability(reference: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """PSI of counts, shape (…, bin); half a score is added to each bin, so that an empty one is not infinite."""
    first, second = (
        (rows + _SMOOTH) / (rows.sum(axis=-1, keepdims=True) + _SMOOTH * rows.shape[-1]) for rows in (reference, window)
    )
    result: NDArray[np.float64] = ((second - first) * np.log(second / first)).sum(axis=-1)
    return result


def _psi(counts: NDArray[np.float64], own: NDArray[np.bool_]) -> NDArray[np.float64]:
    """PSI for each way to divide the patients, `own` of shape (division, patient)."""
    return population_stability((~own).astype(np.float64) @ counts, own.astype(np.float64) @ counts)


def _ks(steps: NDArray[np.float64], own: NDArray[np.bool_]) -> NDArray[np.float64]:
    first, second = own.astype(np.float64) @ steps, (~own).astype(np.float64) @ steps
    functions = [np.cumsum(rows, axis=1) / rows.sum(axis=1, keepdims=True) for rows in (first, second)]
    result: NDArray[np.float64] = np.abs(functions[0] - functions[1]).max(axis=1)
    return result


def _bins(reference: Sample, window: Sample) -> tuple[NDArray[np.float64], list[str]]:
    """Upper edges and names: a bin a class, or a tenth of the reference each."""
    if reference.classes:
        return np.arange(1, len(reference.classes), dtype=np.float64) - 0.5, list(reference.classes)
    values = np.concatenate([np.array(scores) for scores in reference.by_patient])
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS)).astype(np.float64)
    texts = [f"{edge:.2f}" for edge in edges]
    return edges, [
        f"≤{texts[0]}",
        *(f"{low}–{high}" for low, high in pairwise(texts)),
        f">{texts[-1]}",
    ]


def _counts(by_patient: Sequence[Sequence[float]], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many scores of each patient fall in each bin, shape (patient, bin)."""
    table = np.zeros((len(by_patient), len(edges) + 1))
    for row, scores in enumerate(by_patient):
        np.add.at(table[row], np.searchsorted(edges, np.array(scores), side="left"), 1)
    return table


def _steps(by_patient: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """How often each distinct score occurs in each patient, shape (patient, score)."""
    distinct = np.unique(np.concatenate([np.array(scores) for scores in by_patient]))
    table = np.zeros((len(by_patient), len(distinct)))
    for row, scores in enumerate(by_patient):
        np.add.at(table[row], np.searchsorted(distinct, np.array(scores)), 1)
    return table


def _shares(counts: NDArray[np.float64]) -> list[float]:
    total = counts.sum(axis=0)
    return [float(share) for share in total / total.sum()]
