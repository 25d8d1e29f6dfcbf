"""Lumbar MR pipeline: one sagittal T2-like series in, one Prediction out; reads top-down (stage 4).

Design: clinical model §1; what may be claimed is in MODEL_CARD.md. Nothing here touches network or disk but weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.refusal import refusal
from ai_services.imaging.suitability import readable_headers, require_complete
from ai_services.imaging.volume import InvalidGeometryError, Volume
from ai_services.models.registry import Manifest
from ai_services.pipelines.lumbar_mr.crop import DiscPose, disc_crop, disc_pose, disc_scalars
from ai_services.pipelines.lumbar_mr.features import spine_features
from ai_services.pipelines.lumbar_mr.findings import (
    level_findings,
    level_not_seen,
    level_not_sure,
    levels_without,
    study_findings,
)
from ai_services.pipelines.lumbar_mr.grade import Calibration, DiscGrade, grade_discs
from ai_services.pipelines.lumbar_mr.infer import Networks
from ai_services.pipelines.lumbar_mr.measure import Section, canal_diameter_mm, disc_height_index
from ai_services.pipelines.lumbar_mr.numbering import assess_numbering
from ai_services.pipelines.lumbar_mr.outline import Outlined, networks_for, outline, prepared_of, require_usable
from ai_services.pipelines.lumbar_mr.patch import disc_patch
from ai_services.pipelines.lumbar_mr.postprocess import (
    CANAL,
    VERTEBRA,
    DiscInstance,
    Spine,
    disc_pitches_mm,
    to_original_resolution,
)
from ai_services.pipelines.lumbar_mr.preprocess import Prepared
from ai_services.pipelines.lumbar_mr.training_range import require_like_training
from ai_services.pipelines.lumbar_mr.uncertainty import LARGEST_DISC_ENTROPY
from ai_services.pipelines.lumbar_mr.vertebrae import tell_apart
from ai_services.pipelines.stopwatch import timed
from ai_services.prediction import DiscScores, Finding, Numbering, PipelineError, Prediction, Segment

VERTEBRA_SEGMENT, CANAL_SEGMENT, FIRST_DISC_SEGMENT = 1, 2, 3


def run(series: Sequence[Dataset], manifest: Manifest | None = None) -> Prediction:
    """Analyse one sagittal T2-like lumbar MR series.

    Parameters
    ----------
    series : the series' instances with pixel data, any order, as `series_selection` chose it
    manifest : the version that speaks; None for the one that the pipeline comes with

    Returns
    -------
    mask and findings in the grid of the original images

    Raises
    ------
    PipelineError
        Where the series cannot be read (``zero-slices``, ``missing-slices``, ``geometry-missing``, …), does not show a
        whole lumbar spine as it should be (``not-lumbar-mr``, ``incomplete-coverage``, …), or the model or the memory
        fails. All codes: `terminology.analysis_reasons`.
    """
    try:
        return _run(series, manifest)
    except MemoryError as exc:
        # Nothing of this study is kept; another moment, or a worker with more memory, may do.
        raise refusal("out-of-memory", retryable=True) from exc


def _run(series: Sequence[Dataset], manifest: Manifest | None) -> Prediction:
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        with readable_headers():
            require_complete(series)
        try:
            source = volume_from_datasets(series)
        except InvalidGeometryError as exc:
            raise PipelineError(exc.reason_code, exc.text_en, exc.text_zh) from exc
    networks = networks_for(manifest)
    analysis = analyse(source.volume, networks)
    with timed(seconds, "vertebrae"):
        mask, segments = tell_apart(analysis.mask, source.volume.affine_lps, analysis.segments)
    return Prediction(
        study_instance_uid=str(series[0].StudyInstanceUID),
        series_instance_uid=str(series[0].SeriesInstanceUID),
        sop_instance_uids=source.sop_instance_uids,
        mask=mask,
        affine_lps=source.volume.affine_lps,
        segments=segments,
        findings=analysis.findings,
        numbering=analysis.numbering,
        models=tuple(file.identity for file in networks.manifest.models.values()),
        seconds=seconds | analysis.seconds,
        discs=analysis.discs,
        providers=networks.providers,
    )


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the models say about one volume, before it is tied to the series it came from; as `Prediction` names it.

    All vertebrae are one segment here, as the network has it; `run` tells them apart.
    """

    mask: NDArray[np.uint8]
    segments: tuple[Segment, ...]
    findings: tuple[Finding, ...]
    numbering: Numbering
    discs: tuple[DiscScores, ...]
    seconds: dict[str, float]


