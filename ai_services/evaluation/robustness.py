"""How the lumbar MR pipeline holds when images get worse: the same volumes with faults of known size (stage 11).

Each condition is compared with the clean run of the same volume. What is refused is counted, never averaged in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ai_services.evaluation.figures import DEFAULT_SEED, with_intervals
from ai_services.evaluation.folder import LabelledFolder
from ai_services.evaluation.lumbar_mr import STRUCTURES, classes_of
from ai_services.evaluation.overlap import dice
from ai_services.imaging import artefacts
from ai_services.imaging.volume import Volume
from ai_services.pipelines.lumbar_mr.infer import Networks
from ai_services.pipelines.lumbar_mr.outline import outline, prepared_of, require_usable
from ai_services.pipelines.lumbar_mr.pipeline import analysis_of, outlined_mask
from ai_services.prediction import PipelineError

FloatArray = NDArray[np.float32]
Fault = Callable[[FloatArray], FloatArray]
CLEAN = "none"


@dataclass(frozen=True, slots=True)
class Condition:
    """One fault of one size; `amount` says the size in words."""

    fault: str
    amount: str
    apply: Fault


def conditions() -> tuple[Condition, ...]:
    """Every fault, from weak to strong; the clean images first."""
    found = [Condition(CLEAN, "", lambda image: image)]
    found += [Condition("noise", f"{share:.0%} of the brightest", _noise(share)) for share in (0.05, 0.15, 0.5)]
    found += [Condition("bias field", f"± {share:.0%}", _bias(share)) for share in (0.8,)]
    found += [Condition("motion ghost", f"{share:.0%} of the signal", _ghost(share)) for share in (0.15, 0.4)]
    found += [Condition("slices moved", f"{pixels} pixels", _moved(pixels)) for pixels in (10,)]
    found += [Condition("resolution", f"pixels {factor:g} × as wide", _coarse(factor)) for factor in (2, 4, 8)]
    found += [Condition("grey scale bent", f"exponent {value:g}", _gamma(value)) for value in (0.5, 2.0)]
    found.append(Condition("intensity inverted", "", artefacts.with_inversion))
    found.append(Condition("upside down", "", lambda image: np.ascontiguousarray(image[:, ::-1])))
    found.append(Condition("mirrored front to back", "", lambda image: np.ascontiguousarray(image[:, :, ::-1])))
    found.append(Condition("upper half only", "", lambda image: image[:, : image.shape[1] * 9 // 20]))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One volume under one condition, in plain values that a file can keep.

    Parameters
    ----------
    patient, fault, amount : which
    refused : reason code, None where it was analysed
    dice : by structure, also where it was refused for what it showed; empty where nothing was outlined
    entropy : `Uncertainty.largest`; None where nothing was outlined
    discs : number from the lowest to Pfirrmann grade and morphology; None where it was refused
    """

    patient: int
    fault: str
    amount: str
    refused: str | None
    dice: dict[str, float]
    entropy: float | None
    discs: dict[str, tuple[int, str]] | None


def outcomes(
    folder: LabelledFolder, networks: Networks, wanted: Iterable[tuple[int, Condition]], every: int
) -> Iterator[Outcome]:
    """Patients' masked volumes under conditions.

    Parameters
    ----------
    wanted : patient and condition
    every : only every so many-th slice is taken, so that thin slices stand for clinical ones
    """
    for patient, pairs in groupby(wanted, key=lambda pair: pair[0]):
        series = folder.space(patient)
        if series is None or series.classes is None:
            continue
        array, affine = np.ascontiguousarray(series.volume.array[::every]), series.volume.affine_lps.copy()
        affine[:3, 0] *= every
        for _, condition in pairs:
            faulty = np.ascontiguousarray(condition.apply(array.copy()), dtype=np.float32)
            yield _outcome(patient, condition, Volume(faulty, affine), series.classes[::every], networks)


def _outcome(
    patient: int, condition: Condition, volume: Volume, truth: NDArray[np.uint8], networks: Networks
) -> Outcome:
    agreement: dict[str, float] = {}
    entropy, refused, discs = None, None, None
    try:
        outlined = outline(prepared_of(volume), networks)
        entropy = outlined.uncertainty.largest
        mask = outlined_mask(outlined)
        if mask.shape == truth.shape and condition.fault not in _MOVED:
            classes = classes_of(mask)
            agreement = {name: dice(classes == number, truth == number) for name, number in STRUCTURES.items()}
        require_usable(outlined, networks)
        scores = analysis_of(outlined, networks).discs
        discs = {str(disc.label): (1 + int(np.argmax(disc.pfirrmann)), disc.morphology) for disc in scores}
    except PipelineError as declined:
        refused = declined.reason_code
    return Outcome(patient, condition.fault, condition.amount, refused, agreement, entropy, discs)


