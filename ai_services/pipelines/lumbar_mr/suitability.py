"""Whether what the images show can be analysed: refused with a reason before anything is said of a disc (stage 4).

Headers may lie or be missing, so pixels and outlines are asked: blank, inverted, not a lumbar spine, another scale,
turned, cut off, metal. Ranges beside the limits were measured on 129 T2 images (25 of them volumes) and 99 T1 images of
SPIDER; what is refused and how: docs/models/robustness.md.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.refusal import refusal
from ai_services.pipelines.lumbar_mr.postprocess import Spine, disc_pitches_mm, longest_column
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM
from ai_services.pipelines.lumbar_mr.structures import CANAL, DISC, VERTEBRA

MINIMUM_DISCS = 3
MINIMUM_VERTEBRAE = 3
MINIMUM_VERTEBRA_AREA_MM2 = 150.0
MINIMUM_CANAL_LENGTH_MM = 60.0

BRIGHTEST_MEDIAN = 0.5
"""Median grey value of a normalised sagittal image; at most .44, so at least .56 inverted."""
PITCH_LIMITS_MM = (25.0, 48.0)
"""Median distance of neighbouring discs; 28.2 to 43.9 mm, but for one patient of 23 mm; about 20 mm in a neck."""
FEWEST_LUMBAR_DISCS = 5
"""L1-L2 to L5-S1; no T2 image showed fewer."""
BORDER_ROWS = 4
CORE_HALF_WIDTH_MM = 8.0
VOID_SHARE = 0.12
"""Of the bodies' usual brightness: darker is no marrow."""
LARGEST_VOID_MM2 = 60.0
"""At most 14 in T2 images of 172 patients (0.4.0)."""
COLUMN_SHARE = 0.75
RING_PIXELS = 3
ENCLOSED_SHARE = 0.6
LEAST_FLUID_RATIO = 0.80
"""Canal against marrow in the middle slice; at least .84 in T2, at most .77 in T1."""


def require_upright_grey(working: NDArray[np.float32]) -> None:
    """Refuse inverted grey values: around and inside a patient most of an MR image is dark.

    Parameters
    ----------
    working : shape (slice, row, column), normalised
    """
    if float(np.median(working)) > BRIGHTEST_MEDIAN:
        raise refusal("inverted-image")


def require_lumbar(spine: Spine) -> None:
    """Refuse a volume that does not show what a lumbar spine must show, whatever its header said.

    Raises
    ------
    PipelineError
        ``not-lumbar-mr``, ``implausible-scale`` or ``incomplete-coverage``
    """
    middle = spine.classes[middle_slice(spine)]
    groups, count = ndimage.label(middle == VERTEBRA)
    areas = np.bincount(groups.ravel())[1:] * WORKING_SPACING_MM**2 if count else np.zeros(0)
    vertebrae = int((areas >= MINIMUM_VERTEBRA_AREA_MM2).sum())
    canal_mm = float((middle == CANAL).any(axis=1).sum()) * WORKING_SPACING_MM
    column = longest_column(spine)
    if column < MINIMUM_DISCS or vertebrae < MINIMUM_VERTEBRAE or canal_mm < MINIMUM_CANAL_LENGTH_MM:
        raise refusal(
            "not-lumbar-mr",
            f"{column} discs in a row, {vertebrae} vertebrae, {canal_mm:.0f} mm of canal in the middle slice",
            f"相连椎间盘 {column} 个, 椎体 {vertebrae} 个, 中间层椎管长 {canal_mm:.0f} mm",
        )
    pitch = float(np.median(disc_pitches_mm(spine)))
    if not PITCH_LIMITS_MM[0] <= pitch <= PITCH_LIMITS_MM[1]:
        raise refusal("implausible-scale", f"{pitch:.0f} mm", f"{pitch:.0f} mm")
    require_covered(spine)


