"""Measures taken from headers: slice distances, missing slices, gaps, how much of the body the images cover.

DICOM PS3.3 C.7.6.2 (Image Plane): positions decide, never instance numbers. Patient coordinates LPS, millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.imaging.geometry import image_orientation
from ai_services.quality.measure import CannotLookError


def distances_mm(datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    """Distances of neighbouring slices along the normal, ascending order of place; shape (slices - 1,).

    Raises
    ------
    CannotLookError
        Fewer than two images, or an image without position or orientation.
    """
    if len(datasets) < 2:
        raise CannotLookError("fewer than two images", "少于两幅图像")
    cosines = image_orientation(datasets[0])
    if cosines is None:
        raise CannotLookError("the images do not say where they are", "图像缺少空间位置信息")
    positions = np.array([_position(dataset) for dataset in datasets])
    found: NDArray[np.float64] = np.diff(np.sort(positions @ np.cross(cosines[0], cosines[1])))
    return found


def irregularity_mm(datasets: Sequence[Dataset]) -> float:
    """Largest deviation of a slice distance from the median, missing slices apart."""
    distances = distances_mm(datasets)
    median = _median(distances)
    return float(np.abs(distances - np.maximum(1, np.rint(distances / median)) * median).max())


def missing_slices(datasets: Sequence[Dataset]) -> int:
    """Return how many slices fit into distances that are whole multiples of the median."""
    distances = distances_mm(datasets)
    return int((np.maximum(1, np.rint(distances / _median(distances))) - 1).sum())


def gap_mm(datasets: Sequence[Dataset]) -> float:
    """Median slice distance less the slice thickness; 0 where slices touch or overlap."""
    thickness = datasets[0].get("SliceThickness") if datasets else None
    if thickness in (None, ""):
        raise CannotLookError("the slice thickness is not stated", "未注明层厚")
    return max(0.0, _median(distances_mm(datasets)) - float(thickness))


def extent_mm(datasets: Sequence[Dataset]) -> tuple[float, float]:
    """Return how far the image centres' grid reaches from head to foot and from left to right.

    Raises
    ------
    CannotLookError
        An image without position, orientation or spacing.
    """
    corners = []
    for dataset in datasets:
        cosines, spacing = image_orientation(dataset), dataset.get("PixelSpacing")
        if cosines is None or spacing is None or len(spacing) != 2:
            raise CannotLookError("the images do not say where they are", "图像缺少空间位置信息")
        down = cosines[1] * float(spacing[0]) * (int(dataset.Rows) - 1)
        along = cosines[0] * float(spacing[1]) * (int(dataset.Columns) - 1)
        first = _position(dataset)
        corners += [first, first + down, first + along, first + down + along]
    reach = np.ptp(np.array(corners), axis=0)
    return float(reach[2]), float(reach[0])


def phase_axis(dataset: Dataset) -> int | None:
    """Array axis along which phase was encoded: 1 rows run (COL), 2 columns run (ROW); None: not stated (0018,1312)."""
    value = str(dataset.get("InPlanePhaseEncodingDirection", "")).upper()
    # ROW: phase was encoded along a row of pixels, that is along the column index (PS3.3 C.8.3.1).
    return {"ROW": 2, "COL": 1, "COLUMN": 1}.get(value)


def says_burnt_in(datasets: Sequence[Dataset]) -> bool:
    """Whether an image says of itself that it holds burnt-in identification (0028,0301)."""
    return any(str(dataset.get("BurnedInAnnotation", "")).upper() == "YES" for dataset in datasets)


def _median(distances: NDArray[np.float64]) -> float:
    median = float(np.median(distances))
    if median <= 0:
        raise CannotLookError("several images lie at the same place", "多幅图像位于同一位置")
    return median


def _position(dataset: Dataset) -> NDArray[np.float64]:
    value = dataset.get("ImagePositionPatient")
    if value is None or len(value) != 3:
        raise CannotLookError("an image has no position", "图像缺少位置信息")
    return np.array([float(number) for number in value])


def place_of(dataset: Dataset, fallback: int) -> float:
    """Place of an image along its normal in millimetres, or `fallback` where it does not say."""
    cosines, value = image_orientation(dataset), dataset.get("ImagePositionPatient")
    if cosines is None or value is None or len(value) != 3:
        return float(fallback)
    return float(np.cross(cosines[0], cosines[1]) @ _position(dataset))
