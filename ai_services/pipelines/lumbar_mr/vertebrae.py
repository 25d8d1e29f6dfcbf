"""Vertebrae one by one: the network's one class parted by the discs, each into body and arch (stage 4).

The network knows one class for all vertebrae, so levels come from the discs: a body lies between two disc planes, in
front of the canal. Behind it the planes are moved down, as laminae and spinous processes hang below their body; a piece
that stands alone goes to one vertebra as a whole. Checked on SYNTHETIC phantoms (`test_vertebrae.py`): no patient's
mask of the training data tells vertebrae apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.prediction import Segment, SegmentLabel

NAMES: tuple[str, ...] = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10")
HANGS_MM = 9.0
"""How far below the plane of its disc an arch reaches down behind the canal, midway to the next one."""
WALL_MARGIN_MM = 1.0
TALLEST_ARCH_MM = 45.0
"""A piece behind the canal that is taller belongs to several vertebrae."""
MIDDLE_MM = 14.0
BIN_MM = 3.0


@dataclass(frozen=True, slots=True)
class _Plane:
    """Middle of a disc and the cranial normal of its plane."""

    centre: NDArray[np.float64]
    normal: NDArray[np.float64]

    def above(self, points: NDArray[np.float64], lowered_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = (points - self.centre) @ self.normal > -lowered_mm
        return result


def tell_apart(
    mask: NDArray[np.uint8], affine_lps: NDArray[np.float64], segments: Sequence[Segment]
) -> tuple[NDArray[np.uint8], tuple[Segment, ...]]:
    """Part the vertebrae of a mask.

    Parameters
    ----------
    mask : shape (slice, row, column), numbers of `segments`
    affine_lps : of the mask
    segments : one of all vertebrae, the canal, and the discs from the lowest up

    Returns
    -------
    mask and segments with body and arch of each vertebra. Numbers of canal and discs stay; that of all vertebrae goes
    to the lowest body. Unchanged where there is no canal, or nothing of the lowest body.
    """
    whole = next(item for item in segments if item.label == "vertebra")
    canal = next(item for item in segments if item.label == "canal")
    discs = [item for item in segments if item.label == "disc"][: len(NAMES)]
    where = _places(mask, (whole, canal, *discs))
    places, in_canal = where[whole.number], _lps(where[canal.number], affine_lps)
    if not len(places) or not len(in_canal) or not discs:
        return mask, tuple(segments)
    planes = [_plane(_lps(where[disc.number], affine_lps)) for disc in discs]
    points = _lps(places, affine_lps)
    behind = points[:, 1] >= _wall(in_canal, points[:, 2]) + WALL_MARGIN_MM
    level = _levels(points, planes, np.where(behind, HANGS_MM, 0.0))
    level = _whole_pieces(places, points, behind, level, planes)
    if not ((level == 0) & ~behind).any():
        return mask, tuple(segments)
    return _numbered(mask, places, level, behind, whole.number, segments)


def _numbered(
    mask: NDArray[np.uint8],
    places: NDArray[np.intp],
    level: NDArray[np.intp],
    behind: NDArray[np.bool_],
    first: int,
    segments: Sequence[Segment],
) -> tuple[NDArray[np.uint8], tuple[Segment, ...]]:
    result = mask.copy()
    found = [Segment(first, "vertebra-body", f"{NAMES[0]} vertebral body", NAMES[0])]
    following = max(item.number for item in segments) + 1
    for index, name in enumerate(NAMES):
        for part, kind, chosen in _parts(behind):
            own = places[(level == index) & chosen]
            if not len(own) or (index == 0 and part == "body"):
                continue
            found.append(Segment(following, kind, f"{name} vertebral {part}", name))
            result[tuple(own.T)] = following
            following += 1
    kept = [item for item in segments if item.number != first]
    return result, tuple(sorted([*found, *kept], key=lambda item: item.number))


def _parts(behind: NDArray[np.bool_]) -> tuple[tuple[str, SegmentLabel, NDArray[np.bool_]], ...]:
    return ("body", "vertebra-body", ~behind), ("arch", "vertebra-arch", behind)


def _levels(points: NDArray[np.float64], planes: Sequence[_Plane], lowered_mm: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index into `NAMES`: how many discs lie below, without the lowest one; what lies below that counts as L5."""
    below = np.zeros(len(points), dtype=np.intp)
    for plane in planes:
        below += plane.above(points, lowered_mm)
    result: NDArray[np.intp] = np.clip(below - 1, 0, len(NAMES) - 1).astype(np.intp)
    return result


def _whole_pieces(
    places: NDArray[np.intp],
    points: NDArray[np.float64],
    behind: NDArray[np.bool_],
    level: NDArray[np.intp],
    planes: Sequence[_Plane],
) -> NDArray[np.intp]:
    """A piece behind the canal that stands alone goes where its middle lies."""
    inner = places - places.min(axis=0)
    rear = np.zeros(inner.max(axis=0) + 1, dtype=np.bool_)
    rear[tuple(inner[behind].T)] = True
    groups, _ = ndimage.label(rear, structure=np.ones((3, 3, 3)))
    index = np.flatnonzero(behind)
    group = groups[tuple(inner[index].T)]
    order = np.argsort(group, kind="stable")
    result = level.copy()
    for own in np.split(index[order], np.flatnonzero(np.diff(group[order])) + 1):
        if len(own) and np.ptp(points[own, 2]) <= TALLEST_ARCH_MM:
            result[own] = _levels(points[own].mean(axis=0)[None], planes, np.array([HANGS_MM]))[0]
    return result


def _plane(points: NDArray[np.float64]) -> _Plane:
    """From the middle part of a disc; its long axis in the sagittal plane runs backwards."""
    middle = points[np.abs(points[:, 0] - np.median(points[:, 0])) <= MIDDLE_MM]
    centre = middle.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((middle[:, 1:] - centre[1:]).T)) if len(middle) > 2 else (None, np.eye(2)[::-1])
    back, up = vectors[:, 1] * (1 if vectors[0, 1] >= 0 else -1)
    if abs(back) < 0.6:  # a torn disc: no direction of its own
        back, up = 1.0, 0.0
    return _Plane(centre, np.array([0.0, -up, back]))


def _wall(canal: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place (y) of the canal's front border at each height, carried on above and below it."""
    bins = np.round(canal[:, 2] / BIN_MM).astype(int)
    order = np.argsort(bins, kind="stable")
    levels, starts = np.unique(bins[order], return_index=True)
    front = np.array([np.percentile(part, 5) for part in np.split(canal[order, 1], starts[1:])])
    front = ndimage.median_filter(front, 5, mode="nearest")
    result: NDArray[np.float64] = np.interp(heights, levels * BIN_MM, front)
    return result


def _places(mask: NDArray[np.uint8], segments: Sequence[Segment]) -> dict[int, NDArray[np.intp]]:
    """Indices of each segment's voxels, as `numpy.argwhere` orders them, with one look at the whole mask."""
    flat = np.flatnonzero(mask)
    owner = mask.reshape(-1)[flat]
    return {item.number: np.transpose(np.unravel_index(flat[owner == item.number], mask.shape)) for item in segments}


def _lps(index: NDArray[np.intp], affine_lps: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = index @ affine_lps[:3, :3].T + affine_lps[:3, 3]
    return result
