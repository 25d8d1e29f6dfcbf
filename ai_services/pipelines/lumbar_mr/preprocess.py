"""Turns a volume the networks' way up and to their resolution, and keeps the way back (stage 4).

Head up, anterior left, decided by the affine (DICOM PS3.3 C.7.6.2), never by how such images usually look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ai_services.imaging.refusal import refusal
from ai_services.imaging.resample import resample_in_plane
from ai_services.imaging.volume import Volume
from ai_services.pipelines.lumbar_mr.intensity import normalise_slices

WORKING_SPACING_MM = 0.94
MINIMUM_SAGITTAL_COSINE = 0.75  # the normal may lean about 40° from left-right, as in scoliosis

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Orientation:
    """In-plane turns that bring head up and anterior left; `undo` is the exact inverse of `apply`."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, stack: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn a stack with axes (…, row, column) of the original image."""
        turned = np.swapaxes(stack, -1, -2) if self.transpose else stack
        turned = turned[..., ::-1, :] if self.flip_rows else turned
        return turned[..., ::-1] if self.flip_columns else turned

    def undo(self, stack: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn back to the original image's rows and columns."""
        turned = stack[..., ::-1] if self.flip_columns else stack
        turned = turned[..., ::-1, :] if self.flip_rows else turned
        return np.swapaxes(turned, -1, -2) if self.transpose else turned


@dataclass(frozen=True, slots=True)
class Prepared:
    """A series ready for the networks.

    Parameters
    ----------
    oriented : shape (slice, row, column), original grey values and resolution, head up, anterior left
    spacing_mm : of `oriented`: slice (perpendicular distance), row, column
    working : shape (slice, row, column), normalised, 0.94 mm pixels sharing the outer edge of `oriented`
    orientation : the way back
    """

    oriented: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    working: NDArray[np.float32]
    orientation: Orientation


def sagittal_orientation(affine_lps: NDArray[np.float64]) -> Orientation:
    """How to turn the images of a sagittal series.

    Parameters
    ----------
    affine_lps : shape (4, 4), maps (slice, row, column, 1) to LPS millimetres

    Raises
    ------
    PipelineError
        ``not-sagittal`` where the plane is not sagittal.
    """
    row_step = affine_lps[:3, 1] / np.linalg.norm(affine_lps[:3, 1])
    column_step = affine_lps[:3, 2] / np.linalg.norm(affine_lps[:3, 2])
    if abs(np.cross(row_step, column_step)[0]) < MINIMUM_SAGITTAL_COSINE:
        raise refusal("not-sagittal")
    transpose = abs(row_step[2]) < abs(column_step[2])
    down, back = (column_step, row_step) if transpose else (row_step, column_step)
    return Orientation(transpose, flip_rows=bool(down[2] > 0), flip_columns=bool(back[1] < 0))


def prepare(volume: Volume) -> Prepared:
    """Orient, resample to 0.94 mm in plane and normalise.

    Raises
    ------
    PipelineError
        ``not-sagittal``
    """
    orientation = sagittal_orientation(volume.affine_lps)
    _, row_mm, column_mm = volume.spacing_mm
    if orientation.transpose:
        row_mm, column_mm = column_mm, row_mm
    normal = np.cross(volume.affine_lps[:3, 1], volume.affine_lps[:3, 2])
    slice_mm = abs(float(volume.affine_lps[:3, 0] @ normal / np.linalg.norm(normal)))
    oriented = np.ascontiguousarray(orientation.apply(volume.array))
    working = resample_in_plane(oriented, WORKING_SPACING_MM / row_mm, WORKING_SPACING_MM / column_mm)
    return Prepared(oriented, (slice_mm, row_mm, column_mm), normalise_slices(working), orientation)
