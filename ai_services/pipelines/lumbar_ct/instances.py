"""Vertebrae one by one: bodies between disc planes, arches grown from them, parted at the joints (stage 4).

Meyer's watershed (skimage.segmentation.watershed) floods dense bone first, so that two neighbours meet where density
is least: in the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from ai_services.pipelines.lumbar_ct.canal import CanalPath
from ai_services.pipelines.lumbar_ct.column import Column
from ai_services.pipelines.lumbar_ct.discs import DiscPlane
from ai_services.pipelines.lumbar_ct.parameters import Parameters
from ai_services.pipelines.lumbar_ct.working_grid import STEP_MM, FloatArray, WorkingGrid

BoolArray = NDArray[np.bool_]
SACRUM = 1
FIRST_BODY = 2
"""Labels: sacrum 1, then for each vertebra from L5 up its body (2, 4, …) and its arch (3, 5, …)."""
UNFINISHED = 250
HALF_BODY_MM = 40.0
PEDICLE_UP_MM = (-1.0, 9.0)
PEDICLE_BACK_MM = 11.0
LAMINA_UP_MM = (-11.0, 1.0)
LAMINA_ASIDE_MM = 7.0
LAMINA_BACK_MM = 10.0
USUAL_HALF_HEIGHT_MM = 13.5
REACH_MM = 56.0
"""From the canal's middle sideways: transverse processes, not ribs and iliac bones."""


@dataclass(frozen=True, slots=True)
class VertebraFrame:
    """Axes of one vertebra.

    Parameters
    ----------
    name : ``L4``
    body, arch : its labels
    origin : centre of the body, LPS millimetres
    cranial, posterior, left : unit vectors at right angles
    wall_mm : from `origin` back to the front wall of the canal
    canal_mm : from `origin` back to the middle of the canal
    """

    name: str
    body: int
    arch: int
    origin: NDArray[np.float64]
    cranial: NDArray[np.float64]
    posterior: NDArray[np.float64]
    left: NDArray[np.float64]
    wall_mm: float
    canal_mm: float

    def point(self, left: float, back: float, up: float) -> NDArray[np.float64]:
        """LPS point of coordinates in this frame."""
        result: NDArray[np.float64] = self.origin + left * self.left + back * self.posterior + up * self.cranial
        return result


def filled_bone(grid: WorkingGrid, canal: CanalPath, parameters: Parameters) -> BoolArray:
    """Bone with its marrow: what dense bone encloses in axial sections, the canal left out."""
    cross = ndimage.generate_binary_structure(2, 1)
    dense = grid.hu > parameters.bone_hu
    filled = np.zeros_like(dense)
    for number, section in enumerate(dense):
        closed = ndimage.binary_closing(np.pad(section, 2), cross, iterations=1)[2:-2, 2:-2]
        filled[number] = ndimage.binary_fill_holes(closed)
    return _without_canal(filled, dense, grid, canal)


