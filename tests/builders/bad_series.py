"""Series that must be refused: real T2 SPACE slices, each made faulty in one known way (SYNTHETIC faults).

Each builder takes the sound series (six slices, 3 mm apart) and returns what a scanner, an export or a person could
have made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.imaging.artefacts import with_inversion, with_metal
from tests.builders.mr_series import mr_series, space_patient

Series = list[Dataset]
PATIENT = 52
"""Kept out of all training (model card)."""
EVERY = 3


def sound(test_data: Path) -> Series:
    """Every third slice of a real patient's T2 SPACE series, in DICOM."""
    pixels, _, affine = space_patient(test_data, PATIENT)
    affine[:3, 0] *= EVERY
    return mr_series(
        pixels[::EVERY], affine, ImageType=["ORIGINAL", "PRIMARY", "M"], SpacingBetweenSlices=3.0, EchoTime=100
    )


def with_pixels(series: Series, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Series:
    """The same headers about other grey values, shape (slice, row, column)."""
    stack = np.stack([dataset.pixel_array for dataset in series]).astype(np.float32)
    changed = np.clip(np.rint(change(stack)), 0, 65535).astype("<u2")
    result = deepcopy(series)
    for dataset, image in zip(result, changed, strict=True):
        dataset.Rows, dataset.Columns = image.shape
        dataset.PixelData = np.ascontiguousarray(image).tobytes()
    return result


def with_header(series: Series, change: Callable[[int, Dataset], None]) -> Series:
    """The same pixels under headers that `change` edits in place; it is given number and instance."""
    result = deepcopy(series)
    for number, dataset in enumerate(result):
        change(number, dataset)
    return result


def labelled(**attributes: object) -> Callable[[Series], Series]:
    """Every header with these attributes."""

    def build(series: Series) -> Series:
        def change(_: int, dataset: Dataset) -> None:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

        return with_header(series, change)

    return build


def of_a_neck(series: Series) -> Series:
    """The spine at six tenths of its size: discs as close as in a neck, under a header that says lumbar."""
    return labelled(PixelSpacing=[0.28, 0.28])(series)


def three_planes(series: Series) -> Series:
    """A localiser that does not say so: every third image in another plane."""

    def change(number: int, dataset: Dataset) -> None:
        if number % 3:
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1] if number % 3 == 1 else [1, 0, 0, 0, 1, 0]

    return with_header(series, change)


def echoes_in_turn(series: Series) -> Series:
    """Every second image of another echo."""

    def change(number: int, dataset: Dataset) -> None:
        dataset.EchoTime = 100 if number % 2 else 20

    return with_header(series, change)


def two_echoes_each(series: Series) -> Series:
    """Each slice twice, a short and a long echo."""
    early = labelled(EchoTime=20, EchoNumbers=1)(series)
    return early + labelled(EchoTime=100, EchoNumbers=2)(series)


def magnitude_and_phase(series: Series) -> Series:
    """Each slice twice, magnitude and phase."""
    return series + labelled(ImageType=["ORIGINAL", "PRIMARY", "P"])(series)


def without_inner_slice(series: Series) -> Series:
    """One slice of the middle was never sent."""
    return series[:2] + series[3:]


def every_second_slice(series: Series) -> Series:
    """Evenly spaced, but twice as far apart as the header says."""
    return series[::2]


def cut_off_file(series: Series) -> Series:
    """The transfer of one image ended in its middle."""
    result = deepcopy(series)
    result[3].PixelData = result[3].PixelData[: len(result[3].PixelData) // 2]
    return result


def upper_half(series: Series) -> Series:
    """The field of view ends in the middle of the lumbar spine."""
    return with_pixels(series, lambda stack: stack[:, : stack.shape[1] * 9 // 20])


def lower_half(series: Series) -> Series:
    """The field of view begins in the middle of the lumbar spine."""
    return with_pixels(series, lambda stack: stack[:, stack.shape[1] * 11 // 20 :])


def one_side(series: Series) -> Series:
    """The slices end at the midline."""
    return series[: len(series) // 2]


def upside_down(series: Series) -> Series:
    """Rows run from the feet up, and the header does not know."""
    return with_pixels(series, lambda stack: stack[:, ::-1])


def front_to_back(series: Series) -> Series:
    """Columns run from back to front, and the header does not know."""
    return with_pixels(series, lambda stack: stack[:, :, ::-1])


def on_its_side(series: Series) -> Series:
    """Rows and columns exchanged, and the header does not know."""
    return with_pixels(series, lambda stack: np.swapaxes(stack, 1, 2))


def wrongly_monochrome1(series: Series) -> Series:
    """MONOCHROME1 written on images whose small values are dark."""
    return labelled(PhotometricInterpretation="MONOCHROME1")(series)


def inverted(series: Series) -> Series:
    """Inverted by an export, and still called MONOCHROME2."""
    return with_pixels(series, with_inversion)


def blank_between(series: Series) -> Series:
    """One empty image in the stack."""

    def empty(stack: NDArray[np.float32]) -> NDArray[np.float32]:
        stack[3] = 0
        return stack

    return with_pixels(series, empty)


def screws(series: Series) -> Series:
    """Screws in L3 to L5, as titanium leaves them; places by hand for this patient."""
    return with_pixels(series, lambda stack: with_metal(stack, SCREWS, 9.0, (3.0, 0.46875, 0.46875)))


SCREWS = [
    (float(number), row, column)
    for number in (1, 4)
    for row, column in ((305.0, 298.0), (378.0, 305.0), (455.0, 322.0))
]