def analyse(volume: Volume, networks: Networks) -> Analysis:
    """Analyse one sagittal T2-like volume.

    Raises
    ------
    PipelineError
        As `run`; what can be said of the series' header is not looked at.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "normalise"):
        prepared = prepared_of(volume)
    with timed(seconds, "segment"):
        outlined = outline(prepared, networks)
    with timed(seconds, "check"):
        require_usable(outlined, networks)
    return analysis_of(outlined, networks, seconds)


def analysis_of(outlined: Outlined, networks: Networks, seconds: dict[str, float] | None = None) -> Analysis:
    """Grade and measure what was outlined and found usable.

    Parameters
    ----------
    outlined : of `outline`, after `require_usable`
    seconds : of the stages before, which these join

    Raises
    ------
    PipelineError
        ``unlike-training``
    """
    seconds = {} if seconds is None else seconds
    prepared, spine = outlined.prepared, outlined.spine
    with timed(seconds, "instances"):
        oriented_mask = _mask(outlined)
    with timed(seconds, "grade"):
        poses = [disc_pose(spine, disc.label) for disc in spine.discs]
        grades = _grade(networks, outlined, poses)
    with timed(seconds, "measure"):
        findings = _findings(outlined, oriented_mask, poses, grades)
    return Analysis(
        mask=np.ascontiguousarray(prepared.orientation.undo(oriented_mask)),
        segments=name_segments(spine),
        findings=tuple(findings),
        numbering=assess_numbering(spine, outlined.uncertainty),
        discs=tuple(_scores(disc, grade) for disc, grade in zip(spine.discs, grades, strict=True)),
        seconds=seconds,
    )


def outlined_mask(outlined: Outlined) -> NDArray[np.uint8]:
    """Segment numbers of any outlined volume in the grid of its images, shape (slice, row, column); for evaluation."""
    return np.ascontiguousarray(outlined.prepared.orientation.undo(_mask(outlined)))


def _scores(disc: DiscInstance, grade: DiscGrade) -> DiscScores:
    return DiscScores(
        disc.label, disc.level, grade.morphology, grade.pfirrmann_probabilities, dict(grade.probabilities)
    )


def name_segments(spine: Spine) -> tuple[Segment, ...]:
    """Vertebrae (one segment for all), canal, then each disc from the lowest up."""
    discs = [
        Segment(_disc_segment(disc), "disc", f"{disc.level} disc" if disc.level else f"disc {disc.label}", disc.level)
        for disc in spine.discs
    ]
    return (
        Segment(VERTEBRA_SEGMENT, "vertebra", "vertebrae", None),
        Segment(CANAL_SEGMENT, "canal", "spinal canal", None),
        *discs,
    )


def _mask(outlined: Outlined) -> NDArray[np.uint8]:
    prepared, spine = outlined.prepared, outlined.spine
    shape = (prepared.oriented.shape[1], prepared.oriented.shape[2])
    if not (spine.classes > 0).any():
        return np.zeros(prepared.oriented.shape, dtype=np.uint8)
    return to_original_resolution(
        outlined.probability,
        spine,
        {VERTEBRA: VERTEBRA_SEGMENT, CANAL: CANAL_SEGMENT},
        {disc.label: _disc_segment(disc) for disc in spine.discs},
        shape,
        (prepared.spacing_mm[1], prepared.spacing_mm[2]),
    )


def measures_of(outlined: Outlined) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The measures of each disc that versions from 0.2 on are graded by, and the patches they were read from."""
    prepared, spine = outlined.prepared, outlined.spine
    poses = [disc_pose(spine, disc.label) for disc in spine.discs]
    patches = _parts(prepared, outlined.probability, poses, disc_patch)
    features, _ = spine_features(patches, range(len(patches)), disc_pitches_mm(spine))
    return features, patches


def _parts(
    prepared: Prepared,
    probability: NDArray[np.float32],
    poses: Sequence[DiscPose],
    cut: Callable[..., NDArray[np.float32]],
) -> NDArray[np.float32]:
    spacing = (prepared.spacing_mm[1], prepared.spacing_mm[2])
    return np.stack([cut(prepared.oriented[p.slice_index], spacing, probability[p.slice_index], p) for p in poses])


def _grade(networks: Networks, outlined: Outlined, poses: Sequence[DiscPose]) -> list[DiscGrade]:
    if networks.grades_features:
        features, patches = measures_of(outlined)
        require_like_training(features, networks.manifest)
        scores = networks.grade_features(features, patches)
    else:
        prepared, spine = outlined.prepared, outlined.spine
        crops = _parts(prepared, outlined.probability, poses, disc_crop)
        scores = networks.grade(crops, disc_scalars(prepared.working, outlined.probability, spine, poses))
    return grade_discs(scores, Calibration.from_mapping(networks.manifest.constants["calibration"]))


def _findings(
    outlined: Outlined,
    oriented_mask: NDArray[np.uint8],
    poses: Sequence[DiscPose],
    grades: Sequence[DiscGrade],
) -> list[Finding]:
    spine = outlined.spine
    slice_mm, row_mm, column_mm = outlined.prepared.spacing_mm
    findings: list[Finding] = []
    reported = []
    for disc, pose, grade, entropy in zip(spine.discs, poses, grades, outlined.uncertainty.discs, strict=True):
        if disc.level is None or disc.level == "T11-T12":
            continue
        reported.append(disc.level)
        number = _disc_segment(disc)
        if entropy > LARGEST_DISC_ENTROPY:
            findings += level_not_sure(disc.level, number)
            continue
        section = Section(oriented_mask[pose.slice_index], (row_mm, column_mm), slice_mm)
        neighbours = tuple(_disc_segment(other) for other in spine.discs if abs(other.label - disc.label) == 1)
        findings += level_findings(
            disc.level,
            number,
            grade,
            disc_height_index(section, number, pose, neighbours),
            canal_diameter_mm(section, CANAL_SEGMENT, pose),
            slice_mm,
            len(oriented_mask),
        )
    for level in levels_without(reported):
        findings += level_not_seen(level)
    return findings + study_findings()


def _disc_segment(disc: DiscInstance) -> int:
    return FIRST_DISC_SEGMENT + disc.label - 1
