"""A CT volume on an isotropic grid along the patient's axes, cropped to the spine; tilt and obliquity end here.

Frame: DICOM PS3.3 C.7.6.2.1.1, LPS millimetres. Indices are (z, y, x): upwards, backwards, to the patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.volume import Volume

STEP_MM = 1.0
OUTSIDE_HU = -1024.0

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WorkingGrid:
    """Hounsfield units on the grid.

    Parameters
    ----------
    hu : shape (z, y, x), `STEP_MM` apart
    origin : LPS millimetres (x, y, z) of voxel (0, 0, 0)
    """

    hu: FloatArray
    origin: NDArray[np.float64]

    def to_index(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """LPS points, shape (…, 3), to fractional (z, y, x)."""
        result: NDArray[np.float64] = ((np.asarray(points, dtype=np.float64) - self.origin) / STEP_MM)[..., ::-1]
        return result

    def to_lps(self, index: NDArray[np.floating]) -> NDArray[np.float64]:
        """Fractional (z, y, x), shape (…, 3), to LPS points."""
        result: NDArray[np.float64] = np.asarray(index, dtype=np.float64)[..., ::-1] * STEP_MM + self.origin
        return result

    def sample(self, points: NDArray[np.floating], of: FloatArray | None = None, *, order: int = 1) -> FloatArray:
        """Values at LPS points, linear; `OUTSIDE_HU` beyond the grid."""
        index = np.moveaxis(self.to_index(points), -1, 0)
        array = self.hu if of is None else of
        result: FloatArray = ndimage.map_coordinates(array, index, order=order, mode="constant", cval=OUTSIDE_HU)
        return result

    def points(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """x, y and z of all voxels, broadcastable against the grid."""
        z, y, x = (np.arange(size, dtype=np.float32) * STEP_MM for size in self.hu.shape)
        return (
            x[None, None, :] + np.float32(self.origin[0]),
            y[None, :, None] + np.float32(self.origin[1]),
            z[:, None, None] + np.float32(self.origin[2]),
        )


def working_grid(volume: Volume, bone_hu: float, half_width_mm: float, half_depth_mm: float) -> WorkingGrid:
    """Resample a volume of any orientation, also one that is sheared by a tilted gantry.

    Parameters
    ----------
    volume : Hounsfield units
    bone_hu : voxels above it say where the skeleton is
    half_width_mm, half_depth_mm : of the box around its middle
    """
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(volume.array.shape) - 1)
    world = volume.to_lps(corners.astype(np.float64))
    low, high = world.min(axis=0), world.max(axis=0)
    bony = np.argwhere(volume.array[::2, ::3, ::3] > bone_hu) * (2, 3, 3)
    if len(bony):
        middle = np.median(volume.to_lps(bony.astype(np.float64)), axis=0)
        half = np.array([half_width_mm, half_depth_mm, np.inf])
        low, high = np.maximum(low, middle - half), np.minimum(high, middle + half)
    shape = tuple(int(size) for size in np.floor((high - low)[::-1] / STEP_MM) + 1)
    smooth = _antialiased(volume)
    # Grid index (z, y, x) → source index (slice, row, column): one matrix, sheared where the gantry is.
    inverse = np.linalg.inv(volume.affine_lps[:3, :3])
    matrix = inverse[:, ::-1] * STEP_MM
    offset = inverse @ (low - volume.affine_lps[:3, 3])
    hu = ndimage.affine_transform(smooth, matrix, offset, shape, order=1, mode="constant", cval=OUTSIDE_HU)
    return WorkingGrid(hu.astype(np.float32), low)


def onto_original(labels: NDArray[np.uint8], grid: WorkingGrid, volume: Volume) -> NDArray[np.uint8]:
    """Labels in the grid of the original images: of each image voxel the nearest label, shape (slice, row, column)."""
    forward = volume.affine_lps[:3, :3]
    matrix = forward[::-1] / STEP_MM
    offset = ((volume.affine_lps[:3, 3] - grid.origin) / STEP_MM)[::-1]
    result: NDArray[np.uint8] = ndimage.affine_transform(
        labels, matrix, offset, volume.array.shape, order=0, mode="constant", cval=0
    )
    return result


def _antialiased(volume: Volume) -> FloatArray:
    """Smoothed where the images are finer than the grid, so that noise does not fold into it."""
    sigma = [0.4 * max(0.0, STEP_MM / spacing - 1) for spacing in volume.spacing_mm]
    return ndimage.gaussian_filter(volume.array, sigma) if any(sigma) else volume.array
