"""How well an outline agrees with another: Dice, surface distances, panoptic quality (stage 11).

Dice: https://doi.org/10.2307/1932409; surface distances as in https://doi.org/10.1371/journal.pone.0231371;
panoptic quality: https://arxiv.org/abs/1801.00868. Masks have axes (slice, row, column), spacing in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
MATCHED_FROM = 0.5
"""Intersection over union from which two instances are the same one: one pair at most exceeds it (Kirillov, §4.1)."""


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Between the surfaces of two masks, millimetres; None where one of them is empty (there is no surface)."""

    hausdorff95_mm: float | None
    assd_mm: float | None


@dataclass(frozen=True, slots=True)
class PanopticQuality:
    """Instances found, missed and invented; `quality` = segmentation × recognition."""

    found: int
    missed: int
    invented: int
    mean_iou: float

    @property
    def recognition(self) -> float:
        """F1 of the instances; NaN where there are none in either mask."""
        halves = self.found + 0.5 * self.missed + 0.5 * self.invented
        return self.found / halves if halves else float("nan")

    @property
    def quality(self) -> float:
        """Panoptic quality; NaN where there is nothing in either mask."""
        return self.mean_iou * self.recognition


def dice(predicted: Mask, truth: Mask) -> float:
    """Dice coefficient 0..1; NaN where both masks are empty."""
    together = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / together if together else float("nan")


def surface_distances(predicted: Mask, truth: Mask, spacing_mm: tuple[float, float, float]) -> SurfaceDistances:
    """95th percentile Hausdorff distance and average symmetric surface distance.

    Parameters
    ----------
    predicted, truth : shape (slice, row, column)
    spacing_mm : slice, row, column
    """
    if not predicted.any() or not truth.any():
        return SurfaceDistances(None, None)
    box = _common_box(predicted | truth)
    one, other = _surface(predicted[box]), _surface(truth[box])
    to_other = _distances(one, other, spacing_mm)
    to_one = _distances(other, one, spacing_mm)
    farthest = max(float(np.percentile(to_other, 95)), float(np.percentile(to_one, 95)))
    mean = float((to_other.sum() + to_one.sum()) / (len(to_other) + len(to_one)))
    return SurfaceDistances(farthest, mean)


def panoptic_quality(predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> PanopticQuality:
    """Compare instances.

    Parameters
    ----------
    predicted, truth : same shape, instance numbers, 0 is background
    """
    sizes, true_sizes = _sizes(predicted), _sizes(truth)
    both = (predicted > 0) & (truth > 0)
    pairs, counts = np.unique(np.stack([predicted[both], truth[both]]), axis=1, return_counts=True)
    ious = []
    for (mine, theirs), shared in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        iou = shared / (sizes[mine] + true_sizes[theirs] - shared)
        if iou > MATCHED_FROM:
            ious.append(iou)
    found = len(ious)
    mean = float(np.mean(ious)) if ious else 0.0
    return PanopticQuality(found, len(true_sizes) - found, len(sizes) - found, mean)


def instances_of(mask: Mask, smallest_mm3: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.int32]:
    """Number the connected parts of a mask (26 neighbours) that are not smaller than `smallest_mm3`."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel(), minlength=count + 1) * float(np.prod(spacing_mm))
    keep = volumes >= smallest_mm3
    keep[0] = False
    numbers = np.zeros(count + 1, dtype=np.int32)
    numbers[keep] = np.arange(1, int(keep.sum()) + 1)
    return np.asarray(numbers[labels], dtype=np.int32)


def _sizes(labels: NDArray[np.integer]) -> dict[int, int]:
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _surface(mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=0), dtype=np.bool_)


def _distances(from_surface: Mask, to_surface: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    field = ndimage.distance_transform_edt(~to_surface, sampling=spacing_mm)
    return np.asarray(field[from_surface], dtype=np.float64)


def _common_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds the mask, one voxel wider: distances outside need not be computed."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(
        slice(max(0, part.start - 1), min(size, part.stop + 1)) for part, size in zip(box, mask.shape, strict=True)
    )
