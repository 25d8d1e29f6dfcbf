"""One disc and its neighbourhood, turned level: what the graders look at (stage 4).

The same function serves training and inference. Frame: (row, column) in millimetres from the image's outer corner.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.pipelines.lumbar_mr.crop import DiscPose
from ai_services.pipelines.lumbar_mr.intensity import normalise_slices
from ai_services.pipelines.lumbar_mr.postprocess import CANAL, DISC, VERTEBRA
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM

PATCH_SHAPE = (96, 128)
PATCH_SPACING_MM = 0.5
PATCH_SHIFT_POSTERIOR_MM = 6.0
CHANNELS = ("t2", "t1", "disc", "canal", "vertebra")
T2_CHANNEL, T1_CHANNEL, DISC_CHANNEL, CANAL_CHANNEL, VERTEBRA_CHANNEL = range(5)


def disc_patch(
    image: NDArray[np.float32],
    spacing_mm: tuple[float, float],
    probability: NDArray[np.float32],
    pose: DiscPose,
    companion: tuple[NDArray[np.float32], tuple[float, float], NDArray[np.float64]] | None = None,
) -> NDArray[np.float32]:
    """Sample one disc with 24 mm above and below it.

    Parameters
    ----------
    image : shape (row, column), T2 at its original resolution, head up, anterior left, any grey scale
    spacing_mm : of `image`: row, column
    probability : shape (4, row, column), the slice on the working grid
    pose : the disc in this slice
    companion : the T1 image of the same plane, its spacing, and the shift in (row, column) millimetres that leads from
        `image` to it; None where there is none

    Returns
    -------
    shape (5, 96, 128), float32: T2 and T1 scaled by their image's percentiles (T1 NaN where missing), then the
    probabilities of disc, canal and vertebra; rows run down, columns backwards, 0.5 mm apart
    """
    points = patch_points(pose)
    at_working = points / WORKING_SPACING_MM - 0.5
    t1 = np.full(PATCH_SHAPE, np.nan, dtype=np.float32)
    if companion is not None:
        other, other_mm, shift_mm = companion
        t1 = _sample(normalise_slices(other[None])[0], other_mm, points + shift_mm[:, None, None])
    layers = [_sample(normalise_slices(image[None])[0], spacing_mm, points), t1]
    for number in (DISC, CANAL, VERTEBRA):
        layers.append(ndimage.map_coordinates(probability[number], at_working, order=1, mode="constant"))
    return np.stack(layers).astype(np.float32)


def patch_points(pose: DiscPose) -> NDArray[np.float64]:
    """Where the patch's pixels lie, shape (2, 96, 128), (row, column) millimetres."""
    down = (np.arange(PATCH_SHAPE[0]) - (PATCH_SHAPE[0] - 1) / 2) * PATCH_SPACING_MM
    back = (np.arange(PATCH_SHAPE[1]) - (PATCH_SHAPE[1] - 1) / 2) * PATCH_SPACING_MM + PATCH_SHIFT_POSTERIOR_MM
    result: NDArray[np.float64] = (
        pose.centre_mm[:, None, None]
        - pose.cranial[:, None, None] * down[None, :, None]
        + pose.posterior[:, None, None] * back[None, None, :]
    )
    return result


def _sample(
    grey: NDArray[np.float32], spacing_mm: tuple[float, float], points: NDArray[np.float64]
) -> NDArray[np.float32]:
    at_image = np.stack([points[0] / spacing_mm[0] - 0.5, points[1] / spacing_mm[1] - 0.5])
    result: NDArray[np.float32] = ndimage.map_coordinates(grey, at_image, order=1, mode="constant")
    return result
