"""All figures of an evaluation as one JSON document (stage 11).

Everything is told with its number of rows and patients; what was declined is counted beside what was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ai_services.evaluation.figures import DEFAULT_SEED, Figure, with_intervals
from ai_services.evaluation.grading import grading_figures
from ai_services.evaluation.lumbar_mr import STRUCTURES, SeriesResult, matched_discs
from ai_services.prediction import ModelIdentity

SUBGROUPS = ("sequence", "vendor", "field_strength", "sex")
FEWEST_PATIENTS = 5
"""A subgroup of fewer patients is counted, not measured: its interval would mean nothing."""

Document = dict[str, Any]


def report_of(
    results: Sequence[SeriesResult], models: Sequence[ModelIdentity], *, made: str, seed: int = DEFAULT_SEED
) -> Document:
    """Put the figures together.

    Parameters
    ----------
    results : of `run_over`
    models : the models that spoke
    made : time of the evaluation, FHIR instant
    seed : of the bootstrap
    """
    looked = [result for result in results if result.declined is None]
    return {
        "made": made,
        "seed": seed,
        "models": [{"name": model.name, "version": model.version, "sha256": model.sha256} for model in models],
        "data": {
            "series": len(results),
            "patients": len({result.patient for result in results}),
            "declined": dict(sorted(Counter(result.declined for result in results if result.declined).items())),
        },
        "segmentation": _json(segmentation_figures(looked, seed)),
        "counting": _json(counting_figures(results, seed)),
        "grading": _json(grading_figures(matched_discs(looked), seed)),
        "grading_where_count_is_right": _json(grading_figures(matched_discs(_counted_right(looked)), seed)),
        "subgroups": {name: _by_subgroup(results, name, seed) for name in SUBGROUPS},
        "seconds": _seconds(looked),
        "series": [_row(result) for result in results],
    }


def segmentation_figures(results: Sequence[SeriesResult], seed: int = DEFAULT_SEED) -> dict[str, Figure]:
    """How well outlines agree with the masks, of the series that have them."""
    masked = [result for result in results if result.outlines]
    patients = np.array([result.patient for result in masked], dtype=np.int64)
    figures: dict[str, Figure] = {}
    for name in STRUCTURES:
        outlines = [result.outlines[name] for result in masked]
        for measure in ("dice", "hausdorff95_mm", "assd_mm"):
            values = np.array([_or_nan(getattr(outline, measure)) for outline in outlines])
            figures |= with_intervals({f"{name}_{measure}": _mean_of(values)}, patients, seed)
        lowest = np.array([outline.dice for outline in outlines])
        # No interval: a draw of patients that leaves the worst one out says nothing about the worst one.
        worst = float(lowest.min()) if len(lowest) else None
        figures[f"{name}_dice_worst_series"] = Figure(worst, None, None, len(lowest), len(set(patients.tolist())))
    quality = np.array([_or_nan(result.disc_quality) for result in masked])
    return figures | with_intervals({"disc_panoptic_quality": _mean_of(quality)}, patients, seed)


def counting_figures(results: Sequence[SeriesResult], seed: int = DEFAULT_SEED) -> dict[str, Figure]:
    """Whether as many discs were found as graded; a declined series counts as not right."""
    graded = [result for result in results if result.truth]
    patients = np.array([result.patient for result in graded], dtype=np.int64)
    extra = np.array([len(result.discs) - len(result.truth) for result in graded], dtype=np.int64)
    looked = np.array([result.declined is None for result in graded], dtype=np.bool_)
    sure = np.array([result.numbering_confident for result in graded], dtype=np.bool_)
    right = (extra == 0) & looked
    return with_intervals(
        {
            "looked_at": lambda i: float(looked[i].mean()),
            "count_right": lambda i: float(right[i].mean()),
            "one_more": lambda i: float(((extra == 1) & looked)[i].mean()),
            "one_fewer": lambda i: float(((extra == -1) & looked)[i].mean()),
            "numbering_confident": lambda i: float(sure[i].mean()),
            "count_right_where_confident": lambda i: float(right[i][sure[i]].mean()) if sure[i].any() else float("nan"),
        },
        patients,
        seed,
    )


def _by_subgroup(results: Sequence[SeriesResult], name: str, seed: int) -> dict[str, Document]:
    groups = sorted({result.subgroups[name] for result in results})
    told: dict[str, Document] = {}
    for group in groups:
        own = [result for result in results if result.subgroups[name] == group]
        patients = len({result.patient for result in own})
        if patients < FEWEST_PATIENTS:
            told[group] = {"patients": patients, "measured": False}
            continue
        looked = [result for result in own if result.declined is None]
        told[group] = {
            "patients": patients,
            "measured": True,
            "segmentation": _json(segmentation_figures(looked, seed)),
            "counting": _json(counting_figures(own, seed)),
            "grading": _json(grading_figures(matched_discs(looked), seed)),
        }
    return told


def _counted_right(results: Sequence[SeriesResult]) -> list[SeriesResult]:
    return [result for result in results if len(result.discs) == len(result.truth)]


def _seconds(results: Sequence[SeriesResult]) -> Document:
    totals = [sum(result.seconds.values()) for result in results]
    if not totals:
        return {}
    stages = sorted({stage for result in results for stage in result.seconds})
    medians = {stage: round(float(np.median([r.seconds.get(stage, 0.0) for r in results])), 3) for stage in stages}
    slowest = round(float(np.max(totals)), 3)
    return {"median_a_series": round(float(np.median(totals)), 3), "slowest_series": slowest, "median_a_stage": medians}


def _row(result: SeriesResult) -> Document:
    row: Document = {"patient": result.patient, "sequence": result.sequence, "declined": result.declined}
    if result.declined is None:
        row |= {"discs_found": len(result.discs), "discs_graded": len(result.truth) or None}
        row |= {f"{name}_dice": round(outline.dice, 4) for name, outline in result.outlines.items()}
    return row


def _mean_of(values: np.ndarray[Any, np.dtype[np.float64]]) -> Callable[..., float]:
    def mean(rows: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        kept = values[rows]
        kept = kept[~np.isnan(kept)]
        return float(kept.mean()) if len(kept) else float("nan")

    return mean


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _json(figures: dict[str, Figure]) -> Document:
    return {name: figure.as_json() for name, figure in figures.items()}
