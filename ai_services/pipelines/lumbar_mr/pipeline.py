"""Lumbar MR pipeline: one sagittal T2-like series in, one Prediction out; reads top-down (stage 4).

Design: clinical model §1; what may be claimed is in MODEL_CARD.md. Nothing here touches network or disk but weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.volume import InvalidGeometryError
from ai_services.models.runtime import ModelIntegrityError
from ai_services.pipelines.lumbar_mr.crop import DiscPose, disc_crop, disc_pose, disc_scalars
from ai_services.pipelines.lumbar_mr.findings import level_findings, level_not_seen, levels_without, study_findings
from ai_services.pipelines.lumbar_mr.grade import Calibration, DiscGrade, grade_discs
from ai_services.pipelines.lumbar_mr.infer import Networks, load_networks
from ai_services.pipelines.lumbar_mr.measure import Section, canal_diameter_mm, disc_height_index
from ai_services.pipelines.lumbar_mr.postprocess import (
    CANAL,
    VERTEBRA,
    DiscInstance,
    Spine,
    find_spine,
    longest_column,
    number_levels,
    to_original_resolution,
)
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM, Prepared, prepare
from ai_services.prediction import Finding, PipelineError, Prediction, Segment

VERTEBRA_SEGMENT, CANAL_SEGMENT, FIRST_DISC_SEGMENT = 1, 2, 3
MINIMUM_DISCS = 3
MINIMUM_VERTEBRAE = 3
MINIMUM_VERTEBRA_AREA_MM2 = 150.0
MINIMUM_CANAL_LENGTH_MM = 60.0


def run(series: Sequence[Dataset]) -> Prediction:
    """Analyse one sagittal T2-like lumbar MR series.

    Parameters
    ----------
    series : the series' instances with pixel data, any order, as `series_selection` chose it

    Returns
    -------
    mask and findings in the grid of the original images

    Raises
    ------
    PipelineError
        Where the series cannot be read (``zero-slices``, ``non-uniform-spacing``, ``geometry-missing``, …) or shows
        no lumbar spine (``not-lumbar-mr``).
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        try:
            source = volume_from_datasets(series)
        except InvalidGeometryError as exc:
            raise PipelineError(exc.reason_code, exc.text_en, exc.text_zh) from exc
    with _timed(seconds, "normalise"):
        prepared = prepare(source.volume)
    networks = _networks()
    with _timed(seconds, "segment"):
        probability = networks.segment(prepared.working, prepared.spacing_mm[0])
    with _timed(seconds, "instances"):
        spine = find_spine(probability, prepared.spacing_mm[0])
        require_lumbar(spine)
        segments = name_segments(spine)
        oriented_mask = _mask(probability, spine, prepared)
    with _timed(seconds, "grade"):
        poses = [disc_pose(spine, disc.label) for disc in spine.discs]
        grades = _grade(networks, prepared, probability, spine, poses)
    with _timed(seconds, "measure"):
        findings = _findings(prepared, spine, oriented_mask, poses, grades)
    return Prediction(
        study_instance_uid=str(series[0].StudyInstanceUID),
        series_instance_uid=str(series[0].SeriesInstanceUID),
        sop_instance_uids=source.sop_instance_uids,
        mask=np.ascontiguousarray(prepared.orientation.undo(oriented_mask)),
        affine_lps=source.volume.affine_lps,
        segments=segments,
        findings=tuple(findings),
        numbering=number_levels(spine),
        models=tuple(file.identity for file in networks.manifest.models.values()),
        seconds=seconds,
    )


def require_lumbar(spine: Spine) -> None:
    """Refuse a volume that does not show what a lumbar spine must show, whatever its header said.

    Raises
    ------
    PipelineError
        ``not-lumbar-mr``
    """
    middle = spine.classes[int((spine.classes == CANAL).sum(axis=(1, 2)).argmax())]
    groups, count = ndimage.label(middle == VERTEBRA)
    areas = np.bincount(groups.ravel())[1:] * WORKING_SPACING_MM**2 if count else np.zeros(0)
    vertebrae = int((areas >= MINIMUM_VERTEBRA_AREA_MM2).sum())
    canal_mm = float((middle == CANAL).any(axis=1).sum()) * WORKING_SPACING_MM
    column = longest_column(spine)
    if column < MINIMUM_DISCS or vertebrae < MINIMUM_VERTEBRAE or canal_mm < MINIMUM_CANAL_LENGTH_MM:
        raise PipelineError(
            "not-lumbar-mr",
            f"no lumbar spine is recognisable: {column} discs in a row, {vertebrae} vertebrae, "
            f"{canal_mm:.0f} mm of canal in the middle slice",
            f"未能识别出腰椎: 相连椎间盘 {column} 个, 椎体 {vertebrae} 个, 中间层椎管长 {canal_mm:.0f} mm",
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


def _networks() -> Networks:
    try:
        return load_networks()
    except ModelIntegrityError as exc:
        raise PipelineError("model-integrity", str(exc), "模型权重缺失或与发布版本不符, 已拒绝使用") from exc


def _mask(probability: NDArray[np.float32], spine: Spine, prepared: Prepared) -> NDArray[np.uint8]:
    shape = (prepared.oriented.shape[1], prepared.oriented.shape[2])
    return to_original_resolution(
        probability,
        spine,
        {VERTEBRA: VERTEBRA_SEGMENT, CANAL: CANAL_SEGMENT},
        {disc.label: _disc_segment(disc) for disc in spine.discs},
        shape,
        (prepared.spacing_mm[1], prepared.spacing_mm[2]),
    )


def _grade(
    networks: Networks,
    prepared: Prepared,
    probability: NDArray[np.float32],
    spine: Spine,
    poses: Sequence[DiscPose],
) -> list[DiscGrade]:
    spacing = (prepared.spacing_mm[1], prepared.spacing_mm[2])
    crops = np.stack(
        [disc_crop(prepared.oriented[p.slice_index], spacing, probability[p.slice_index], p) for p in poses]
    )
    scores = networks.grade(crops, disc_scalars(prepared.working, probability, spine, poses))
    return grade_discs(scores, Calibration.from_mapping(networks.manifest.constants["calibration"]))


def _findings(
    prepared: Prepared,
    spine: Spine,
    oriented_mask: NDArray[np.uint8],
    poses: Sequence[DiscPose],
    grades: Sequence[DiscGrade],
) -> list[Finding]:
    slice_mm, row_mm, column_mm = prepared.spacing_mm
    findings: list[Finding] = []
    reported = []
    for disc, pose, grade in zip(spine.discs, poses, grades, strict=True):
        if disc.level is None or disc.level == "T11-T12":
            continue
        section = Section(oriented_mask[pose.slice_index], (row_mm, column_mm), slice_mm)
        number = _disc_segment(disc)
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
        reported.append(disc.level)
    for level in levels_without(reported):
        findings += level_not_seen(level)
    return findings + study_findings()


def _disc_segment(disc: DiscInstance) -> int:
    return FIRST_DISC_SEGMENT + disc.label - 1


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 4)
