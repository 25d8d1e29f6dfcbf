"""A shadow's answer beside the released version's: where they differ, in figures that can be summed up (stage 11).

Where nobody has released a version (CT, ADR 0057) there is nothing to compare with: what the shadow found is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ai_services.prediction import Prediction

_FINDINGS = {"pfirrmann": "F06", "morphology": "F01"}
_STRUCTURES = {
    "vertebra": ("vertebra", "vertebra-body", "vertebra-arch"),
    "body": ("vertebra-body",),
    "arch": ("vertebra-arch",),
    "disc": ("disc",),
    "canal": ("canal",),
}


def compare(live: Prediction, shadow: Prediction) -> dict[str, Any]:
    """Compare two predictions of the same series.

    Returns
    -------
    discs and vertebrae found by each; agreement of each graded finding over the levels that both speak of; of each
    measured one how many levels both measured, the mean and the largest difference (shadow minus live) in its unit;
    Dice of the structures; seconds
    """
    told: dict[str, Any] = {
        "discs": [len(live.discs), len(shadow.discs)],
        "vertebrae": [_vertebrae(live), _vertebrae(shadow)],
    }
    for name, code in _FINDINGS.items():
        mine, theirs = _values(live, code), _values(shadow, code)
        both = sorted(set(mine) & set(theirs))
        told[name] = {"levels": len(both), "same": sum(mine[level] == theirs[level] for level in both)}
        told[name]["differ"] = [[level, mine[level], theirs[level]] for level in both if mine[level] != theirs[level]]
    told["measured"] = _measured(live, shadow)
    for label in _STRUCTURES:
        one, other = _structure(live, label), _structure(shadow, label)
        together = int(one.sum()) + int(other.sum())
        told[f"{label}_dice"] = round(2 * int((one & other).sum()) / together, 4) if together else None
    told["seconds"] = [round(sum(live.seconds.values()), 3), round(sum(shadow.seconds.values()), 3)]
    return told


def alone(shadow: Prediction) -> dict[str, Any]:
    """What a shadow found where no version speaks: counts, and how many of its findings have a value."""
    told = sum(finding.value is not None for finding in shadow.findings)
    return {
        "alone": True,
        "discs": [None, len(shadow.discs)],
        "vertebrae": [None, _vertebrae(shadow)],
        "numbering_confident": shadow.numbering.confident,
        "findings": [told, len(shadow.findings)],
        "seconds": [None, round(sum(shadow.seconds.values()), 3)],
    }


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up many comparisons; a figure that no study gave is None."""
    comparisons = [run["comparison"] for run in runs]
    by_itself = [item for item in comparisons if item.get("alone")]
    answered = [item for item in comparisons if "declined" not in item and not item.get("alone")]
    declined = len(comparisons) - len(answered) - len(by_itself)
    told: dict[str, Any] = {"studies": len(comparisons), "declined": declined, "alone": len(by_itself)}
    told["same_count"] = _share([_counted(item)[0] == _counted(item)[1] for item in answered])
    for name in _FINDINGS:
        levels = sum(item[name]["levels"] for item in answered)
        told[f"same_{name}"] = round(sum(item[name]["same"] for item in answered) / levels, 4) if levels else None
    for label in _STRUCTURES:
        values = [value for item in answered if (value := item.get(f"{label}_dice")) is not None]
        told[f"{label}_dice"] = round(float(np.mean(values)), 4) if values else None
    told["measured"] = _summarised([item.get("measured", {}) for item in answered])
    if by_itself:
        of_all = sum(item["findings"][1] for item in by_itself)
        told["alone_findings_told"] = (
            round(sum(item["findings"][0] for item in by_itself) / of_all, 4) if of_all else None
        )
        told["alone_numbering_confident"] = _share([item["numbering_confident"] for item in by_itself])
    return told


def _measured(live: Prediction, shadow: Prediction) -> dict[str, Any]:
    told = {}
    units = {item.code: item.unit for item in live.findings if isinstance(item.value, int | float)}
    for code, unit in sorted(units.items()):
        mine, theirs = _numbers(live, code), _numbers(shadow, code)
        differences = [theirs[level] - mine[level] for level in sorted(set(mine) & set(theirs))]
        if differences:
            mean, largest = float(np.mean(differences)), max(differences, key=abs)
            told[code] = {
                "levels": len(differences),
                "mean": round(mean, 3),
                "largest": round(largest, 3),
                "unit": unit or "1",
            }
    return told


def _summarised(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each measured finding over all studies: mean over levels, and the largest of all."""
    told = {}
    for code in sorted({code for item in measured for code in item}):
        own = [item[code] for item in measured if code in item]
        levels = sum(item["levels"] for item in own)
        told[code] = {
            "levels": levels,
            "mean": round(sum(item["mean"] * item["levels"] for item in own) / levels, 3),
            "largest": max((item["largest"] for item in own), key=abs),
            "unit": own[0]["unit"],
        }
    return told


def _counted(comparison: dict[str, Any]) -> list[int]:
    """What is counted: discs where either found some, else vertebrae, as on CT."""
    discs: list[int] = comparison["discs"]
    return discs if any(discs) else comparison.get("vertebrae", discs)


def _vertebrae(prediction: Prediction) -> int:
    return sum(segment.label == "vertebra-body" for segment in prediction.segments)


def _values(prediction: Prediction, code: str) -> dict[str, str]:
    found = (item for item in prediction.findings if item.code == code and item.level and item.value is not None)
    return {str(item.level): str(item.value) for item in found}


def _numbers(prediction: Prediction, code: str) -> dict[str, float]:
    return {
        str(item.level): float(item.value)
        for item in prediction.findings
        if item.code == code and isinstance(item.value, int | float)
    }


def _structure(prediction: Prediction, label: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    labels = _STRUCTURES[label]
    return np.isin(prediction.mask, [segment.number for segment in prediction.segments if segment.label in labels])


def _share(yes: Sequence[bool]) -> float | None:
    return round(sum(yes) / len(yes), 4) if yes else None
