"""Which disc is L5-S1, the names above it, and how sure they are (stage 4, clinical model §1.1).

The sacrum is known by its wings: the first bone below a disc that is broad beside the back of its body.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.refusal import refusal
from ai_services.pipelines.lumbar_ct.canal import CanalPath
from ai_services.pipelines.lumbar_ct.discs import DiscPlane
from ai_services.pipelines.lumbar_ct.parameters import Parameters
from ai_services.pipelines.lumbar_ct.working_grid import STEP_MM, WorkingGrid
from ai_services.prediction import LUMBAR_DISC_LEVELS, Numbering

VERTEBRAE: tuple[str, ...] = ("L5", "L4", "L3", "L2", "L1", "T12")
SACRAL_DEPTH_MM = 14.0
"""Below the lowest disc, where the first sacral body is about half way down."""
BACK_THIRD_MM = 10.0
"""From the canal's front wall forward."""
MISSED_SHARE = 1.6
"""Two discs this much farther apart than usual: one between them was missed (as for MR, LARGEST_GAP_MM)."""
LOW_LAST_DISC = 0.45
"""POLICY: a last disc this low against the median hints at a transitional vertebra."""


@dataclass(frozen=True, slots=True)
class Column:
    """The lumbar part of the spine.

    Parameters
    ----------
    discs : from L5-S1 up; `levels` are their names
    vertebrae : names of the complete ones, between neighbouring discs, from L5 up
    """

    discs: tuple[DiscPlane, ...]
    levels: tuple[str, ...]
    vertebrae: tuple[str, ...]
    numbering: Numbering


def name_column(
    grid: WorkingGrid, bone: NDArray[np.bool_], canal: CanalPath, planes: list[DiscPlane], parameters: Parameters
) -> Column:
    """Find the sacrum and count from it.

    Parameters
    ----------
    bone : shape of the grid
    planes : from caudal to cranial

    Raises
    ------
    PipelineError
        ``sacrum-not-seen`` or ``incomplete-coverage``
    """
    widths = [_width_mm(grid, bone, canal, *spot) for spot in _middles(planes, canal)]
    sacral = [width >= parameters.sacral_width_mm for width in widths]
    if not any(sacral):
        raise refusal("sacrum-not-seen")
    # Below the broadest part the sacrum tapers, or the images end: count from where it stops being broad upwards.
    start = sacral.index(True)
    first = next((number for number in range(start, len(sacral)) if not sacral[number]), None)
    if first is None:
        raise refusal("incomplete-coverage", "no disc is seen above the sacrum", "骶骨以上未见椎间盘")
    discs = planes[first - 1 :][: len(LUMBAR_DISC_LEVELS)]
    if len(discs) < parameters.fewest_discs:
        raise refusal("incomplete-coverage", f"{len(discs)} discs are seen", f"仅见 {len(discs)} 个椎间盘")
    doubts, signs = _doubts(discs, widths[first], any(sacral[first:]), parameters)
    reasons = doubts + ([f"possible transitional vertebra: {', '.join(signs)}"] if signs else [])
    numbering = Numbering(
        "sacrum-only", confident=not reasons, reason="; ".join(reasons) or None, transitional=bool(signs)
    )
    count = len(discs)
    vertebrae = VERTEBRAE[: count - 1]
    return Column(tuple(discs), LUMBAR_DISC_LEVELS[:count], vertebrae, numbering)


def _doubts(
    discs: list[DiscPlane], last_width_mm: float, broad_above: bool, parameters: Parameters
) -> tuple[list[str], list[str]]:
    """What speaks against the count, and signs of a transitional vertebra, in words."""
    doubts, signs = [], []
    pitches = [float(np.linalg.norm(upper.centre - lower.centre)) for lower, upper in pairwise(discs)]
    if max(pitches) > MISSED_SHARE * float(np.median(pitches)):
        doubts.append("two discs lie far apart: one may have been missed")
    if broad_above:
        doubts.append("bone as broad as a sacrum lies above the disc counted as the lowest")
    if last_width_mm > parameters.transitional_width_mm:
        signs.append("a broad last lumbar body")
    heights = [disc.height_mm for disc in discs]
    if heights[0] < LOW_LAST_DISC * float(np.median(heights[1:])):
        signs.append("a low last disc")
    return doubts, signs


def _middles(planes: list[DiscPlane], canal: CanalPath) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Middle and cranial direction of the bone below each disc, then of that above the last."""
    if not planes:
        return []
    lowest, highest = planes[0], planes[-1]
    spots = [(lowest.centre - SACRAL_DEPTH_MM * lowest.normal, lowest.normal)]
    for lower, upper in pairwise(planes):
        direction = lower.normal + upper.normal
        spots.append(((lower.centre + upper.centre) / 2, direction / np.linalg.norm(direction)))
    return [*spots, (highest.centre + SACRAL_DEPTH_MM * highest.normal, highest.normal)]


def _width_mm(
    grid: WorkingGrid,
    bone: NDArray[np.bool_],
    canal: CanalPath,
    middle: NDArray[np.float64],
    cranial: NDArray[np.float64],
) -> float:
    """Bone without a gap across the back third of a body; the median of a few heights.

    `bone` is filled: marrow counts.
    """
    nearest = int(np.linalg.norm(canal.points - middle, axis=1).argmin())
    back = canal.points[nearest] - middle
    back -= (back @ cranial) * cranial
    depth = float(np.linalg.norm(back))
    back /= max(depth, 1e-6)
    left = np.cross(back, cranial)
    left *= np.sign(left[0]) or 1.0
    across = np.arange(-70.0, 70.5, STEP_MM)
    widths = []
    for height in (-4.0, -2.0, 0.0, 2.0, 4.0):
        for forward in (BACK_THIRD_MM + 4.0, BACK_THIRD_MM + 7.0):
            line = middle + (depth - forward) * back + height * cranial + across[:, None] * left
            inside = grid.sample(line, bone.astype(np.float32)) > 0.5
            inside = ndimage.binary_closing(np.pad(inside, 3), iterations=2)[3:-3]
            groups, _ = ndimage.label(inside)
            at = groups[len(across) // 2]
            widths.append(float((groups == at).sum() * STEP_MM) if at else 0.0)
    return float(np.median(widths))
