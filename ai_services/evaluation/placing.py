"""Mends the pixel spacing of the midsagittal images before anything is learnt from them (stage 11).

The table and the PNGs disagree for every second patient: T2 was resampled onto T1's grid, rows were stretched. See
`ai_services.imaging.plausible_spacing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ai_services.imaging.plausible_spacing import plausible_spacing
from ai_services.imaging.resample import resample_in_plane
from ai_services.pipelines.lumbar_mr.intensity import normalise_slices
from ai_services.pipelines.lumbar_mr.postprocess import Spine, disc_pitches_mm, find_spine
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM

PASSES = 2
SINGLE_SLICE_MM = 4.0
FEWEST_DISCS = 3
MENDED = ("t1", "t2")

Segment = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From one normalised working image, shape (row, column), to probabilities, shape (4, row, column)."""


class StillImage(Protocol):
    """A midsagittal image as the folder holds it; `spacing_mm` is what the table says."""

    @property
    def patient(self) -> int:
        """Number in the folder."""

    @property
    def sequence(self) -> str:
        """``t1``, ``t2`` or ``t2_SPACE``."""

    @property
    def original(self) -> NDArray[np.float32]:
        """Grey values, shape (row, column)."""

    @property
    def spacing_mm(self) -> float:
        """Of rows and columns."""


@dataclasses.dataclass(frozen=True)
class GivenImage:
    """A `StillImage`."""

    patient: int
    sequence: str
    original: NDArray[np.float32]
    spacing_mm: float


@dataclasses.dataclass(frozen=True)
class PlacedImage:
    """A midsagittal image with a spacing that fits a spine, and its segmentation there."""

    patient: int
    sequence: str
    original: NDArray[np.float32]
    spacing_mm: tuple[float, float]
    working: NDArray[np.float32]
    probability: NDArray[np.float32]


def place_images(images: Sequence[StillImage], segment: Segment) -> list[PlacedImage]:
    """Segment every image, under mended spacing where it needs mending."""
    given = {(image.patient, image.sequence): image for image in images}
    return [_place(image, _start_mm(image, given), segment) for image in images]


def measure(spine: Spine) -> tuple[float, float] | None:
    """Median distance between neighbouring discs and median disc depth (mm); None where too few discs are seen."""
    if len(spine.discs) < FEWEST_DISCS:
        return None
    depths = []
    for disc in spine.discs:
        columns = np.flatnonzero((spine.instances == disc.label).any(axis=(0, 1)))
        depths.append((columns[-1] - columns[0] + 1) * WORKING_SPACING_MM)
    return float(np.median(disc_pitches_mm(spine))), float(np.median(depths))


def _start_mm(image: StillImage, given: dict[tuple[int, str], StillImage]) -> float:
    """Of two sequences with PNGs of one size the table's larger spacing is the true one."""
    other = given.get((image.patient, "t1" if image.sequence == "t2" else "t2"))
    if image.sequence in MENDED and other is not None and other.original.shape == image.original.shape:
        return max(image.spacing_mm, other.spacing_mm)
    return image.spacing_mm


def _place(image: StillImage, start_mm: float, segment: Segment) -> PlacedImage:
    spacing = (start_mm, start_mm)
    shape = (image.original.shape[0], image.original.shape[1])
    for attempt in range(PASSES + 1):
        working = to_working(image.original, spacing)
        probability = segment(working)
        measured = measure(find_spine(probability[None], SINGLE_SLICE_MM))
        if measured is None or image.sequence not in MENDED or attempt == PASSES:
            break
        better = plausible_spacing(shape, spacing, *measured)
        if np.abs(np.log(np.divide(better, spacing))).max() < 0.02:
            break
        spacing = better
    return PlacedImage(image.patient, image.sequence, image.original, spacing, working, probability)


def to_working(image: NDArray[np.float32], spacing_mm: tuple[float, float]) -> NDArray[np.float32]:
    """Resample an image whose rows and columns differ in scale, and normalise it as serving does."""
    factors = (WORKING_SPACING_MM / spacing_mm[0], WORKING_SPACING_MM / spacing_mm[1])
    result: NDArray[np.float32] = normalise_slices(resample_in_plane(image[None], *factors))[0]
    return result
