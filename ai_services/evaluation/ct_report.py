"""The CT pipeline over a labelled folder: outlines, names and measures beside the truth, with intervals (stage 11).

A vertebra that the masks hold and the pipeline does not name counts with Dice 0; a measure that was withheld is counted
and not measured. On SYNTHETIC folders every document says so, first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_services.evaluation.ct_folder import FROM_BELOW, SACRUM_VALUE, CtCase, CtFolder, value_of
from ai_services.evaluation.figures import DEFAULT_SEED, Figure, with_intervals
from ai_services.evaluation.overlap import dice, panoptic_quality, surface_distances
from ai_services.imaging.ct_phantom_bones import ARCH, BODY
from ai_services.pipelines.lumbar_ct.instances import SACRUM as SACRUM_SEGMENT
from ai_services.pipelines.lumbar_ct.parameters import Parameters
from ai_services.pipelines.lumbar_ct.pipeline import NOTICE_EN, NOTICE_ZH, CtAnalysis, analyse
from ai_services.prediction import ModelIdentity, PipelineError

NAMES = FROM_BELOW[:5]
SYNTHETIC_EN = "SYNTHETIC images only: nothing here says anything about a patient"
SYNTHETIC_ZH = "仅为合成图像 SYNTHETIC: 结果与任何患者无关"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overlap:
    """One structure of one patient; distances None where it was not found."""

    dice: float
    hausdorff95_mm: float | None
    assd_mm: float | None


@dataclass(frozen=True, slots=True)
class CtResult:
    """One patient as the pipeline saw it.

    Parameters
    ----------
    overlaps : structure → one a level
    differences : kind of measure → found minus truth, one a level and side; NaN where it was withheld
    """

    patient: int
    subgroups: Mapping[str, str]
    synthetic: bool
    declined: str | None = None
    overlaps: Mapping[str, tuple[Overlap, ...]] = field(default_factory=dict)
    body_quality: float | None = None
    names_right: bool = False
    confident: bool = False
    differences: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seconds: float = 0.0


def run_over_ct(folder: CtFolder, parameters: Parameters, patients: set[int] | None = None) -> Iterator[CtResult]:
    """Every patient of the folder, one by one."""
    for patient in sorted(folder.slices):
        if patients is None or patient in patients:
            yield result_of(folder.case(patient), parameters)


def result_of(case: CtCase, parameters: Parameters) -> CtResult:
    """Run the pipeline on one patient."""
    try:
        found = analyse(case.volume, parameters)
    except PipelineError as declined:
        return CtResult(case.patient, case.subgroups, case.synthetic, declined.reason_code)
    overlaps, quality, right = ({}, None, False) if case.labels is None else _agreement(case, case.labels, found)
    return CtResult(
        case.patient,
        case.subgroups,
        case.synthetic,
        overlaps=overlaps,
        body_quality=quality,
        names_right=right,
        confident=found.numbering.confident,
        differences=_differences(case, found),
        seconds=sum(found.seconds.values()),
    )


def ct_report(
    results: Sequence[CtResult], models: Sequence[ModelIdentity], *, made: str, seed: int = DEFAULT_SEED
) -> Document:
    """All figures as one JSON document; the parameters are those of `report.report_of`."""
    looked = [result for result in results if result.declined is None]
    synthetic = any(result.synthetic for result in results)
    warning = [NOTICE_EN, NOTICE_ZH, *([SYNTHETIC_EN, SYNTHETIC_ZH] if synthetic else [])]
    return {
        "synthetic": synthetic,
        "notice": warning,
        "made": made,
        "seed": seed,
        "models": [{"name": model.name, "version": model.version, "sha256": model.sha256} for model in models],
        "data": {
            "patients": len(results),
            "declined": dict(sorted(Counter(result.declined for result in results if result.declined).items())),
        },
        "segmentation": _json(_segmentation(looked, seed)),
        "counting": _json(_counting(results, seed)),
        "measures": _json(_measures(looked, seed)),
        "subgroups": {name: dict(Counter(item.subgroups[name] for item in results)) for name in ("vendor", "sex")},
        "seconds": {"median_a_patient": round(float(np.median([item.seconds for item in looked])), 3)}
        if looked
        else {},
    }


def _agreement(
    case: CtCase, labels: NDArray[np.uint8], found: CtAnalysis
) -> tuple[dict[str, tuple[Overlap, ...]], float, bool]:
    frames = {frame.name: frame for frame in found.frames}
    overlaps: dict[str, list[Overlap]] = defaultdict(list)
    truth_bodies, found_bodies = (np.zeros(labels.shape, dtype=np.int32) for _ in range(2))
    right = True
    for number, name in enumerate(NAMES, start=1):
        frame = frames.get(name)
        for part in (BODY, ARCH):
            truth = labels == value_of(name, part)
            mine = found.labels == getattr(frame, part) if frame else np.zeros(labels.shape, dtype=np.bool_)
            if not truth.any():
                continue
            overlaps[part].append(_overlap(mine, truth, case))
            if part == BODY:
                truth_bodies[truth], found_bodies[mine] = number, number
                right = right and overlaps[part][-1].dice >= 0.5
    sacrum = labels == SACRUM_VALUE
    if sacrum.any():
        overlaps["sacrum"].append(_overlap(found.labels == SACRUM_SEGMENT, sacrum, case))
    quality = panoptic_quality(found_bodies, truth_bodies).quality
    return {name: tuple(values) for name, values in overlaps.items()}, quality, right


def _overlap(mine: NDArray[np.bool_], truth: NDArray[np.bool_], case: CtCase) -> Overlap:
    distances = surface_distances(mine, truth, case.volume.spacing_mm)
    return Overlap(dice(mine, truth), distances.hausdorff95_mm, distances.assd_mm)


def _differences(case: CtCase, found: CtAnalysis) -> dict[str, tuple[float, ...]]:
    values = {(item.code, item.level): item.value for item in found.findings}
    told: dict[str, list[float]] = defaultdict(list)
    for (code, level), truth in case.measures.items():
        value = values.get((code, level))
        kind = code.removesuffix("-right").removesuffix("-left")
        told[kind].append(float(value) - truth if isinstance(value, int | float) else float("nan"))
    return {kind: tuple(items) for kind, items in told.items()}


def _segmentation(results: Sequence[CtResult], seed: int) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for structure in (BODY, ARCH, "sacrum"):
        for measure in ("dice", "hausdorff95_mm", "assd_mm"):
            rows = [
                (result.patient, _or_nan(getattr(item, measure)))
                for result in results
                for item in result.overlaps.get(structure, ())
            ]
            figures |= _mean(f"{structure}_{measure}", rows, seed)
    rows = [(result.patient, result.body_quality) for result in results if result.body_quality is not None]
    return figures | _mean("body_panoptic_quality", rows, seed)


def _counting(results: Sequence[CtResult], seed: int) -> dict[str, Figure]:
    """A declined patient counts as not right."""
    looked = [(result.patient, float(result.declined is None)) for result in results]
    masked = [result for result in results if result.overlaps or result.declined]
    right = [(result.patient, float(result.names_right)) for result in masked]
    sure = [(result.patient, float(result.confident)) for result in results]
    return (
        _mean("looked_at", looked, seed) | _mean("names_right", right, seed) | _mean("numbering_confident", sure, seed)
    )


def _measures(results: Sequence[CtResult], seed: int) -> dict[str, Figure]:
    """Of each kind: share told, mean difference and mean absolute difference of what was told."""
    figures: dict[str, Figure] = {}
    for kind in sorted({kind for result in results for kind in result.differences}):
        rows = [(result.patient, value) for result in results for value in result.differences.get(kind, ())]
        told = [(patient, value) for patient, value in rows if not np.isnan(value)]
        figures |= _mean(f"{kind}_told", [(patient, float(not np.isnan(value))) for patient, value in rows], seed)
        figures |= _mean(f"{kind}_bias", told, seed)
        figures |= _mean(f"{kind}_error", [(patient, abs(value)) for patient, value in told], seed)
    return figures


def _mean(name: str, rows: Sequence[tuple[int, float]], seed: int) -> dict[str, Figure]:
    patients = np.array([patient for patient, _ in rows], dtype=np.int64)
    values = np.array([value for _, value in rows], dtype=np.float64)
    return with_intervals({name: _mean_of(values)}, patients, seed)


def _mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.int64]], float]:
    def mean(rows: NDArray[np.int64]) -> float:
        kept = values[rows]
        kept = kept[~np.isnan(kept)]
        return float(kept.mean()) if len(kept) else float("nan")

    return mean


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _json(figures: Mapping[str, Figure]) -> Document:
    return {name: figure.as_json() for name, figure in figures.items()}
