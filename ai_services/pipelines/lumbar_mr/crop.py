"""Where each disc lies in its best slice, and the crop and numbers that the grading network reads (stage 4).

The same functions serve training and inference. Frame: (row, column) in millimetres from the image's outer corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.pipelines.lumbar_mr.intensity import normalise_slices
from ai_services.pipelines.lumbar_mr.postprocess import CANAL, DISC, Spine
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM

CROP_SHAPE = (64, 96)
CROP_SPACING_MM = 0.6
CROP_SHIFT_POSTERIOR_MM = 6.0
CANAL_BAND_MM = 8.0
MAXIMUM_TILT_COSINE = 0.5  # a disc axis steeper than 60° is a failed fit, not anatomy
SCALARS = ("level", "brightness", "height", "depth", "relative_brightness", "relative_height")


@dataclass(frozen=True, slots=True)
class DiscPose:
    """One disc in the slice that shows the canal best.

    Parameters
    ----------
    label : disc label in `Spine.instances`, from 1 for the lowest
    slice_index : the slice
    centre_mm : shape (2,), centre of the disc in (row, column) millimetres from the outer corner
    posterior, cranial : unit vectors, shape (2,), in (row, column)
    """

    label: int
    slice_index: int
    centre_mm: NDArray[np.float64]
    posterior: NDArray[np.float64]
    cranial: NDArray[np.float64]


def disc_pose(spine: Spine, label: int) -> DiscPose:
    """Find the slice with the largest canal at the disc's height, then the disc's centre and axes in it."""
    inside = spine.instances == label
    area = inside.sum(axis=(1, 2))
    band = round(CANAL_BAND_MM / WORKING_SPACING_MM)
    row = round(spine.discs[label - 1].centroid[1])
    canal = (spine.classes[:, max(0, row - band) : row + band + 1] == CANAL).sum(axis=(1, 2))
    # A slice must show at least half of the disc's largest section; among those the canal decides (not the middle).
    score = np.where(area >= 0.5 * area.max(), canal + area / (area.max() + 1.0), -1)
    index = int(score.argmax())
    return pose_in_slice(inside[index], label, index)


def pose_in_slice(inside: NDArray[np.bool_], label: int, slice_index: int) -> DiscPose:
    """Centre and axes of one disc's section, shape (row, column) on the working grid."""
    points = (np.argwhere(inside) + 0.5) * WORKING_SPACING_MM
    centre = points.mean(axis=0)
    posterior = np.array([0.0, 1.0])
    if len(points) >= 10:
        _, vectors = np.linalg.eigh(np.cov((points - centre).T))
        axis = vectors[:, 1] * (1 if vectors[1, 1] >= 0 else -1)
        posterior = axis if axis[1] >= MAXIMUM_TILT_COSINE else posterior
    return DiscPose(label, slice_index, centre, posterior, np.array([-posterior[1], posterior[0]]))


def disc_crop(
    image: NDArray[np.float32],
    spacing_mm: tuple[float, float],
    probability: NDArray[np.float32],
    pose: DiscPose,
) -> NDArray[np.float32]:
    """Crop one disc, turned so that its axis is level.

    Parameters
    ----------
    image : shape (row, column), original resolution, head up, anterior left, any grey scale
    spacing_mm : of `image`: row, column
    probability : shape (4, row, column), the slice on the working grid
    pose : the disc in this slice

    Returns
    -------
    shape (3, 64, 96): normalised grey value, disc and canal probability
    """
    down = (np.arange(CROP_SHAPE[0]) - (CROP_SHAPE[0] - 1) / 2) * CROP_SPACING_MM
    back = (np.arange(CROP_SHAPE[1]) - (CROP_SHAPE[1] - 1) / 2) * CROP_SPACING_MM + CROP_SHIFT_POSTERIOR_MM
    points = (
        pose.centre_mm[:, None, None]
        - pose.cranial[:, None, None] * down[None, :, None]
        + pose.posterior[:, None, None] * back[None, None, :]
    )
    grey = normalise_slices(image[None])[0]
    at_image = np.stack([points[0] / spacing_mm[0] - 0.5, points[1] / spacing_mm[1] - 0.5])
    at_working = points / WORKING_SPACING_MM - 0.5
    channels = [
        ndimage.map_coordinates(grey, at_image, order=1, mode="constant"),
        ndimage.map_coordinates(probability[DISC], at_working, order=1, mode="constant"),
        ndimage.map_coordinates(probability[CANAL], at_working, order=1, mode="constant"),
    ]
    return np.stack(channels).astype(np.float32)


def disc_scalars(
    working: NDArray[np.float32], probability: NDArray[np.float32], spine: Spine, poses: Sequence[DiscPose]
) -> NDArray[np.float32]:
    """Six numbers per disc, see `SCALARS`: level from the lowest, brightness against fluid, size, and both relative.

    Parameters
    ----------
    working : shape (slice, row, column), normalised
    probability : shape (slice, 4, row, column)
    spine, poses : the discs, from the lowest up

    Returns
    -------
    shape (disc, 6), float32, each about 0 … 2
    """
    rows = []
    for pose in poses:
        inside = spine.instances[pose.slice_index] == pose.label
        grey = working[pose.slice_index]
        canal = spine.classes[pose.slice_index] == CANAL
        fluid = float(np.percentile(grey[canal], 85)) if canal.sum() > 50 else 1.0
        near = ndimage.binary_dilation(inside, iterations=2)
        area_mm2 = float(probability[pose.slice_index, DISC][near].sum()) * WORKING_SPACING_MM**2
        along = ((np.argwhere(inside) + 0.5) * WORKING_SPACING_MM - pose.centre_mm) @ pose.posterior
        depth_mm = float(np.ptp(along)) + WORKING_SPACING_MM
        brightness = float(grey[inside].mean()) / max(fluid, 0.1)
        rows.append([(pose.label - 1) / 6, brightness, area_mm2 / depth_mm / 12, depth_mm / 40])
    table = np.array(rows, dtype=np.float32)
    median = np.maximum(np.median(table, axis=0), 1e-3)
    relative = table[:, [1, 2]] / median[[1, 2]]
    result: NDArray[np.float32] = np.clip(np.concatenate([table, relative], axis=1), 0, 3).astype(np.float32)
    return result
