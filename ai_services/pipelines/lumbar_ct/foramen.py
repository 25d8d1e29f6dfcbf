"""Bony foramen of one level and side: height, width and area in the sagittal plane through the pedicles (stage 4).

Definitions (doi 10.26574/maedica.2018.13.4.294, PMC6362883): height from the lower border of the upper pedicle to the
upper border of the lower one; width from the back of the upper body or disc to the bone behind it. Here the width is
the median over the upper half of the height (cranial width); the area is what bone and the line of the back walls
enclose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.pipelines.lumbar_ct.bone_geometry import BIAS_MM, EDGE_HU, Measured, first_edge
from ai_services.pipelines.lumbar_ct.instances import VertebraFrame

FINE_MM = 0.25
LARGEST_HEIGHT_MM = 34.0
LEAST_HEIGHT_MM = 5.0
DEEPEST_MM = 20.0
"""Behind the back wall: what has no bone before it is open."""
PEDICLE_BACK_MM = (2.0, 3.5, 5.0)
OPEN_SHARE = 0.3
"""More of the height than this without bone behind: neither width nor area is told."""

Sample = Callable[[NDArray[np.float64]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Foramen:
    """What could be measured; `width` and `area` are None where bone does not close the foramen behind."""

    height: Measured
    width: Measured | None
    area: Measured | None


def foramen(
    sample: Sample,
    upper: VertebraFrame,
    lower_top: NDArray[np.float64] | None,
    upper_middle_mm: float,
    edge_mm: float,
) -> Foramen | None:
    """Measure a foramen.

    Parameters
    ----------
    sample : HU at LPS points
    upper : axes of the vertebra above
    lower_top : LPS point within the lower pedicle, level with the upper one in the sagittal plane; None where it is
        not known
    upper_middle_mm : sideways from the vertebra's middle to the middle of the upper pedicle
    edge_mm : half width of the uncertainty of one edge

    Returns
    -------
    None where the two pedicles are not seen
    """
    if lower_top is None:
        return None
    heights, tops = [], []
    for behind in PEDICLE_BACK_MM:
        start = upper.point(upper_middle_mm, upper.wall_mm + behind, 5.0)
        end = lower_top + (behind - PEDICLE_BACK_MM[1]) * upper.posterior
        found = _gap(sample, start, end)
        if found is not None:
            heights.append(found[1] - found[0])
            tops.append((start, end, found))
    if not heights:
        return None
    # The superior process reaches into the lower foramen: the tallest line is the one from pedicle to pedicle.
    tallest = int(np.argmax(heights))
    height = heights[tallest]
    spread = float(np.ptp(heights)) / 2 if len(heights) > 1 else 1.0
    measured = Measured(height, float(np.linalg.norm([2**0.5 * edge_mm, spread / 2, BIAS_MM])))
    width, area = _opening(sample, upper, tops[tallest], edge_mm)
    return Foramen(measured, width, area)


def _gap(sample: Sample, start: NDArray[np.float64], end: NDArray[np.float64]) -> tuple[float, float] | None:
    """From pedicle to pedicle along a line: where bone ends and where it begins again.

    The longest soft stretch between the two, so that marrow within a pedicle is none.
    """
    length = float(np.linalg.norm(end - start))
    along = np.arange(0.0, length, FINE_MM)
    if len(along) < 20:
        return None
    values = sample(start + along[:, None] * (end - start) / length)
    groups, count = ndimage.label(values < EDGE_HU)
    if not count:
        return None
    sizes = np.bincount(groups)[1:]
    inner = [n for n in range(1, count + 1) if groups[0] != n and groups[-1] != n] or list(range(1, count + 1))
    best = max(inner, key=lambda number: sizes[number - 1])
    places = np.flatnonzero(groups == best)
    first, last = int(places[0]), int(places[-1])
    if first == 0 or last == len(along) - 1:
        return None
    top = first_edge(along[first - 1 : first + 1][::-1], values[first - 1 : first + 1][::-1], rising=True)
    bottom = first_edge(along[last : last + 2], values[last : last + 2], rising=True)
    if top is None or bottom is None or not LEAST_HEIGHT_MM < bottom - top < LARGEST_HEIGHT_MM:
        return None
    return top, bottom


def _opening(
    sample: Sample,
    upper: VertebraFrame,
    line: tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]],
    edge_mm: float,
) -> tuple[Measured | None, Measured | None]:
    """Width and area: at each height from the line of the back walls to the first bone behind."""
    start, end, (top, bottom) = line
    direction = (end - start) / np.linalg.norm(end - start)
    backwards = upper.posterior - (upper.posterior @ direction) * direction
    backwards /= np.linalg.norm(backwards)
    front_mm = -PEDICLE_BACK_MM[1]
    back = np.arange(0.0, DEEPEST_MM, FINE_MM)
    heights = np.arange(top + 0.5, bottom, 0.5)
    widths = np.full(len(heights), np.nan)
    for number, height in enumerate(heights):
        origin = start + height * direction + front_mm * backwards
        values = sample(origin + back[:, None] * backwards)
        soft = np.flatnonzero(values < EDGE_HU)
        if not len(soft) or soft[0] * FINE_MM > 8.0:
            continue
        rest = slice(int(soft[0]), None)
        edge = first_edge(back[rest], values[rest], rising=True)
        if edge is not None:
            widths[number] = edge - back[int(soft[0])]
    closed = ~np.isnan(widths)
    if closed.mean() < 1 - OPEN_SHARE:
        return None, None
    filled = np.interp(heights, heights[closed], widths[closed])
    area = float(filled.sum() * 0.5)
    half = filled[: max(1, len(filled) // 2)]
    width = float(np.median(half))
    error = float(np.hypot(2**0.5 * edge_mm, 1.0))  # the line of the back walls is known to about a millimetre
    return Measured(width, error), Measured(area, float(error * (bottom - top)))
