"""DICOM instances of one series → one volume with its place in the patient (stage 4).

DICOM PS3.3 C.7.6.2 (Image Plane): position and orientation decide, never instance numbers or file order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.imaging.volume import InvalidGeometryError, Volume

ORTHONORMAL_TOLERANCE = 1e-3
SPACING_TOLERANCE_MM = 0.05
SPACING_TOLERANCE_RATIO = 0.03
DEFAULT_SLICE_THICKNESS_MM = 4.0
GREYSCALE = ("MONOCHROME1", "MONOCHROME2")  # PS3.3 C.7.6.3.1.2; a palette or a colour is no grey value


@dataclass(frozen=True, slots=True)
class SeriesVolume:
    """A volume and the SOP Instance UID of each of its slices, in slice order."""

    volume: Volume
    sop_instance_uids: tuple[str, ...]


def is_enhanced(dataset: Dataset) -> bool:
    """Whether the instance is multi-frame with functional groups (PS3.3 C.7.6.16)."""
    return int(dataset.get("NumberOfFrames", None) or 1) > 1 or "PerFrameFunctionalGroupsSequence" in dataset


def image_orientation(dataset: Dataset) -> NDArray[np.float64] | None:
    """Row and column direction cosines, shape (2, 3), also from functional groups; None where not given."""
    value = dataset.get("ImageOrientationPatient")
    if value is None:
        for group in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            for item in (dataset.get(group) or [])[:1]:
                for plane in (item.get("PlaneOrientationSequence") or [])[:1]:
                    value = value if value is not None else plane.get("ImageOrientationPatient")
    if value is None or len(value) != 6:
        return None
    cosines = np.array([float(number) for number in value], dtype=np.float64).reshape(2, 3)
    return cosines if np.isfinite(cosines).all() else None


def volume_from_datasets(datasets: Sequence[Dataset]) -> SeriesVolume:
    """Sort, check and stack the single-frame instances of one series.

    Slices come in ascending order of their position along the normal (row × column direction). A constant in-plane
    shift from slice to slice (tilted gantry) is kept in the affine.

    Parameters
    ----------
    datasets : instances with pixel data, any order

    Raises
    ------
    InvalidGeometryError
        With `reason_code` zero-slices, enhanced-multi-frame, geometry-missing, mixed-geometry, duplicate-positions,
        missing-slices, non-uniform-spacing, unsupported-transfer-syntax, not-greyscale or invalid-pixel-data.
    """
    order, affine = place_in_patient(datasets)
    ordered = [datasets[index] for index in order]
    array = np.stack([pixel_values(dataset) for dataset in ordered])
    return SeriesVolume(Volume(array, affine), tuple(str(dataset.SOPInstanceUID) for dataset in ordered))


def place_in_patient(datasets: Sequence[Dataset]) -> tuple[list[int], NDArray[np.float64]]:
    """Order of the instances along the normal, and the affine of the stack; headers suffice.

    Returns
    -------
    indices into `datasets`, and shape (4, 4), which maps (slice, row, column, 1) to LPS millimetres

    Raises
    ------
    InvalidGeometryError
        zero-slices, enhanced-multi-frame, geometry-missing, mixed-geometry, duplicate-positions, missing-slices or
        non-uniform-spacing.
    """
    if not datasets:
        raise InvalidGeometryError.of("zero-slices")
    if any(is_enhanced(dataset) for dataset in datasets):
        raise InvalidGeometryError.of("enhanced-multi-frame")
    cosines, spacing = _common_plane(datasets)
    positions = np.stack([_position(dataset) for dataset in datasets])
    normal = np.cross(cosines[0], cosines[1])
    order = np.argsort(positions @ normal, kind="stable")
    affine = np.eye(4)
    affine[:3, 0] = _slice_step(positions[order], normal, datasets[int(order[0])])
    affine[:3, 1] = cosines[1] * spacing[0]  # the column direction runs along increasing row index
    affine[:3, 2] = cosines[0] * spacing[1]
    affine[:3, 3] = positions[order][0]
    return [int(index) for index in order], affine


def pixel_values(dataset: Dataset) -> NDArray[np.float32]:
    """Decoded grey values after the rescale transform (PS3.3 C.11.1), float32, shape (row, column)."""
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or photometric not in GREYSCALE:
        raise InvalidGeometryError.of("not-greyscale")
    try:
        stored = dataset.pixel_array
    except (AttributeError, KeyError) as exc:
        raise InvalidGeometryError.of("invalid-pixel-data") from exc
    except (NotImplementedError, RuntimeError) as exc:
        raise InvalidGeometryError.of("unsupported-transfer-syntax") from exc
    except (ValueError, TypeError, OSError, EOFError, IndexError) as exc:
        raise InvalidGeometryError.of("invalid-pixel-data") from exc
    if stored.ndim != 2:
        raise InvalidGeometryError.of("invalid-pixel-data")
    slope, intercept = float(dataset.get("RescaleSlope", 1) or 1), float(dataset.get("RescaleIntercept", 0) or 0)
    values: NDArray[np.float32] = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if photometric == "MONOCHROME1":
        values = values.max() + values.min() - values
    return values


def _common_plane(datasets: Sequence[Dataset]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    first = datasets[0]
    cosines = image_orientation(first)
    if cosines is None or first.get("PixelSpacing") is None or len(first.PixelSpacing) != 2:
        raise InvalidGeometryError.of("geometry-missing")
    if np.abs(cosines @ cosines.T - np.eye(2)).max() > ORTHONORMAL_TOLERANCE:
        raise InvalidGeometryError.of("geometry-missing")
    spacing = (float(first.PixelSpacing[0]), float(first.PixelSpacing[1]))
    for dataset in datasets:
        other = image_orientation(dataset)
        same = (
            other is not None
            and np.abs(other - cosines).max() < ORTHONORMAL_TOLERANCE
            and dataset.get("PixelSpacing") is not None
            and np.allclose([float(v) for v in dataset.PixelSpacing], spacing, rtol=1e-3)
            and (dataset.get("Rows"), dataset.get("Columns")) == (first.get("Rows"), first.get("Columns"))
        )
        if not same:
            raise InvalidGeometryError.of("mixed-geometry")
    return cosines, spacing


def _position(dataset: Dataset) -> NDArray[np.float64]:
    value = dataset.get("ImagePositionPatient")
    if value is None or len(value) != 3 or not np.isfinite([float(v) for v in value]).all():
        raise InvalidGeometryError.of("geometry-missing")
    return np.array([float(v) for v in value], dtype=np.float64)


def _slice_step(positions: NDArray[np.float64], normal: NDArray[np.float64], first: Dataset) -> NDArray[np.float64]:
    """Vector from one slice to the next; the slices must lie on one straight, evenly spaced line."""
    if len(positions) == 1:
        thickness = first.get("SpacingBetweenSlices") or first.get("SliceThickness") or DEFAULT_SLICE_THICKNESS_MM
        return normal * abs(float(thickness))
    along = positions @ normal
    gaps = np.diff(along)
    median = float(np.median(gaps))
    tolerance = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE_RATIO * median)
    if gaps.min() < SPACING_TOLERANCE_MM:
        raise InvalidGeometryError.of("duplicate-positions")
    if np.abs(gaps - median).max() > tolerance:
        multiples = np.rint(gaps / gaps.min())
        whole = np.abs(gaps - multiples * gaps.min()).max() <= tolerance
        raise InvalidGeometryError.of("missing-slices" if whole else "non-uniform-spacing")
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(positions) - 1)
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    if np.abs(positions - expected).max() > max(10 * tolerance, 0.5):
        raise InvalidGeometryError.of("non-uniform-spacing")
    return step
