"""Disc height index (F13) and canal anteroposterior diameter in millimetres, with uncertainty (stage 4).

Definitions: clinical model §1.4. Measured on the mask at the original resolution, in the slice of largest canal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_services.pipelines.lumbar_mr.crop import DiscPose
from ai_services.pipelines.lumbar_mr.postprocess import PITCH_RANGE_MM
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM

HEIGHT_POSITIONS = (0.10, 0.50, 0.90)
HEIGHT_WINDOW_MM = 2.5
CANAL_WINDOW_MM = 5.0
CANAL_DIRECTION_RADIUS_MM = 15.0
MINIMUM_CANAL_AREA_MM2 = 60.0
LOW_RESOLUTION_SLICE_MM = 4.0
LOW_RESOLUTION_WIDENING = 1.5


@dataclass(frozen=True, slots=True)
class Measured:
    """A number with the half width of its uncertainty, both in the same unit."""

    value: float
    uncertainty: float


@dataclass(frozen=True, slots=True)
class Section:
    """One slice of the mask.

    Parameters
    ----------
    segments : uint8, shape (row, column), segment numbers, head up, anterior left, original resolution
    spacing_mm : row, column
    slice_mm : distance between slices, widens the uncertainty above 4 mm
    """

    segments: NDArray[np.uint8]
    spacing_mm: tuple[float, float]
    slice_mm: float

    def points_mm(self, number: int) -> NDArray[np.float64]:
        """Centres of one segment's pixels in millimetres, shape (pixel, 2)."""
        result: NDArray[np.float64] = (np.argwhere(self.segments == number) + 0.5) * np.array(self.spacing_mm)
        return result

    @property
    def pixel_mm2(self) -> float:
        """Area of one pixel."""
        return self.spacing_mm[0] * self.spacing_mm[1]

    @property
    def length_uncertainty_mm(self) -> float:
        """Of a distance between two borders, each known to half a pixel of the network's or the image's grid."""
        pixel = max(*self.spacing_mm, WORKING_SPACING_MM)
        widening = LOW_RESOLUTION_WIDENING if self.slice_mm > LOW_RESOLUTION_SLICE_MM else 1.0
        return float(np.sqrt(2) * 0.5 * pixel * widening)


def disc_heights_mm(section: Section, number: int, pose: DiscPose) -> tuple[float, float, float] | None:
    """Heights at 10, 50 and 90 % of the disc's depth (front to back), None where the disc is not in the slice."""
    offsets = section.points_mm(number) - pose.centre_mm
    if len(offsets) < 20:
        return None
    along = offsets @ pose.posterior
    front, back = np.percentile(along, (1, 99))
    heights = []
    for position in HEIGHT_POSITIONS:
        at = front + position * (back - front)
        heights.append(_width_across(along - at, HEIGHT_WINDOW_MM) * section.pixel_mm2)
    return heights[0], heights[1], heights[2]


def _is_next(other: NDArray[np.float64], middle: NDArray[np.float64]) -> bool:
    """Whether two discs are one body apart; with a missed disc between them the height would be of two bodies."""
    return PITCH_RANGE_MM[0] <= float(np.linalg.norm(other - middle)) <= PITCH_RANGE_MM[1]


def disc_height_index(section: Section, number: int, pose: DiscPose, neighbours: tuple[int, ...]) -> Measured | None:
    """DHI = mean of three disc heights / mean mid-height of the neighbouring bodies (F13).

    The sacrum is not segmented, so at L5-S1 the body above stands alone, as at the highest disc the body below.

    Parameters
    ----------
    section : the slice of `pose`
    number : segment number of the disc
    pose : the disc
    neighbours : segment numbers of the discs above and below, where they exist

    Returns
    -------
    the ratio, or None where it cannot be measured in this slice
    """
    heights = disc_heights_mm(section, number, pose)
    middle = _middle(section, number, pose)
    if heights is None or middle is None:
        return None
    bodies = []
    for other in neighbours:
        other_middle = _middle(section, other, pose)
        other_heights = disc_heights_mm(section, other, _moved(pose, section, other))
        if other_middle is not None and other_heights is not None and _is_next(other_middle, middle):
            bodies.append(float(np.linalg.norm(other_middle - middle)) - (heights[1] + other_heights[1]) / 2)
    if not bodies or min(bodies) < 10:
        return None
    disc_mm, body_mm = float(np.mean(heights)), float(np.mean(bodies))
    if disc_mm <= 0:
        return None
    ratio = disc_mm / body_mm
    error = section.length_uncertainty_mm
    return Measured(ratio, ratio * float(np.hypot(error / disc_mm, error / body_mm)))


def canal_diameter_mm(section: Section, canal_number: int, pose: DiscPose) -> Measured | None:
    """Anteroposterior diameter of the canal at the disc, at right angles to the canal's own direction.

    Parameters
    ----------
    section : the slice of `pose`
    canal_number : segment number of the canal
    pose : the disc

    Returns
    -------
    diameter averaged over about 5 mm along the canal, or None where the canal is not in this slice at this level
    """
    points = section.points_mm(canal_number)
    if not len(points):
        return None
    at_level = np.abs((points - pose.centre_mm) @ pose.cranial) <= CANAL_WINDOW_MM / 2
    if at_level.sum() * section.pixel_mm2 < MINIMUM_CANAL_AREA_MM2 / 3:
        return None
    centre = points[at_level].mean(axis=0)
    near = points[np.linalg.norm(points - centre, axis=1) <= CANAL_DIRECTION_RADIUS_MM]
    _, vectors = np.linalg.eigh(np.cov((near - near.mean(axis=0)).T))
    direction = vectors[:, 1]
    if abs(direction[0]) < 0.5:  # a blob rather than a tube: fall back to the disc's own axis
        direction = pose.cranial
    diameter = _width_across((near - centre) @ direction, CANAL_WINDOW_MM) * section.pixel_mm2
    return Measured(diameter, section.length_uncertainty_mm) if diameter > 0 else None


def _width_across(distance_mm: NDArray[np.float64], window_mm: float) -> float:
    """Pixels per millimetre along an axis, averaged by a triangle so that pixel edges do not count in steps.

    Times the pixel area this is the width of the shape at right angles to the axis.
    """
    return float(np.maximum(0.0, 1 - np.abs(distance_mm) / window_mm).sum() / window_mm)


def _middle(section: Section, number: int, pose: DiscPose) -> NDArray[np.float64] | None:
    """Centre of the middle of a disc's section, (row, column) millimetres."""
    points = section.points_mm(number)
    if len(points) < 20:
        return None
    along = points @ pose.posterior
    front, back = np.percentile(along, (1, 99))
    inside = np.abs(along - (front + back) / 2) <= HEIGHT_WINDOW_MM / 2
    if not inside.any():
        return None
    result: NDArray[np.float64] = points[inside].mean(axis=0)
    return result


def _moved(pose: DiscPose, section: Section, number: int) -> DiscPose:
    """The same slice's pose of a neighbouring disc, with that disc's own axis."""
    points = section.points_mm(number)
    if len(points) < 20:
        return pose
    centre = points.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((points - centre).T))
    axis = vectors[:, 1] * (1 if vectors[1, 1] >= 0 else -1)
    axis = axis if axis[1] >= 0.5 else pose.posterior
    return DiscPose(number, pose.slice_index, centre, axis, np.array([-axis[1], axis[0]]))
