"""Pedicle width and bony canal diameters of one vertebra, in the axes of that vertebra (stage 4).

Edges are where density passes `EDGE_HU` along a line in the original images, interpolated: partial volume moves an edge
by a part of a voxel, not by whole ones. Pedicle width: least transverse width of the pedicle at its isthmus. Canal
width: between the pedicles. Canal depth: from the body's back wall to the lamina in the midline, the least within the
closed ring (definitions as usual in CT morphometry; no normal range is used here).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_services.pipelines.lumbar_ct.instances import VertebraFrame

EDGE_HU = 280.0
"""POLICY: between muscle (about 55) and cortex after partial volume; tried on SYNTHETIC phantoms."""
FINE_MM = 0.2
BIAS_MM = 0.8
"""What SYNTHETIC phantoms show beyond voxels and scatter (docs/models/lumbar_ct.md)."""
PEDICLE_HEIGHTS_MM = (2.0, 3.5, 5.0, 6.5, 8.0)
ISTHMUS_MM = (2.0, 3.0, 4.0, 5.0, 6.0)
"""Behind the body's back wall; further back the transverse process begins."""
LEAST_PEDICLE_MM, LARGEST_PEDICLE_MM = 3.0, 24.0
LEAST_CANAL_MM, LARGEST_CANAL_MM = 6.0, 45.0

Sample = Callable[[NDArray[np.float64]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A number with the half width of its uncertainty, both in the same unit; `spread` is what it was found from."""

    value: float
    uncertainty: float


@dataclass(frozen=True, slots=True)
class Pedicle:
    """One pedicle where it is narrowest.

    Parameters
    ----------
    width : millimetres
    middle_mm : sideways from the middle of the vertebra to the middle of the pedicle, positive to the left
    inner_mm : sideways to its inner wall
    """

    width: Measured
    middle_mm: float
    inner_mm: float


def pedicle(sample: Sample, frame: VertebraFrame, side: int, edge_mm: float) -> Pedicle | None:
    """Measure a pedicle.

    Parameters
    ----------
    sample : HU at LPS points
    frame : of the vertebra
    side : 1 left, -1 right
    edge_mm : half width of the uncertainty of one edge, from the voxels

    Returns
    -------
    None where no closed pedicle is seen at its place
    """
    across = np.arange(2.0, 42.0, FINE_MM)
    found = []
    for behind in ISTHMUS_MM:
        for up in PEDICLE_HEIGHTS_MM:
            start = frame.point(0.0, frame.wall_mm + behind, up)
            values = sample(start + side * across[:, None] * frame.left)
            inner = first_edge(across, values, rising=True)
            if inner is None:
                continue
            # Marrow may be as soft as muscle: the outer wall is the last edge before 24 mm of soft tissue or the end.
            near = across <= inner + LARGEST_PEDICLE_MM
            outer = first_edge(across[near][::-1], values[near][::-1], rising=True)
            if outer is not None and LEAST_PEDICLE_MM < outer - inner < LARGEST_PEDICLE_MM - 1:
                found.append((outer - inner, inner, outer, up))
    if len(found) < 3:
        return None
    # The isthmus: per depth the widest height (the middle of the oval), of these the narrowest depths.
    table = np.array(found)
    central = table[np.abs(table[:, 3] - _middle_height(table)) <= 1.6]
    width = float(np.percentile(central[:, 0], 30))
    row = central[np.abs(central[:, 0] - width).argmin()]
    inner, outer = float(row[1]), float(row[2])
    spread = float(np.std(central[:, 0]))
    return Pedicle(
        Measured(width, float(np.hypot(2**0.5 * edge_mm, spread / 2))), side * (inner + outer) / 2, side * inner
    )


def _middle_height(table: NDArray[np.float64]) -> float:
    """Height of the widest section."""
    heights = np.unique(table[:, 3])
    means = [table[table[:, 3] == height, 0].mean() for height in heights]
    return float(heights[int(np.argmax(means))])


def canal_width(right: Pedicle | None, left: Pedicle | None, edge_mm: float) -> Measured | None:
    """Between the inner walls of both pedicles; None where one is not seen."""
    if right is None or left is None:
        return None
    value = left.inner_mm - right.inner_mm
    if not LEAST_CANAL_MM < value < LARGEST_CANAL_MM:
        return None
    return Measured(value, float(np.hypot(2**0.5 * edge_mm, BIAS_MM)))


def canal_depth(sample: Sample, frame: VertebraFrame, middle_mm: float, edge_mm: float) -> Measured | None:
    """Least midline distance from the back wall of the body to the lamina.

    Parameters
    ----------
    middle_mm : sideways, of the middle between the pedicles

    Returns
    -------
    None where no lamina closes the ring at any height
    """
    back = np.arange(-6.0, 32.0, FINE_MM)
    found = []
    for up in np.arange(-8.0, 6.1, 1.0):
        depths = []
        for aside in (-1.0, 0.0, 1.0):
            start = frame.point(middle_mm + aside, frame.canal_mm, float(up))
            values = sample(start + (back[:, None] + 0.0) * frame.posterior)
            middle = int(np.abs(back).argmin())
            front = first_edge(back[: middle + 1][::-1], values[: middle + 1][::-1], rising=True)
            rear = first_edge(back[middle:], values[middle:], rising=True)
            if front is None:  # the wall lies further forward than the path's middle allows for
                more = np.arange(-20.0, -4.0, FINE_MM)
                front = first_edge(more[::-1], sample(start + more[::-1, None] * frame.posterior), rising=True)
            if front is not None and rear is not None and LEAST_CANAL_MM < rear - front < LARGEST_CANAL_MM:
                depths.append(rear - front)
        if depths:
            found.append(float(np.median(depths)))
    if len(found) < 2:
        return None
    table = np.sort(np.array(found))
    value = float(np.mean(table[: max(2, len(table) // 3)]))
    return Measured(value, float(np.linalg.norm([2**0.5 * edge_mm, table.std() / 2, BIAS_MM])))


def first_edge(along: NDArray[np.float64], values: NDArray[np.floating], *, rising: bool) -> float | None:
    """Where values first pass `EDGE_HU`, between two samples; None where they start beyond it or never do."""
    beyond = values >= EDGE_HU if rising else values < EDGE_HU
    if beyond[0] or not beyond.any():
        return None
    first = int(beyond.argmax())
    low, high = float(values[first - 1]), float(values[first])
    share = (EDGE_HU - low) / (high - low) if high != low else 0.5
    return float(along[first - 1] + share * (along[first] - along[first - 1]))
