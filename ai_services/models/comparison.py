"""A shadow's answer beside the released version's: where they differ, in figures that can be summed up (stage 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ai_services.prediction import Prediction

_FINDINGS = {"pfirrmann": "F06", "morphology": "F01"}


def compare(live: Prediction, shadow: Prediction) -> dict[str, Any]:
    """Compare two predictions of the same series.

    Returns
    -------
    discs found by each, agreement of each finding over the levels that both speak of, Dice of the structures, seconds
    """
    told: dict[str, Any] = {"discs": [len(live.discs), len(shadow.discs)]}
    for name, code in _FINDINGS.items():
        mine, theirs = _values(live, code), _values(shadow, code)
        both = sorted(set(mine) & set(theirs))
        told[name] = {"levels": len(both), "same": sum(mine[level] == theirs[level] for level in both)}
        told[name]["differ"] = [[level, mine[level], theirs[level]] for level in both if mine[level] != theirs[level]]
    for label in ("vertebra", "disc", "canal"):
        one, other = _structure(live, label), _structure(shadow, label)
        together = int(one.sum()) + int(other.sum())
        told[f"{label}_dice"] = round(2 * int((one & other).sum()) / together, 4) if together else None
    told["seconds"] = [round(sum(live.seconds.values()), 3), round(sum(shadow.seconds.values()), 3)]
    return told


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up many comparisons; a figure that no study gave is None."""
    comparisons = [run["comparison"] for run in runs]
    answered = [item for item in comparisons if "declined" not in item]
    told: dict[str, Any] = {"studies": len(comparisons), "declined": len(comparisons) - len(answered)}
    told["same_count"] = _share([item["discs"][0] == item["discs"][1] for item in answered])
    for name in _FINDINGS:
        levels = sum(item[name]["levels"] for item in answered)
        told[f"same_{name}"] = round(sum(item[name]["same"] for item in answered) / levels, 4) if levels else None
    for label in ("vertebra", "disc", "canal"):
        values = [item[f"{label}_dice"] for item in answered if item[f"{label}_dice"] is not None]
        told[f"{label}_dice"] = round(float(np.mean(values)), 4) if values else None
    return told


def _values(prediction: Prediction, code: str) -> dict[str, str]:
    found = (item for item in prediction.findings if item.code == code and item.level and item.value is not None)
    return {str(item.level): str(item.value) for item in found}


def _structure(prediction: Prediction, label: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.isin(
        prediction.mask, [segment.number for segment in prediction.segments if segment.label.partition("-")[0] == label]
    )


def _share(yes: Sequence[bool]) -> float | None:
    return round(sum(yes) / len(yes), 4) if yes else None
