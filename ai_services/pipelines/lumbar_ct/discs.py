"""Disc planes along the canal: a dip of density between two end plates, its plane turned to the deepest dip (stage 4).

Marrow of the old is no denser than a disc (see parameters.yaml), so end plates decide, not marrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.pipelines.lumbar_ct.canal import CanalPath
from ai_services.pipelines.lumbar_ct.parameters import Parameters
from ai_services.pipelines.lumbar_ct.working_grid import STEP_MM, FloatArray, WorkingGrid

TILTS_DEG = (-20.0, -10.0, 0.0, 10.0, 20.0)
PLATE_MM = (2, 9)
"""How far from a disc's middle its end plates are looked for."""
REACH_MM = 12
FINE_MM = 0.5
FIT_MM = ((8.0, 7.0), (11.0, 9.0), (15.0, 11.0), (15.0, 11.0))
"""Sideways and forward reach of each round of the fit."""
MIDDLE_MM = (6.0, 5.0)
FIT_SPREAD_MM = 6.0
FEWEST_COLUMNS = 8
LEAST_RISE_HU = 70.0


@dataclass(frozen=True, slots=True)
class DiscPlane:
    """One disc: its middle plane and where the end plates begin.

    Parameters
    ----------
    centre : LPS millimetres
    normal : unit, cranial
    left : unit, in the plane, to the patient's left
    below_mm, above_mm : from the middle down and up to where bone begins, in the middle of the disc
    contrast_hu : end plates over the disc
    """

    centre: NDArray[np.float64]
    normal: NDArray[np.float64]
    left: NDArray[np.float64]
    below_mm: float
    above_mm: float
    contrast_hu: float

    @property
    def height_mm(self) -> float:
        """Between the end plates, in the middle."""
        return self.below_mm + self.above_mm

    def distance(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Signed distance of LPS points from the plane, positive above."""
        result: NDArray[np.float64] = (np.asarray(points, dtype=np.float64) - self.centre) @ self.normal
        return result


def find_discs(grid: WorkingGrid, canal: CanalPath, parameters: Parameters) -> list[DiscPlane]:
    """Disc planes from caudal to cranial, also rudimentary ones within the sacrum."""
    contrast = _contrast_along(grid, canal, parameters.body_distance_mm)
    left, planes = contrast.copy(), []
    gap = round(parameters.least_disc_distance_mm / STEP_MM)
    while left.max(initial=-np.inf) >= parameters.least_disc_contrast_hu:
        place = int(left.argmax())
        left[max(0, place - gap) : place + gap + 1] = -np.inf
        plane = _plane(grid, canal, place, float(contrast[place]), parameters.body_distance_mm)
        if plane is not None:
            planes.append((place, plane))
    return [plane for _, plane in sorted(planes, key=lambda item: item[0])]


def _contrast_along(grid: WorkingGrid, canal: CanalPath, distance_mm: float) -> NDArray[np.float64]:
    """For each point of the path the contrast of a disc there, in the best of several tilts."""
    centres = canal.points + distance_mm * canal.anterior
    left = np.cross(canal.anterior, canal.cranial) * -1
    contrasts = []
    for tilt in np.radians(TILTS_DEG):
        forward = np.cos(tilt) * canal.anterior + np.sin(tilt) * canal.cranial
        spots = _ellipse(9.0, 8.0, 2.0)
        points = centres[:, None] + spots[None, :, :1] * left[:, None] + spots[None, :, 1:] * forward[:, None]
        contrasts.append(_dip(grid.sample(points)))
    result: NDArray[np.float64] = np.max(contrasts, axis=0)
    return result


def _dip(columns: FloatArray) -> NDArray[np.float64]:
    """How far density dips between two plates at each place, HU.

    Each column of points finds its own plates, as they are hollow and the plane may be askew; the median of columns
    speaks.

    Parameters
    ----------
    columns : shape (place, column): density along parallel lines, `STEP_MM` apart
    """
    near, far = PLATE_MM
    size = far - near + 1
    highest = ndimage.maximum_filter1d(columns, size, axis=0, mode="nearest")
    shift = near + (size - 1) // 2
    padded = np.pad(highest, ((shift, shift), (0, 0)), mode="edge")
    count = len(columns)
    above, below = padded[2 * shift : 2 * shift + count], padded[:count]
    smooth = ndimage.uniform_filter1d(columns, 3, axis=0, mode="nearest")
    result: NDArray[np.float64] = np.median(np.minimum(above, below) - smooth, axis=1).astype(np.float64)
    return result


def _plane(grid: WorkingGrid, canal: CanalPath, place: int, contrast: float, distance_mm: float) -> DiscPlane | None:
    """Fit the middle plane to the end plates that columns find, first near the middle, then over most of the disc."""
    normal = canal.cranial[place]
    forward = canal.anterior[place]
    centre = canal.points[place] + distance_mm * forward
    edges = None
    for reach in FIT_MM:
        sideways = np.cross(normal, forward)
        sideways *= np.sign(sideways[0]) or 1.0
        spots = _ellipse(*reach, 2.5)
        edges = _edges(grid, centre, normal, forward, sideways, spots)
        if edges is None:
            return None
        used, below, above = edges
        flat = np.column_stack([np.ones(len(used)), used])
        middle = (below + above) / 2
        keep = np.abs(middle - np.median(middle)) < FIT_SPREAD_MM
        for _ in range(2):
            fit = np.linalg.lstsq(flat[keep], middle[keep], rcond=None)[0]
            keep = np.abs(middle - flat @ fit) < 1.5
            if keep.sum() < FEWEST_COLUMNS:
                return None
        centre = centre + fit[0] * normal
        turned = normal - fit[1] * sideways - fit[2] * forward
        normal = turned / np.linalg.norm(turned)
        forward = forward - (forward @ normal) * normal
        forward /= np.linalg.norm(forward)
    sideways = np.cross(normal, forward)
    sideways *= np.sign(sideways[0]) or 1.0
    edges = _edges(grid, centre, normal, forward, sideways, _ellipse(*MIDDLE_MM, 2.0))
    if edges is None:
        return None
    below_mm, above_mm = -float(np.median(edges[1])), float(np.median(edges[2]))
    return DiscPlane(centre, normal, sideways, below_mm, above_mm, contrast)


def _edges(
    grid: WorkingGrid,
    centre: NDArray[np.float64],
    normal: NDArray[np.float64],
    forward: NDArray[np.float64],
    sideways: NDArray[np.float64],
    spots: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Of each line that meets two plates: its place (sideways, forward), and the heights where bone begins."""
    heights = np.arange(-REACH_MM, REACH_MM + FINE_MM / 2, FINE_MM)
    columns = ndimage.uniform_filter1d(
        _columns(grid, centre, normal, forward, sideways, heights, spots).astype(np.float64), 3, axis=0, mode="nearest"
    )
    near = np.flatnonzero(np.abs(heights) <= 4)
    found = []
    for number in range(columns.shape[1]):
        column = columns[:, number]
        low = int(near[column[near].argmin()])
        up, down = _rise(column[low:]), _rise(column[low::-1])
        if up is not None and down is not None:
            found.append((*spots[number], heights[low] - down * FINE_MM, heights[low] + up * FINE_MM))
    if len(found) < FEWEST_COLUMNS:
        return None
    table = np.array(found)
    return table[:, :2], table[:, 2], table[:, 3]


def _columns(
    grid: WorkingGrid,
    centre: NDArray[np.float64],
    normal: NDArray[np.float64],
    forward: NDArray[np.float64],
    sideways: NDArray[np.float64],
    heights: NDArray[np.float64],
    spots: NDArray[np.float64],
) -> FloatArray:
    """HU along lines parallel to a normal, shape (height, line)."""
    plane = spots[:, :1] * sideways + spots[:, 1:] * forward
    points = centre + heights[:, None, None] * normal + plane[None]
    return grid.sample(points)


def _rise(profile: NDArray[np.float64]) -> float | None:
    """Fractional steps to half way up to the first plate; None where none rises high enough."""
    reach = profile[: round(PLATE_MM[1] / FINE_MM) + 1]
    peak = int(reach.argmax())
    if peak == 0 or reach[peak] - profile[0] < LEAST_RISE_HU:
        return None
    half = (profile[0] + profile[peak]) / 2
    first = int(np.flatnonzero(profile[: peak + 1] >= half)[0])
    before = profile[first - 1]
    return first - 1 + float((half - before) / max(profile[first] - before, 1e-6))


def _ellipse(sideways_mm: float, forward_mm: float, step_mm: float) -> NDArray[np.float64]:
    """Points in an ellipse, shape (point, 2): sideways and forward."""
    across = np.arange(-sideways_mm, sideways_mm + 0.1, step_mm)
    deep = np.arange(-forward_mm, forward_mm + 0.1, step_mm)
    points = np.stack(np.meshgrid(across, deep, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = (points[:, 0] / sideways_mm) ** 2 + (points[:, 1] / forward_mm) ** 2 <= 1.0 + 1e-9
    result: NDArray[np.float64] = points[inside]
    return result