def _arch_bone(grid: WorkingGrid, canal: CanalPath, parameters: Parameters) -> BoolArray:
    """The same for thin bone: holes at least three voxels wide are marrow, narrower ones are joint spaces."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    dense = grid.hu > parameters.arch_hu
    filled = np.stack([ndimage.binary_fill_holes(section) for section in dense])
    holes = _without_canal(filled, dense, grid, canal) & ~dense
    wide = ndimage.binary_dilation(ndimage.binary_opening(holes, cross), cross)
    result: BoolArray = dense | (holes & wide)
    return result


def _without_canal(filled: BoolArray, dense: BoolArray, grid: WorkingGrid, canal: CanalPath) -> BoolArray:
    """The canal is a hole in bone too: empty the hole that its middle lies in."""
    for z, y, x in np.rint(grid.to_index(canal.points)).astype(int):
        if filled[z, y, x] and not dense[z, y, x]:
            hole, _ = ndimage.label(filled[z] & ~dense[z])
            filled[z] &= hole != hole[y, x]
    return filled


def vertebra_frames(grid: WorkingGrid, bone: BoolArray, canal: CanalPath, column: Column) -> list[VertebraFrame]:
    """Axes of the complete vertebrae, from L5 up."""
    frames = []
    for number, name in enumerate(column.vertebrae):
        lower, upper = column.discs[number], column.discs[number + 1]
        cranial = lower.normal + upper.normal
        cranial /= np.linalg.norm(cranial)
        origin = (lower.centre + lower.above_mm * lower.normal + upper.centre - upper.below_mm * upper.normal) / 2
        nearest = canal.points[int(np.linalg.norm(canal.points - origin, axis=1).argmin())]
        posterior = nearest - origin
        posterior -= (posterior @ cranial) * cranial
        posterior /= np.linalg.norm(posterior)
        left = np.cross(posterior, cranial)
        left *= np.sign(left[0]) or 1.0
        canal_mm = float((nearest - origin) @ posterior)
        label = FIRST_BODY + 2 * number
        wall = _wall_mm(grid, bone, origin, posterior, left, cranial, canal_mm)
        frames.append(VertebraFrame(name, label, label + 1, origin, cranial, posterior, left, wall, canal_mm))
    return frames


def _wall_mm(
    grid: WorkingGrid,
    bone: BoolArray,
    origin: NDArray[np.float64],
    posterior: NDArray[np.float64],
    left: NDArray[np.float64],
    cranial: NDArray[np.float64],
    canal_mm: float,
) -> float:
    """From the body's centre back to the canal: where filled bone ends, the median of several lines."""
    back = np.arange(6.0, canal_mm + 4.0, 0.25)
    ends = []
    for aside in (-5.0, -2.5, 0.0, 2.5, 5.0):
        for up in (-8.0, -5.0, -2.0, 1.0, 4.0, 7.0):
            line = origin + aside * left + up * cranial + back[:, None] * posterior
            outside = np.flatnonzero(grid.sample(line, bone.astype(np.float32)) < 0.5)
            if len(outside):
                ends.append(float(back[outside[0]]))
    return float(np.median(ends)) if ends else canal_mm - 7.0


def label_vertebrae(
    grid: WorkingGrid,
    bone: BoolArray,
    canal: CanalPath,
    column: Column,
    frames: list[VertebraFrame],
    parameters: Parameters,
) -> NDArray[np.uint8]:
    """Labels of sacrum, bodies and arches in the shape of the grid.

    Parameters
    ----------
    bone : of `filled_bone`
    frames : of `vertebra_frames`
    """
    x, y, z = grid.points()
    beside = np.abs(x - _canal_x(grid, canal)) < REACH_MM
    labels = np.zeros(grid.hu.shape, dtype=np.int32)
    for number, frame in enumerate(frames):
        lower, upper = column.discs[number], column.discs[number + 1]
        between = (_distance(lower, x, y, z) > lower.above_mm) & (_distance(upper, x, y, z) < -upper.below_mm)
        dense = grid.hu > parameters.bone_hu
        slab = (_distance(lower, x, y, z) > 0) & (_distance(upper, x, y, z) < 0)
        back = _along(frame, frame.posterior, x, y, z)
        aside = np.abs(_along(frame, frame.left, x, y, z))
        region = (back < frame.wall_mm) & (back > -HALF_BODY_MM) & (aside < HALF_BODY_MM)
        found = region & ((bone & between) | (dense & slab))
        labels[_main(ndimage.binary_opening(found) & found)] = frame.body
    lowest = column.discs[0]
    sacrum = bone & beside & (_distance(lowest, x, y, z) < -lowest.below_mm)
    labels[sacrum & (labels == 0) & (_distance(lowest, x, y, z) > -60.0)] = SACRUM
    # The disc spaces stay empty in front of the canal: end plate spurs belong to nobody.
    mask = (
        ((labels > 0) | _arch_bone(grid, canal, parameters)) & beside & ((labels > 0) | _behind_walls(frames, x, y, z))
    )
    height = -ndimage.gaussian_filter(np.clip(grid.hu, -200, 1200), 0.6)
    labels[(labels == SACRUM) & ~_core_of_sacrum(lowest, x, y, z)] = 0
    markers = labels.copy()
    for frame in [*frames, _next_above(column.discs[-1], frames[-1])]:
        markers[_sure_arch(frame, x, y, z) & mask & (labels == 0)] = frame.body
    grown = watershed(height, markers, mask=mask)
    result = np.where(labels > 0, labels, 0)
    for frame in frames:
        new = (grown == frame.body) & (labels == 0)
        behind = _along(frame, frame.posterior, x, y, z) >= frame.wall_mm
        result[_main(new & behind)] = frame.arch
    result[(grown == SACRUM) & (labels == 0)] = SACRUM
    return result.astype(np.uint8)


