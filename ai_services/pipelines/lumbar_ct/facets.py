"""Facet joint angle and tropism from the space between two arches (stage 4).

Angle: of the line through the joint's ends against the midsagittal plane, in the plane of the disc; tropism: left minus
right without sign (doi 10.1155/2020/9453832, PMC7341411: difference of the angles of orientation). Thresholds for
"tropism" differ between authors (7°, 10°) and none is applied here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.pipelines.lumbar_ct.bone_geometry import Measured
from ai_services.pipelines.lumbar_ct.discs import DiscPlane
from ai_services.pipelines.lumbar_ct.instances import VertebraFrame
from ai_services.pipelines.lumbar_ct.working_grid import STEP_MM, WorkingGrid

LARGEST_GAP_MM = 2.6
"""From a point of the joint space to either bone."""
LEAST_ASIDE_MM, LARGEST_ASIDE_MM = 5.0, 32.0
HEIGHT_MM = 11.0
"""Above and below the plane of the disc."""
FEWEST_POINTS = 40
LEAST_ELONGATION = 1.8
ROUNDS = 5
OFF_LINE_MM = 1.6
"""Points farther from the joint's line belong to contacts of other processes, or to a joint that is bent."""
LEAST_KEPT = 0.45
"""Of the joint space seen: with less the arches were not parted at their joint, and the line is of something else."""
FRAME_DEG = 2.0
"""POLICY: how well the midsagittal plane is known."""
BOX_MM = 42.0


@dataclass(frozen=True, slots=True)
class Facet:
    """One joint.

    Parameters
    ----------
    angle : degrees against the midsagittal plane
    centre : LPS millimetres
    points : how many voxels of joint space it rests on
    """

    angle: Measured
    centre: NDArray[np.float64]
    points: int


def facet(
    grid: WorkingGrid,
    labels: NDArray[np.uint8],
    disc: DiscPlane,
    frame: VertebraFrame,
    upper: int,
    lower: int,
    side: int,
) -> Facet | None:
    """Measure a facet joint.

    Parameters
    ----------
    labels : of `label_vertebrae`
    disc : of the same level
    frame : of the vertebra above, for the midsagittal plane
    upper, lower : labels of the arch above, and of the arch (or sacrum) below
    side : 1 left, -1 right

    Returns
    -------
    None where no joint space with a direction is seen
    """
    middle = frame.point(0.0, frame.canal_mm + 8.0, 0.0)
    middle = middle - disc.distance(middle) * disc.normal + side * 17.0 * disc.left
    box, offset = _box(grid, middle)
    part = labels[box]
    if not (part == upper).any() or not (part == lower).any():
        return None
    to_upper = ndimage.distance_transform_edt(part != upper) * STEP_MM
    to_lower = ndimage.distance_transform_edt(part != lower) * STEP_MM
    between = (np.abs(to_upper - to_lower) <= 0.8) & (np.maximum(to_upper, to_lower) <= LARGEST_GAP_MM) & (part == 0)
    points = grid.to_lps((np.argwhere(between) + offset).astype(np.float64))
    posterior = frame.posterior - (frame.posterior @ disc.normal) * disc.normal
    posterior /= np.linalg.norm(posterior)
    left = np.cross(posterior, disc.normal)
    left *= np.sign(left[0]) or 1.0
    centred = points - frame.origin
    aside, back = centred @ left * side, centred @ posterior
    fits = (np.abs(disc.distance(points)) <= HEIGHT_MM) & (aside > LEAST_ASIDE_MM) & (aside < LARGEST_ASIDE_MM)
    fits &= back > frame.wall_mm + 4.0
    if fits.sum() < FEWEST_POINTS:
        return None
    flat = np.column_stack([aside[fits], back[fits]])
    flat, kept = _densest(flat, points[fits])
    if len(flat) < FEWEST_POINTS:
        return None
    seen = len(flat)
    for _ in range(ROUNDS):
        values, vectors = np.linalg.eigh(np.cov((flat - flat.mean(axis=0)).T))
        beside = np.abs((flat - flat.mean(axis=0)) @ vectors[:, 0])
        near = beside <= max(OFF_LINE_MM, float(np.percentile(beside, 60)))
        flat, kept = flat[near], kept[near]
    if len(flat) < max(FEWEST_POINTS, LEAST_KEPT * seen) or values[1] < LEAST_ELONGATION**2 * max(values[0], 1e-6):
        return None
    direction = vectors[:, 1]
    angle = float(np.degrees(np.arctan2(abs(direction[0]), abs(direction[1]))))
    if direction[0] * direction[1] < 0:  # a joint that runs backwards to the middle is none
        return None
    width, length = float(np.sqrt(values[0])), float(np.sqrt(values[1]))
    uncertainty = float(np.hypot(2 * np.degrees(np.arctan2(width, length * 2)), FRAME_DEG))
    return Facet(Measured(angle, uncertainty), kept.mean(axis=0), len(flat))


def tropism(right: Facet | None, left: Facet | None) -> Measured | None:
    """Difference of both angles; None where one is not known."""
    if right is None or left is None:
        return None
    uncertainty = float(np.hypot(right.angle.uncertainty, left.angle.uncertainty))
    return Measured(abs(left.angle.value - right.angle.value), uncertainty)


def _densest(flat: NDArray[np.float64], points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points within reach of the median: stray contacts of other processes are left out."""
    for _ in range(2):
        near = np.linalg.norm(flat - np.median(flat, axis=0), axis=1) <= 12.0
        flat, points = flat[near], points[near]
    return flat, points


def _box(grid: WorkingGrid, middle: NDArray[np.float64]) -> tuple[tuple[slice, slice, slice], NDArray[np.intp]]:
    index = grid.to_index(middle)
    half = BOX_MM / 2 / STEP_MM
    low = np.clip(np.floor(index - half), 0, grid.hu.shape).astype(np.intp)
    high = np.clip(np.ceil(index + half), 0, grid.hu.shape).astype(np.intp)
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), low
