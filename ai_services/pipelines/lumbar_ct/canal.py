"""The bony canal as a path: rings of bone around soft tissue in axial sections, stacked into one chain (stage 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import UnivariateSpline

from ai_services.imaging.refusal import refusal
from ai_services.pipelines.lumbar_ct.parameters import Parameters
from ai_services.pipelines.lumbar_ct.working_grid import STEP_MM, WorkingGrid

LARGEST_STEP_MM = 42.0
"""From one ring to the next across a disc and its foramina."""
STEEPEST = 1.6
"""Sideways and backwards per millimetre upwards: a sacrum that leans by 58 degrees."""
LEAST_RADIUS_MM = 4.0
"""Of the largest circle in a ring: a bony canal is at least 10 mm deep but in the worst stenosis (POLICY)."""
SHORTEST_CHAIN_MM = 100.0
BEYOND_MM = 14.0
SMOOTH_MM = 2.0


@dataclass(frozen=True, slots=True)
class CanalPath:
    """The middle of the canal, a point a millimetre of its length, from caudal to cranial.

    Parameters
    ----------
    points : shape (point, 3), LPS millimetres
    cranial : shape (point, 3), unit tangents
    anterior : shape (point, 3), unit vectors at right angles to `cranial`, nearest to the patient's front
    rings : how many closed rings it rests on
    """

    points: NDArray[np.float64]
    cranial: NDArray[np.float64]
    anterior: NDArray[np.float64]
    rings: int


def find_canal(grid: WorkingGrid, parameters: Parameters) -> CanalPath:
    """Find the canal.

    Raises
    ------
    PipelineError
        ``not-lumbar-ct``: no chain of rings as long as a lumbar spine.
    """
    rings = _rings(grid, parameters)
    chain = _longest_chain(rings)
    if len(chain) < 8 or float(np.ptp(chain[:, 2])) < SHORTEST_CHAIN_MM:
        raise refusal("not-lumbar-ct", "no bony canal is seen", "未见连续的骨性椎管")
    return _smooth(chain, grid)


def _rings(grid: WorkingGrid, parameters: Parameters) -> NDArray[np.float64]:
    """Centres (x, y, z) of holes in bone that may be the canal, from caudal to cranial."""
    found = []
    cross = ndimage.generate_binary_structure(2, 1)
    for number, section in enumerate(grid.hu):
        bone = ndimage.binary_closing(np.pad(section > parameters.arch_hu, 2), cross, iterations=2)[2:-2, 2:-2]
        holes = ndimage.binary_fill_holes(bone) & ~bone
        groups, count = ndimage.label(holes)
        if not count:
            continue
        numbers = np.arange(1, count + 1)
        areas = ndimage.sum_labels(holes, groups, numbers) * STEP_MM**2
        means = ndimage.mean(section, groups, numbers)
        centres = ndimage.center_of_mass(holes, groups, numbers)
        deepest = ndimage.maximum(ndimage.distance_transform_edt(holes), groups, numbers) * STEP_MM
        for area, mean, deep, (row, column) in zip(areas, means, deepest, centres, strict=True):
            # Marrow of a spinous process is a hole too, and as soft in the old, but a narrow one.
            fits = deep >= LEAST_RADIUS_MM and parameters.canal_area_low_mm2 <= area <= parameters.canal_area_high_mm2
            if fits and parameters.canal_hu_low <= mean <= parameters.canal_hu_high:
                found.append(grid.to_lps(np.array([number, row, column])))
    return np.array(found).reshape(-1, 3)


def _longest_chain(rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chain of most rings, each within reach of the one below it (dynamic programming)."""
    if not len(rings):
        return rings
    best = np.ones(len(rings))
    before = np.full(len(rings), -1)
    for index in range(1, len(rings)):
        step = rings[index] - rings[:index]
        up = step[:, 2]
        aside = np.hypot(step[:, 0], step[:, 1])
        may = (up > 0) & (up <= LARGEST_STEP_MM) & (aside <= 2.0 + STEEPEST * up) & (np.abs(step[:, 0]) <= 3 + 0.5 * up)
        if may.any():
            score = np.where(may, best[:index] - 0.02 * aside, -np.inf)
            before[index] = int(score.argmax())
            best[index] = 1 + score[before[index]]
    index = int(best.argmax())
    chain = []
    while index >= 0:
        chain.append(rings[index])
        index = int(before[index])
    return np.array(chain[::-1])


def _smooth(chain: NDArray[np.float64], grid: WorkingGrid) -> CanalPath:
    """One smooth curve through the rings, a little longer than them, sampled by its length."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(chain, axis=0), axis=1))])
    weights = np.full(len(chain), 1 / SMOOTH_MM)
    splines = [UnivariateSpline(along, chain[:, axis], w=weights, k=3, s=len(chain)) for axis in range(3)]
    inner = np.arange(0.0, along[-1], STEP_MM)
    curve = np.stack([spline(inner) for spline in splines], axis=1)
    curve = np.concatenate([_beyond(curve, up=False), curve, _beyond(curve, up=True)])
    index = grid.to_index(curve)
    curve = curve[((index >= 0) & (index <= np.array(grid.hu.shape) - 1)).all(axis=1)]
    cranial = np.gradient(curve, axis=0)
    cranial = ndimage.uniform_filter1d(cranial, 15, axis=0, mode="nearest")
    cranial /= np.linalg.norm(cranial, axis=1, keepdims=True)
    front = np.array([0.0, -1.0, 0.0]) - cranial * -cranial[:, 1:2]
    anterior = front / np.linalg.norm(front, axis=1, keepdims=True)
    return CanalPath(curve, cranial, anterior, len(chain))


def _beyond(curve: NDArray[np.float64], *, up: bool) -> NDArray[np.float64]:
    """Straight on from one end."""
    end, inside = (curve[-1], curve[-31]) if up else (curve[0], curve[30])
    direction = (end - inside) / np.linalg.norm(end - inside)
    steps = np.arange(STEP_MM, BEYOND_MM, STEP_MM)[:, None] * direction
    result: NDArray[np.float64] = end + (steps if up else steps[::-1])
    return result
