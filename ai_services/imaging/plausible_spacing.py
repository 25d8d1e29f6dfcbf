"""Pixel spacing that a table gives wrongly, mended by what a lumbar spine can measure (stage 4).

For images that came without DICOM headers only: derived PNGs were resampled without their table being told, so
that rows and columns differ in scale. A DICOM header is never overruled.
"""

from __future__ import annotations

import numpy as np

USUAL_PITCH_OVER_DEPTH = 1.03  # median over 133 square SPIDER images, standard deviation 11 %
PITCH_RANGE_MM = (28.0, 44.0)
DEPTH_RANGE_MM = (24.0, 48.0)
USUAL_MM = 35.0
SLACK = 0.03


def plausible_spacing(
    shape: tuple[int, int], spacing_mm: tuple[float, float], pitch_mm: float, depth_mm: float
) -> tuple[float, float]:
    """Row and column spacing under which the discs have a usual distance and depth.

    A square image keeps its square pixels. In another one the true field of view may have been square too: the row
    spacing is chosen between both readings so that pitch over depth comes closest to the usual.

    Parameters
    ----------
    shape : rows and columns
    spacing_mm : row and column spacing under which was measured; the column spacing is the table's
    pitch_mm, depth_mm : median distance between neighbouring discs, and their median anteroposterior size
    """
    rows, columns = shape
    row_mm, column_mm = spacing_mm
    chosen = column_mm
    if rows != columns:
        readings = (column_mm, column_mm * columns / rows)
        wanted = row_mm * USUAL_PITCH_OVER_DEPTH / (pitch_mm / depth_mm)
        chosen = float(np.clip(wanted, min(readings) * (1 - SLACK), max(readings) * (1 + SLACK)))
    scale = _scale(pitch_mm * chosen / row_mm, depth_mm)
    return chosen * scale, column_mm * scale


def _scale(pitch_mm: float, depth_mm: float) -> float:
    if depth_mm > DEPTH_RANGE_MM[1]:
        return USUAL_MM / depth_mm
    if PITCH_RANGE_MM[0] <= pitch_mm <= PITCH_RANGE_MM[1]:
        return 1.0
    scale = USUAL_MM / pitch_mm
    return scale if DEPTH_RANGE_MM[0] <= depth_mm * scale <= DEPTH_RANGE_MM[1] else 1.0
