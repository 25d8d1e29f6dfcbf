"""How unsure a model was, from what the record keeps of its probabilities. Pure.

The record holds the calibrated probability of the called class, and for an ordinal grade the expected value. Of all
distributions that fit these, the one of greatest entropy is taken: it claims nothing that is not known (Jaynes 1957,
https://doi.org/10.1103/PhysRev.106.620). Entropy is divided by that of equal probabilities, so it lies in 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_services.monitoring.judged import JudgedFinding

_CLASSES = {
    "F01": ("normal", "bulge", "herniation-unspecified"),
    "F06": ("1", "2", "3", "4", "5"),
}
_ORDINAL = frozenset({"F06"})
_STEEPEST = 60.0
_TELLING = 2
"""A study is as unsure as the mean of its two most unsure findings: one bad disc counts, one odd number does not."""


@dataclass(frozen=True, slots=True)
class Unsure:
    """How unsure one finding is: normalised entropy, and the margin between the two likeliest classes."""

    code: str
    level: str | None
    entropy: float
    margin: float
    confidence: float


def distribution(called: int, confidence: float, classes: int, expected: float | None = None) -> NDArray[np.float64]:
    """Probabilities of the classes, shape (class,), of greatest entropy among those that fit.

    Parameters
    ----------
    called : index of the called class
    confidence : its probability
    classes : how many there are
    expected : mean of the class numbers counted from 1, where the classes are ordered; one that no distribution
        reaches (it was rounded) gives the nearest
    """
    others = np.delete(np.arange(1, classes + 1, dtype=np.float64), called)
    rest = 1.0 - confidence
    if rest <= 0:
        sure = np.zeros(classes)
        sure[called] = 1.0
        return sure
    weights = np.full(classes - 1, 1 / (classes - 1))
    if expected is not None:
        wanted = float(np.clip((expected - confidence * (called + 1)) / rest, others[0], others[-1]))
        weights = _tilted(others, wanted)
    row: NDArray[np.float64] = np.insert(weights * rest, called, confidence)
    return row


def unsure(finding: JudgedFinding) -> Unsure | None:
    """How unsure a finding is; None where the model gave no probability or no known class."""
    classes = _CLASSES.get(finding.code)
    if classes is None or finding.said is None or finding.confidence is None or finding.said.code not in classes:
        return None
    expected = finding.expected if finding.code in _ORDINAL else None
    row = distribution(classes.index(finding.said.code), min(1.0, finding.confidence), len(classes), expected)
    first, second = np.sort(row)[::-1][:2]
    return Unsure(finding.code, finding.level, entropy(row), float(first - second), finding.confidence)


def entropy(row: NDArray[np.float64]) -> float:
    """Entropy of probabilities, shape (class,), as a share of that of equal ones."""
    positive = row[row > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(len(row)))


def of_study(findings: Sequence[JudgedFinding]) -> tuple[float | None, tuple[Unsure, ...]]:
    """How unsure a study is, and its findings, the most unsure first; None where nothing has a probability."""
    known = [item for finding in findings if (item := unsure(finding)) is not None]
    ranked = tuple(sorted(known, key=lambda item: (-item.entropy, item.code, item.level or "")))
    if not ranked:
        return None, ()
    return float(np.mean([item.entropy for item in ranked[:_TELLING]])), ranked


def _tilted(values: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Weights of greatest entropy with this mean: exponential in the value, the slope found by halving."""
    low, high = -_STEEPEST, _STEEPEST
    weights = np.full(len(values), 1 / len(values))
    for _ in range(60):
        slope = (low + high) / 2
        weights = np.exp(slope * (values - mean) - np.max(slope * (values - mean)))
        weights /= weights.sum()
        low, high = (slope, high) if float(weights @ values) < mean else (low, slope)
    return weights