_MOVED = ("upside down", "mirrored front to back", "slices moved")
"""The truth lies elsewhere there: Dice would compare two places."""


def table_of(found: Sequence[Outcome], seed: int = DEFAULT_SEED) -> list[dict[str, Any]]:
    """One row a condition: shares and means with 95 % intervals by patient, against the same patient's clean run."""
    clean = {item.patient: item.discs for item in found if item.fault == CLEAN}
    rows = []
    for fault, amount in dict.fromkeys((item.fault, item.amount) for item in found):
        own = [item for item in found if (item.fault, item.amount) == (fault, amount)]
        read = [item for item in own if item.discs is not None]
        row: dict[str, Any] = {"fault": fault, "amount": amount, "series": len(own), "refused": len(own) - len(read)}
        row["reasons"] = sorted({item.refused for item in own if item.refused is not None})
        for name in STRUCTURES:
            row[f"{name}_dice"] = _mean([(item.patient, item.dice[name]) for item in read if name in item.dice], seed)
        rows.append(row | _agreement_with_clean(read, clean, seed))
    return rows


def _agreement_with_clean(
    read: Sequence[Outcome], clean: dict[int, dict[str, tuple[int, str]] | None], seed: int
) -> dict[str, Any]:
    counts, same, near, form = [], [], [], []
    for item in read:
        before = clean.get(item.patient)
        if before is None or item.discs is None:
            continue
        counts.append((item.patient, float(len(before) == len(item.discs))))
        for label in before.keys() & item.discs.keys():
            (grade, morphology), (other, other_morphology) = before[label], item.discs[label]
            same.append((item.patient, float(grade == other)))
            near.append((item.patient, float(abs(grade - other) <= 1)))
            form.append((item.patient, float(morphology == other_morphology)))
    return {
        "count_same": _mean(counts, seed),
        "pfirrmann_same": _mean(same, seed),
        "pfirrmann_within_one": _mean(near, seed),
        "morphology_same": _mean(form, seed),
    }


def entropy_against_dice(found: Sequence[Outcome], thresholds: Sequence[float]) -> dict[str, Any]:
    """Whether uncertainty tells bad outlines: rank correlation, and the mean Dice on both sides of some thresholds.

    Volumes that were refused count too, as far as they were outlined.
    """
    pairs = [
        (item.entropy, float(np.mean(list(item.dice.values()))))
        for item in found
        if item.entropy is not None and item.dice and np.isfinite(list(item.dice.values())).all()
    ]
    if len(pairs) < 3:
        return {"volumes": len(pairs), "spearman": None, "thresholds": []}
    entropy, agreement = np.array(pairs).T
    rows = []
    for threshold in thresholds:
        kept = entropy <= threshold
        rows.append(
            {
                "threshold": threshold,
                "kept": int(kept.sum()),
                "dice_kept": round(float(agreement[kept].mean()), 3) if kept.any() else None,
                "worst_kept": round(float(agreement[kept].min()), 3) if kept.any() else None,
                "dice_refused": round(float(agreement[~kept].mean()), 3) if (~kept).any() else None,
            }
        )
    return {
        "volumes": len(pairs),
        "spearman": round(float(spearmanr(entropy, agreement).statistic), 3),
        "thresholds": rows,
    }


def _mean(values: Sequence[tuple[int, float]], seed: int) -> dict[str, Any] | None:
    if not values:
        return None
    patients = np.array([patient for patient, _ in values], dtype=np.int64)
    numbers = np.array([value for _, value in values], dtype=np.float64)
    figure = with_intervals({"mean": lambda rows: float(numbers[rows].mean())}, patients, seed)["mean"]
    return figure.as_json()


def _noise(share: float) -> Fault:
    return lambda image: artefacts.with_noise(image, share * float(np.percentile(image, 99.5)))


def _bias(strength: float) -> Fault:
    return lambda image: artefacts.with_bias_field(image, strength)


def _ghost(strength: float) -> Fault:
    return lambda image: artefacts.with_ghost(image, strength, axis=1)


def _moved(pixels: int) -> Fault:
    return lambda image: artefacts.with_moved_slices(image, pixels)


def _coarse(factor: float) -> Fault:
    return lambda image: artefacts.with_lower_resolution(image, factor)


def _gamma(exponent: float) -> Fault:
    return lambda image: artefacts.with_gamma(image, exponent)