def require_covered(spine: Spine) -> None:
    """Refuse a spine that the lower border cuts, that shows fewer than five discs, or that lies beside the slices."""
    middle = spine.classes[middle_slice(spine)]
    if len(spine.discs) < FEWEST_LUMBAR_DISCS:
        count = len(spine.discs)
        raise refusal("incomplete-coverage", f"{count} discs are seen", f"仅见 {count} 个椎间盘")
    if (middle[-BORDER_ROWS:] > 0).any():
        raise refusal("incomplete-coverage", "the lower border cuts the spine", "下缘截断脊柱")
    if len(spine.classes) > 2 and middle_slice(spine) in (0, len(spine.classes) - 1):
        raise refusal("incomplete-coverage", "the slices end at the canal's middle", "层面未覆盖椎管两侧")


def middle_slice(spine: Spine) -> int:
    """The slice with most canal."""
    return int((spine.classes == CANAL).sum(axis=(1, 2)).argmax())


def require_t2(spine: Spine, working: NDArray[np.float32]) -> None:
    """Refuse T1 images that call themselves T2: fluid in the canal is brighter than marrow in T2 and darker in T1.

    Parameters
    ----------
    spine : structures on the working grid
    working : shape (slice, row, column), normalised
    """
    index = middle_slice(spine)
    grey, classes = working[index], spine.classes[index]
    ratio = float(np.median(grey[classes == CANAL])) / max(float(np.median(grey[classes == VERTEBRA])), 0.02)
    if ratio < LEAST_FLUID_RATIO:
        raise refusal("not-t2", f"canal {ratio:.2f} × marrow", f"椎管/骨髓信号比 {ratio:.2f}")


def require_no_metal(spine: Spine, working: NDArray[np.float32]) -> None:
    """Refuse signal voids in the column of bodies, as screws, cages and plates leave them.

    Parameters
    ----------
    spine : structures on the working grid
    working : shape (slice, row, column), normalised
    """
    void = largest_void_mm2(spine, working)
    if void > LARGEST_VOID_MM2:
        raise refusal("metal-artefact", f"{void:.0f} mm²", f"{void:.0f} mm²")


def largest_void_mm2(spine: Spine, working: NDArray[np.float32]) -> float:
    """Largest dark patch, in any slice, that bodies and discs enclose in the column; square millimetres."""
    core = _core(spine)
    largest = 0.0
    for index, classes in enumerate(spine.classes):
        bodies = classes == VERTEBRA
        # Slices beside the bodies show muscle and vessels where the column would be.
        if np.isin(classes[core], (VERTEBRA, DISC)).mean() < COLUMN_SHARE or not (bodies & core).any():
            continue
        level = VOID_SHARE * float(np.median(working[index][bodies & core]))
        groups, _ = ndimage.label(core & (working[index] < level) & (classes != DISC))
        areas = np.bincount(groups.ravel())[1:] * WORKING_SPACING_MM**2
        for label in np.flatnonzero(areas > largest) + 1:
            patch = groups == label
            ring = ndimage.binary_dilation(patch, iterations=RING_PIXELS) & core & ~patch
            # A curved spine leaves the band in some slices: what lies there is not in the column.
            if ring.any() and np.isin(classes[ring], (VERTEBRA, DISC)).mean() >= ENCLOSED_SHARE:
                largest = max(largest, float(areas[label - 1]))
    return largest


def _core(spine: Spine) -> NDArray[np.bool_]:
    """Band along the discs' centres, from the lowest to the highest, shape (row, column)."""
    shape = spine.classes.shape[1:]
    line = np.ones(shape, dtype=np.bool_)
    for lower, upper in pairwise(spine.discs):
        way = np.linspace(lower.centroid[1:], upper.centroid[1:], 60)
        rows, columns = np.rint(way).astype(np.intp).T
        line[np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1)] = False
    far = ndimage.distance_transform_edt(line) * WORKING_SPACING_MM
    near: NDArray[np.bool_] = far <= CORE_HALF_WIDTH_MM
    return near
