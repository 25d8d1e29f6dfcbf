"""Wrap a volume as a series of single-frame images whose voxels keep their place in space. Pure.

DICOM PS3.3 C.7.6.2.1.1 (Image Position and Orientation), C.11.1 (Modality LUT), A.3 (CT), A.4 (MR); PS3.5 §6.2 (DS).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from foramen.ingest.described import described, finished, study_uid_of
from foramen.ingest.sidecar import Description
from foramen.ingest.volume_file import Volume
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.identifiers import derived_uid

_SOP_CLASSES = {"MR": MRImageStorage, "CT": CTImageStorage}
_MOST_SLICES = 20_000
_LARGEST_SIDE = 65_535
_STEPS = 65_535
_SMALLEST_SPACING_MM = 1e-6


@dataclass(frozen=True, slots=True)
class Stored:
    """Voxels as DICOM stores them: `value = stored * slope + intercept`; `told` says what was changed, in words."""

    voxels: NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0
    told: tuple[str, ...] = ()


def stored_values(voxels: NDArray[Any]) -> Stored:
    """Return the voxels as 8 or 16 bit integers.

    Whole numbers that fit stay what they are. Others are spread over 65,536 steps from the smallest to the largest:
    what is lost is at most half a step, slope / 2.

    Raises
    ------
    InvalidRequestError
        Not one voxel is a number.
    """
    if voxels.dtype == np.uint8 or voxels.dtype in (np.int16, np.uint16):
        return Stored(voxels)
    told: tuple[str, ...] = ()
    if voxels.dtype.kind == "f":
        numbers = np.isfinite(voxels)
        missing = voxels.size - int(numbers.sum())
        if missing == voxels.size:
            raise InvalidRequestError("Not one voxel is a number")
        if missing:
            voxels = np.where(numbers, voxels, voxels[numbers].min())
            told = (f"{missing} voxels that are no number hold the smallest value",)
    low, high = float(voxels.min()), float(voxels.max())
    whole = voxels.dtype.kind in "iu" or bool(np.all(voxels == np.rint(voxels)))
    for kind in (np.uint8, np.int16, np.uint16):
        limits = np.iinfo(kind)
        if whole and limits.min <= low and high <= limits.max and (kind is not np.uint8 or voxels.dtype.kind == "u"):
            return Stored(voxels.astype(kind), told=told)
    # The slope is written with at most sixteen characters: the value that was written is the one to divide by.
    slope = float(format_number_as_ds((high - low) / _STEPS or 1.0))
    intercept = float(format_number_as_ds(low))
    steps = np.clip(np.rint((voxels.astype(np.float64) - intercept) / slope), 0, _STEPS).astype(np.uint16)
    text = f"stored as 16-bit integers with Rescale Slope {format_number_as_ds(slope)}"
    return Stored(steps, slope, intercept, (*told, text))


def wrap_world_volume(volume: Volume, description: Description) -> tuple[list[Dataset], tuple[str, ...]]:
    """Build one series of a volume that knows its place.

    Returns
    -------
    One dataset with file meta information per slice in the volume's order, and what was changed, in words. The centre
    of voxel (column, row) of slice k is ImagePositionPatient + column * PixelSpacing[1] * first three cosines +
    row * PixelSpacing[0] * last three cosines, in LPS millimetres, as PS3.3 C.7.6.2.1.1 has it.

    Raises
    ------
    InvalidRequestError
        Empty or too large for DICOM, a spacing that is none, or axes that are not at right angles.
    """
    _check(volume)
    stored = stored_values(volume.voxels)
    fingerprint = _fingerprint(volume, description)
    study_uid = study_uid_of(description)
    series_uid = derived_uid("series", study_uid, fingerprint)
    modality = description.modality or "MR"
    sop_class = _SOP_CLASSES.get(modality, SecondaryCaptureImageStorage)
    middle, width = _window(stored)
    datasets = []
    for index in range(len(stored.voxels)):
        dataset = described(description, sop_class, modality, study_uid=study_uid, series_uid=series_uid)
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
        dataset.InstanceNumber = index + 1
        _modality_attributes(dataset, modality)
        _plane(dataset, volume, index, series_uid)
        _pixels(dataset, stored, stored.voxels[index])
        dataset.WindowCenter, dataset.WindowWidth = _ds(middle), _ds(width)
        datasets.append(finished(dataset, derived_uid("instance", series_uid, str(index))))
    return datasets, stored.told


def _check(volume: Volume) -> None:
    shape = volume.voxels.shape
    if len(shape) != 3 or 0 in shape:
        raise InvalidRequestError("The volume holds no slice")
    if shape[0] > _MOST_SLICES or max(shape[1:]) > _LARGEST_SIDE:
        raise InvalidRequestError("The volume has more slices, rows or columns than a series can have")
    if not np.all(np.isfinite(volume.origin)) or not np.all(volume.spacing > _SMALLEST_SPACING_MM):
        raise InvalidRequestError("The spacing or the position is no number")
    if not np.allclose(volume.axes.T @ volume.axes, np.eye(3), atol=1e-4):
        raise InvalidRequestError("Its axes are not at right angles")


def _fingerprint(volume: Volume, description: Description) -> str:
    digest = hashlib.sha256(description.model_dump_json().encode())
    for array in (volume.origin, volume.spacing, volume.axes):
        digest.update(np.ascontiguousarray(array, np.float64).tobytes())
    digest.update(f"{volume.voxels.shape}:{volume.voxels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(volume.voxels).data)
    return digest.hexdigest()


def _modality_attributes(dataset: Dataset, modality: str) -> None:
    """Attributes that the IOD wants to be there, whatever is known (type 2)."""
    dataset.PatientPosition = ""
    dataset.PositionReferenceIndicator = ""
    if modality == "MR":
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", ""
        dataset.MRAcquisitionType = ""
        dataset.EchoTime = dataset.RepetitionTime = dataset.EchoTrainLength = None
    elif modality == "CT":
        dataset.KVP = None
        dataset.AcquisitionNumber = None
    else:
        dataset.ConversionType = "WSD"


def _plane(dataset: Dataset, volume: Volume, index: int, series_uid: str) -> None:
    column_mm, row_mm, slice_mm = (float(value) for value in volume.spacing)
    position = volume.origin + index * slice_mm * volume.axes[:, 2]
    dataset.FrameOfReferenceUID = derived_uid("frame-of-reference", series_uid)
    dataset.PixelSpacing = [_ds(row_mm), _ds(column_mm)]
    dataset.ImageOrientationPatient = [_ds(value) for value in (*volume.axes[:, 0], *volume.axes[:, 1])]
    dataset.ImagePositionPatient = [_ds(value) for value in position]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _ds(slice_mm)
    normal = np.cross(volume.axes[:, 0], volume.axes[:, 1])
    dataset.SliceLocation = _ds(float(normal @ position))


def _pixels(dataset: Dataset, stored: Stored, plane: NDArray[Any]) -> None:
    bits = plane.dtype.itemsize * 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(plane.dtype.kind == "i")
    if stored.slope != 1.0 or stored.intercept != 0.0 or dataset.Modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = _ds(stored.slope), _ds(stored.intercept)
        dataset.RescaleType = "HU" if dataset.Modality == "CT" else "US"
    data = np.ascontiguousarray(plane.astype(plane.dtype.newbyteorder("<"))).tobytes()
    dataset.PixelData = data + b"\x00" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def _window(stored: Stored) -> tuple[float, float]:
    """Centre and width that show all but the outermost hundredth of the values, after the rescale (PS3.3 C.11.2)."""
    low, high = (float(value) for value in np.percentile(stored.voxels[:: max(1, len(stored.voxels) // 16)], (1, 99)))
    low, high = low * stored.slope + stored.intercept, high * stored.slope + stored.intercept
    return (low + high) / 2, max(high - low, stored.slope)


def _ds(value: float) -> str:
    """Return a value as precisely as the 16 characters of VR DS can say it."""
    return str(format_number_as_ds(float(value) + 0.0))
