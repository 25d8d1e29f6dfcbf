"""Which sagittal slices show the graded discs best, and where the discs' outlines run in them (stage 5). Pure.

Outlines are in the coordinates of graphic annotations, DICOM PS3.3 C.10.5: (column, row), the origin is the upper left
corner of the upper left pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from ai_services.prediction import Prediction

SEEN_SHARE = 0.5
"""A disc is shown by a slice that holds at least this share of its largest section."""
_SMOOTHING_PIXELS = 0.8
_TOLERANCE_PIXELS = 0.2


@dataclass(frozen=True, slots=True)
class KeySlice:
    """One slice that is a key image.

    Parameters
    ----------
    index : slice of the mask
    segments : numbers of the graded discs that are marked on it
    """

    index: int
    segments: tuple[int, ...]


def graded_discs(prediction: Prediction) -> tuple[int, ...]:
    """Segment numbers of the discs that have a finding, as the segments are ordered."""
    graded = {item.segment_number for item in prediction.findings if item.level is not None and item.value is not None}
    return tuple(item.number for item in prediction.segments if item.label == "disc" and item.number in graded)


def key_slices(prediction: Prediction) -> tuple[KeySlice, ...]:
    """Choose as few slices as show every graded disc; the first shows most. Empty where no disc was graded.

    In a straight spine that is one slice near the middle; a bent one needs more.
    """
    numbers = graded_discs(prediction)
    areas = np.array([(prediction.mask == number).sum(axis=(1, 2)) for number in numbers], dtype=np.float64)
    seen = np.flatnonzero(areas.sum(axis=1)) if numbers else np.zeros(0, dtype=np.intp)
    if not len(seen):
        return ()
    shares = np.zeros_like(areas)
    shares[seen] = areas[seen] / areas[seen].max(axis=1, keepdims=True)
    left, chosen = set(seen.tolist()), []
    while left:
        rows = sorted(left)
        # Of slices that show as much, the one in the middle of them: a disc's border slices are blurred.
        worth = (shares[rows] * (shares[rows] >= SEEN_SHARE)).sum(axis=0)
        best = np.flatnonzero(worth >= worth.max() - 1e-9)
        index = int(best[len(best) // 2])
        shown = [row for row in rows if shares[row, index] >= SEEN_SHARE]
        chosen.append(KeySlice(index, tuple(numbers[row] for row in shown)))
        left -= set(shown)
    return tuple(chosen)


def outline(section: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Closed outline of the largest piece of a section.

    Parameters
    ----------
    section : shape (row, column), not empty

    Returns
    -------
    shape (point, 2): column and row, the last point is the first; within the image
    """
    groups, count = ndimage.label(section)
    if count > 1:
        section = groups == int(np.bincount(groups.ravel())[1:].argmax()) + 1
    padded = np.pad(section.astype(np.float64), 2)
    # Smoothed, as the steps between pixels are no border of the disc; a piece too small for that keeps its steps.
    paths = find_contours(ndimage.gaussian_filter(padded, _SMOOTHING_PIXELS), 0.5) or find_contours(padded, 0.5)
    longest = max(paths, key=len)
    points = approximate_polygon(longest, _TOLERANCE_PIXELS)[:, ::-1] - 2 + 0.5
    result: NDArray[np.float64] = np.clip(points, 0, [section.shape[1], section.shape[0]])
    return result


def anterior_is_left(affine_lps: NDArray[np.float64]) -> bool:
    """Whether the patient's front lies towards the first column (LPS: +y is posterior)."""
    return bool(affine_lps[1, 2] >= 0)


def end_point(path: NDArray[np.float64], *, left: bool) -> tuple[float, float]:
    """The end of a disc's outline along its own length, on the left or right side."""
    centre = path.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((path - centre).T))
    axis = vectors[:, 1] * (1 if (vectors[0, 1] < 0) == left else -1)
    column, row = path[int(((path - centre) @ axis).argmax())]
    return float(column), float(row)


def spread(rows: Sequence[float], height: float, limits: tuple[float, float]) -> list[float]:
    """Centres as near to `rows` (ascending) as may be, no two closer than `height`, all within the limits."""
    placed: list[float] = []
    for row in rows:
        placed.append(max(row, limits[0], placed[-1] + height if placed else limits[0]))
    for index in reversed(range(len(placed))):
        above = placed[index + 1] - height if index + 1 < len(placed) else limits[1]
        placed[index] = min(placed[index], above)
    return placed