def _sure_arch(frame: VertebraFrame, x: FloatArray, y: FloatArray, z: FloatArray) -> BoolArray:
    """Where no neighbour reaches: the pedicles, beside the upper half of the body, and the lamina in the midline."""
    back = _along(frame, frame.posterior, x, y, z) - frame.wall_mm
    up = _along(frame, frame.cranial, x, y, z)
    aside = np.abs(_along(frame, frame.left, x, y, z))
    pedicle = (up > PEDICLE_UP_MM[0]) & (up < PEDICLE_UP_MM[1]) & (back >= 0) & (back < PEDICLE_BACK_MM)
    lamina = (up > LAMINA_UP_MM[0]) & (up < LAMINA_UP_MM[1]) & (aside < LAMINA_ASIDE_MM) & (back > LAMINA_BACK_MM)
    result: BoolArray = pedicle | lamina
    return result


def _next_above(highest: DiscPlane, below: VertebraFrame) -> VertebraFrame:
    """Where the vertebra above the highest disc stands; it is not whole, and only keeps its own from its neighbour."""
    origin = highest.centre + (highest.above_mm + USUAL_HALF_HEIGHT_MM) * highest.normal
    posterior = below.posterior - (below.posterior @ highest.normal) * highest.normal
    posterior /= np.linalg.norm(posterior)
    return VertebraFrame(
        "", UNFINISHED, UNFINISHED, origin, highest.normal, posterior, below.left, below.wall_mm, below.canal_mm
    )


def _core_of_sacrum(lowest: DiscPlane, x: FloatArray, y: FloatArray, z: FloatArray) -> BoolArray:
    """Well below the lowest disc: what lies nearer may be a joint with L5, and is decided by the watershed."""
    result: BoolArray = _distance(lowest, x, y, z) < -lowest.below_mm - 4.0
    return result


def _behind_walls(frames: list[VertebraFrame], x: FloatArray, y: FloatArray, z: FloatArray) -> BoolArray:
    """Behind the front wall of the canal, by the vertebra that is nearest in height."""
    heights = np.stack([np.abs(_along(frame, frame.cranial, x, y, z)).astype(np.float32) for frame in frames])
    nearest = heights.argmin(axis=0)
    behind = np.zeros(nearest.shape, dtype=np.bool_)
    for number, frame in enumerate(frames):
        behind |= (nearest == number) & (_along(frame, frame.posterior, x, y, z) >= frame.wall_mm)
    return behind


def _canal_x(grid: WorkingGrid, canal: CanalPath) -> FloatArray:
    """Place sideways of the canal at each height of the grid, shape (z, 1, 1)."""
    heights = grid.origin[2] + np.arange(grid.hu.shape[0]) * STEP_MM
    result: FloatArray = np.interp(heights, canal.points[:, 2], canal.points[:, 0]).astype(np.float32)[:, None, None]
    return result


def _distance(disc: DiscPlane, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Signed distance of all voxels from a disc's plane, positive above."""
    n, c = disc.normal.astype(np.float32), disc.centre
    result: FloatArray = n[0] * x + n[1] * y + n[2] * z - np.float32(n @ c)
    return result


def _along(frame: VertebraFrame, axis: NDArray[np.float64], x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Coordinate of all voxels along an axis of a vertebra."""
    a = axis.astype(np.float32)
    result: FloatArray = a[0] * x + a[1] * y + a[2] * z - np.float32(axis @ frame.origin)
    return result


def _main(found: BoolArray) -> BoolArray:
    """The largest piece, and pieces of at least a tenth of it."""
    groups, count = ndimage.label(found)
    if count <= 1:
        return found
    sizes = np.bincount(groups.ravel())
    sizes[0] = 0
    keep = sizes >= max(0.1 * sizes.max(), 1)
    result: BoolArray = keep[groups]
    return result
