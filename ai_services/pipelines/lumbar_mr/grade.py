"""Scores of the grading network → calibrated probabilities, Pfirrmann grade (F06) and morphology (F01) (stage 4).

Calibration constants come from the manifest. The training labels do not tell protrusion from extrusion, so a
herniation is ``herniation-unspecified`` (clinical model §1.4, F01).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MORPHOLOGY_CODES = ("normal", "bulge", "herniation-unspecified")
BULGING, HERNIATION, NARROWING, MODIC, SPONDYLOLISTHESIS = 4, 5, 6, 7, 8


@dataclass(frozen=True, slots=True)
class Calibration:
    """Constants that turn scores into probabilities, and the thresholds of the decisions.

    Parameters
    ----------
    temperature : divides the cumulative Pfirrmann scores
    bulging, herniation, narrowing : slope and intercept of a logistic calibration
    bulging_threshold, herniation_threshold : probabilities from which morphology is called so
    modic, spondylolisthesis : as for bulging; None where the grader gives no such score
    """

    temperature: float
    bulging: tuple[float, float]
    herniation: tuple[float, float]
    narrowing: tuple[float, float]
    bulging_threshold: float
    herniation_threshold: float
    modic: tuple[float, float] | None = None
    spondylolisthesis: tuple[float, float] | None = None

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Calibration:
        """Read the manifest's ``calibration`` block."""
        return Calibration(
            temperature=float(values["temperature"]),
            bulging=_pair(values["bulging"]),
            herniation=_pair(values["herniation"]),
            narrowing=_pair(values["narrowing"]),
            bulging_threshold=float(values["bulging_threshold"]),
            herniation_threshold=float(values["herniation_threshold"]),
            modic=_pair(values["modic"]) if "modic" in values else None,
            spondylolisthesis=_pair(values["spondylolisthesis"]) if "spondylolisthesis" in values else None,
        )


@dataclass(frozen=True, slots=True)
class DiscGrade:
    """What the network says about one disc; probabilities are calibrated."""

    pfirrmann: int
    pfirrmann_probability: float
    pfirrmann_expected: float
    pfirrmann_deviation: float
    morphology: str
    morphology_probability: float
    pfirrmann_probabilities: tuple[float, float, float, float, float]
    probabilities: Mapping[str, float]


def pfirrmann_probabilities(cumulative: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities of grades I–V, shape (disc, 5), from four cumulative scores, shape (disc, 4)."""
    exceeds = _sigmoid(np.asarray(cumulative, dtype=np.float64) / temperature)
    exceeds = np.minimum.accumulate(exceeds, axis=1)  # a grade above k cannot be likelier than a grade above k - 1
    edges = np.concatenate([np.ones((len(exceeds), 1)), exceeds, np.zeros((len(exceeds), 1))], axis=1)
    result: NDArray[np.float64] = edges[:, :-1] - edges[:, 1:]
    return result


def calibrated(score: NDArray[np.floating], slope_intercept: tuple[float, float]) -> NDArray[np.float64]:
    """Probability of a yes-or-no label from its raw score."""
    return _sigmoid(np.asarray(score, dtype=np.float64) * slope_intercept[0] + slope_intercept[1])


def morphology(
    bulging: NDArray[np.floating], herniation: NDArray[np.floating], calibration: Calibration
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Class index into `MORPHOLOGY_CODES` and the probability of that class, each shape (disc,)."""
    probability = np.stack([(1 - herniation) * (1 - bulging), (1 - herniation) * bulging, herniation], axis=1)
    chosen = np.where(
        herniation >= calibration.herniation_threshold, 2, np.where(bulging >= calibration.bulging_threshold, 1, 0)
    ).astype(np.int64)
    return chosen, probability[np.arange(len(chosen)), chosen]


def grade_discs(scores: NDArray[np.floating], calibration: Calibration) -> list[DiscGrade]:
    """Decide each disc, in the order given.

    Parameters
    ----------
    scores : shape (disc, 7 or 9), see `infer.Networks.grade`
    calibration : the manifest's constants
    """
    grades = pfirrmann_probabilities(scores[:, :4], calibration.temperature)
    bulging = calibrated(scores[:, BULGING], calibration.bulging)
    herniation = calibrated(scores[:, HERNIATION], calibration.herniation)
    said = {"bulging": bulging, "herniation": herniation}
    said["narrowing"] = calibrated(scores[:, NARROWING], calibration.narrowing)
    if calibration.modic is not None:
        said["modic"] = calibrated(scores[:, MODIC], calibration.modic)
    if calibration.spondylolisthesis is not None:
        said["spondylolisthesis"] = calibrated(scores[:, SPONDYLOLISTHESIS], calibration.spondylolisthesis)
    chosen, probability = morphology(bulging, herniation, calibration)
    numbers = np.arange(1, 6)
    result = []
    for index, row in enumerate(grades):
        expected = float(row @ numbers)
        result.append(
            DiscGrade(
                pfirrmann=int(row.argmax()) + 1,
                pfirrmann_probability=float(row.max()),
                pfirrmann_expected=expected,
                pfirrmann_deviation=float(np.sqrt(row @ (numbers - expected) ** 2)),
                morphology=MORPHOLOGY_CODES[int(chosen[index])],
                morphology_probability=float(probability[index]),
                pfirrmann_probabilities=(float(row[0]), float(row[1]), float(row[2]), float(row[3]), float(row[4])),
                probabilities={name: float(values[index]) for name, values in said.items()},
            )
        )
    return result


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(value, -40, 40)))
    return result


def _pair(value: Any) -> tuple[float, float]:
    slope, intercept = value
    return float(slope), float(intercept)
