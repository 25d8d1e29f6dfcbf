"""Lumbar CT pipeline: one thin-slice CT series in, one Prediction out; reads top-down (stage 4).

Design: clinical model §1, docs/adr/0057. What may be claimed is in MODEL_CARD.md: nothing clinical. Nothing here
touches network or disk but the released constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from ai_services.imaging.refusal import refusal
from ai_services.imaging.suitability import readable_headers, require_complete
from ai_services.imaging.volume import Volume
from ai_services.models.registry import Manifest, load_manifest
from ai_services.models.runtime import ModelIntegrityError
from ai_services.pipelines.lumbar_ct.bone_geometry import Pedicle, canal_depth, canal_width, pedicle
from ai_services.pipelines.lumbar_ct.canal import find_canal
from ai_services.pipelines.lumbar_ct.column import Column, name_column
from ai_services.pipelines.lumbar_ct.discs import find_discs
from ai_services.pipelines.lumbar_ct.facets import facet, tropism
from ai_services.pipelines.lumbar_ct.findings import COARSE_SLICE_MM, Sided, finding, sided_findings
from ai_services.pipelines.lumbar_ct.foramen import PEDICLE_BACK_MM, Foramen, Sample, foramen
from ai_services.pipelines.lumbar_ct.hounsfield import read_hounsfield
from ai_services.pipelines.lumbar_ct.instances import (
    SACRUM,
    VertebraFrame,
    filled_bone,
    label_vertebrae,
    vertebra_frames,
)
from ai_services.pipelines.lumbar_ct.parameters import Parameters, load_parameters
from ai_services.pipelines.lumbar_ct.working_grid import OUTSIDE_HU, WorkingGrid, onto_original, working_grid
from ai_services.pipelines.stopwatch import timed
from ai_services.prediction import Finding, FindingQuality, Numbering, Prediction, Segment

NOTICE_EN = (
    "SYNTHETIC-trained and UNVERIFIED: this method was made and checked on SYNTHETIC phantoms only, "
    "not on CT of patients"
)
NOTICE_ZH = "基于合成数据 SYNTHETIC, 未经验证 UNVERIFIED: 本方法仅在合成模型上建立和检验, 未用患者 CT 验证"
SIDES = (-1, 1)


@dataclass(frozen=True, slots=True)
class CtAnalysis:
    """What geometry says about one volume, before it is tied to the series it came from.

    Parameters
    ----------
    labels : uint8, shape of the volume: segment numbers
    frames : axes of the complete vertebrae, from L5 up; `body` and `arch` are segment numbers
    """

    labels: NDArray[np.uint8]
    segments: tuple[Segment, ...]
    findings: tuple[Finding, ...]
    numbering: Numbering
    frames: tuple[VertebraFrame, ...]
    seconds: dict[str, float]


def run(series: Sequence[Dataset], manifest: Manifest | None = None) -> Prediction:
    """Analyse one lumbar CT series.

    Parameters
    ----------
    series : the series' instances with pixel data, any order, as `select_ct_series` chose it
    manifest : the version that speaks; None for the one that the pipeline comes with

    Raises
    ------
    PipelineError
        ``not-hounsfield``, ``sacrum-not-seen``, ``incomplete-coverage``, …; all codes: `terminology.analysis_reasons`
    """
    used = manifest or load_manifest("lumbar_ct")
    try:
        parameters = load_parameters(used)
        seconds: dict[str, float] = {}
        with timed(seconds, "read"):
            with readable_headers():
                require_complete(series)
            source = read_hounsfield(series, parameters)
        analysis = analyse(source.volume, parameters)
    except MemoryError as exc:
        raise refusal("out-of-memory", retryable=True) from exc
    except ModelIntegrityError as exc:
        raise refusal("model-integrity", str(exc)) from exc
    return Prediction(
        study_instance_uid=str(series[0].StudyInstanceUID),
        series_instance_uid=str(series[0].SeriesInstanceUID),
        sop_instance_uids=source.sop_instance_uids,
        mask=analysis.labels,
        affine_lps=source.volume.affine_lps,
        segments=analysis.segments,
        findings=analysis.findings,
        numbering=analysis.numbering,
        models=tuple(file.identity for file in used.models.values()),
        seconds=seconds | analysis.seconds,
        modality="CT",
        notice_en=NOTICE_EN,
        notice_zh=NOTICE_ZH,
    )


def analyse(volume: Volume, parameters: Parameters) -> CtAnalysis:
    """Analyse one volume of Hounsfield units.

    Raises
    ------
    PipelineError
        As `run`; what can be said of the series' header is not looked at.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "resample"):
        grid = working_grid(volume, parameters.bone_hu, parameters.half_width_mm, parameters.half_depth_mm)
    with timed(seconds, "column"):
        canal = find_canal(grid, parameters)
        planes = find_discs(grid, canal, parameters)
        bone = filled_bone(grid, canal, parameters)
        column = name_column(grid, bone, canal, planes, parameters)
    with timed(seconds, "instances"):
        frames = vertebra_frames(grid, bone, canal, column)
        labels = label_vertebrae(grid, bone, canal, column, frames, parameters)
    with timed(seconds, "measure"):
        findings = _findings(volume, grid, labels, column, frames)
    segments = name_segments(frames)
    for segment in segments:
        if not (labels == segment.number).any():
            raise refusal("not-lumbar-ct", f"{segment.name} was not found", f"未找到 {segment.name}")
    return CtAnalysis(
        np.ascontiguousarray(onto_original(labels, grid, volume)),
        segments,
        tuple(findings),
        column.numbering,
        tuple(frames),
        seconds,
    )


