"""How often people overrode a version, by group: rates with Wilson intervals, small cells suppressed. Pure.

A report is overridden when its signature changed a value or took it back. Wilson: https://doi.org/10.2307/2276774
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import fisher_exact

from ai_services.monitoring.thresholds import Thresholds

Outcome = Literal["steady", "alarm", "too-few", "suppressed"]
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Decided:
    """One decided report: its patient, whether it was overridden, and its groups by kind."""

    patient: str
    overridden: bool
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate; everything but the outcome is None where the cell is suppressed.

    Parameters
    ----------
    overridden, decided, patients : counts
    value, low, high : the rate and its 95 % interval; None where nothing was decided
    p : of Fisher's exact test against all other reports; None for the whole
    """

    outcome: Outcome
    overridden: int | None = None
    decided: int | None = None
    patients: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share; (0, 1) where there is nothing."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = count / total, _Z**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * (share * (1 - share) / total + z2 / (4 * total)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def overall(reports: Sequence[Decided], thresholds: Thresholds) -> Rate:
    """Rate over all decided reports."""
    if len({item.patient for item in reports}) < thresholds.cell:
        return Rate("too-few")
    rate = _rate(reports)
    if len(reports) < thresholds.decided:
        return _with(rate, "too-few")
    return _with(rate, "alarm" if (rate.low or 0.0) > thresholds.rate else "steady")


def by_group(reports: Sequence[Decided], kind: str, thresholds: Thresholds, checks: int) -> dict[str, Rate]:
    """Rate of each group of a kind.

    A cell of fewer patients than the minimum is suppressed. Where that leaves one suppressed cell, which the total
    would give away, the smallest of the others is suppressed as well.
    """
    cells: dict[str, list[Decided]] = defaultdict(list)
    for report in reports:
        cells[report.groups[kind]].append(report)
    patients = {name: len({item.patient for item in cell}) for name, cell in cells.items()}
    hidden = {name for name, count in patients.items() if count < thresholds.cell}
    if len(hidden) == 1 and len(cells) > 1:
        hidden.add(min((name for name in cells if name not in hidden), key=lambda name: (patients[name], name)))
    found = {}
    for name, cell in sorted(cells.items()):
        others = [item for other, items in cells.items() if other != name for item in items]
        found[name] = Rate("suppressed") if name in hidden else _judged(cell, others, thresholds, checks)
    return found


def _judged(cell: Sequence[Decided], others: Sequence[Decided], thresholds: Thresholds, checks: int) -> Rate:
    rate = _rate(cell)
    if len(cell) < thresholds.decided or len(others) < thresholds.decided:
        return _with(rate, "too-few")
    own, rest = sum(item.overridden for item in cell), sum(item.overridden for item in others)
    p = float(fisher_exact([[own, len(cell) - own], [rest, len(others) - rest]], alternative="greater")[1])
    excess = own / len(cell) - rest / len(others)
    alarms = excess >= thresholds.above_rest and p <= thresholds.family_error / checks
    return _with(rate, "alarm" if alarms else "steady", p)


def _rate(reports: Sequence[Decided]) -> Rate:
    count, total = sum(item.overridden for item in reports), len(reports)
    low, high = wilson(count, total)
    patients = len({item.patient for item in reports})
    return Rate("steady", count, total, patients, count / total if total else None, low, high)


def _with(rate: Rate, outcome: Outcome, p: float | None = None) -> Rate:
    return Rate(outcome, rate.overridden, rate.decided, rate.patients, rate.value, rate.low, rate.high, p)