def name_segments(frames: Sequence[VertebraFrame]) -> tuple[Segment, ...]:
    """The upper sacrum, then body and arch of each complete vertebra from L5 up."""
    segments = [Segment(SACRUM, "vertebra", "upper sacrum", "S1")]
    for frame in frames:
        segments.append(Segment(frame.body, "vertebra-body", f"{frame.name} vertebral body", frame.name))
        segments.append(Segment(frame.arch, "vertebra-arch", f"{frame.name} vertebral arch", frame.name))
    return tuple(segments)


def _findings(
    volume: Volume, grid: WorkingGrid, labels: NDArray[np.uint8], column: Column, frames: Sequence[VertebraFrame]
) -> list[Finding]:
    def sample(points: NDArray[np.float64]) -> NDArray[np.float32]:
        index = np.moveaxis(volume.to_index(points), -1, 0)
        result: NDArray[np.float32] = ndimage.map_coordinates(
            volume.array, index, order=1, mode="constant", cval=OUTSIDE_HU
        )
        return result

    thickest = max(volume.spacing_mm)
    quality: FindingQuality = "low_resolution" if thickest > COARSE_SLICE_MM else "ok"
    edge_mm = 0.3 * max(volume.spacing_mm[1:])
    found: list[Finding] = []
    pedicles = [[pedicle(sample, frame, side, edge_mm) for side in SIDES] for frame in frames]
    for number, frame in enumerate(frames):
        level = column.levels[number]
        lower = SACRUM if number == 0 else frames[number - 1].arch
        joints = [facet(grid, labels, column.discs[number], frame, frame.arch, lower, side) for side in SIDES]
        angles = Sided(*(joint.angle if joint else None for joint in joints))
        found += sided_findings("facet-angle", level, angles, frame.arch, quality)
        found.append(finding("facet-tropism", level, tropism(*joints), frame.arch, quality))
        found += _foramina(sample, level, number, frames, pedicles, edge_mm, quality)
    for frame, (right, left) in zip(frames, pedicles, strict=True):
        widths = Sided(right.width if right else None, left.width if left else None)
        found += sided_findings("pedicle-width", frame.name, widths, frame.arch, quality)
        middle = (right.inner_mm + left.inner_mm) / 2 if right and left else 0.0
        width, depth = canal_width(right, left, edge_mm), canal_depth(sample, frame, middle, edge_mm)
        found.append(finding("canal-width-bone", frame.name, width, frame.arch, quality))
        found.append(finding("canal-ap-bone", frame.name, depth, frame.arch, quality))
    return found


def _foramina(
    sample: Sample,
    level: str,
    number: int,
    frames: Sequence[VertebraFrame],
    pedicles: Sequence[Sequence[Pedicle | None]],
    edge_mm: float,
    quality: FindingQuality,
) -> list[Finding]:
    """Height, width and area of both foramina between a vertebra and the one below it."""
    frame = frames[number]
    seen: list[Foramen | None] = []
    for index in range(len(SIDES)):
        upper = pedicles[number][index]
        lower = pedicles[number - 1][index] if number else None
        if upper is None or lower is None:
            seen.append(None)
            continue
        below = frames[number - 1]
        inside = below.point(lower.middle_mm, below.wall_mm + PEDICLE_BACK_MM[1], 5.0)
        seen.append(foramen(sample, frame, inside, upper.middle_mm, edge_mm))
    found: list[Finding] = []
    for code, name in (("foramen-height", "height"), ("foramen-width", "width"), ("foramen-area", "area")):
        sides = Sided(*(getattr(one, name) if one else None for one in seen))
        found += sided_findings(code, level, sides, frame.arch, quality, sacral=number == 0)
    return found
