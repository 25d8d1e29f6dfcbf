"""Wrap grey pictures as a classic MR series with true geometry. Pure: the same input gives the same UIDs and bytes.

DICOM PS3.3 A.4 (MR Image IOD), C.7.6.2 (Image Plane), C.7.6.3 (Image Pixel).
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from foramen.ingest.described import described, finished
from foramen.ingest.sidecar import Sidecar
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.identifiers import derived_uid

_SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
"""Image Orientation (Patient), LPS: along a row to posterior (+y), along a column to inferior (−z)."""

_NAMED_BY = (
    *("patient_id", "issuer", "patient_name", "patient_birth_date", "patient_sex", "study_key", "study_description"),
    *("study_date", "accession_number", "series_description", "series_number", "pixel_spacing_mm", "slice_spacing_mm"),
    *("slice_thickness_mm", "slice_index_pattern", "orientation", "body_part", "echo_time_ms", "repetition_time_ms"),
    *("echo_train_length", "flip_angle_deg", "magnetic_field_strength_t", "scanning_sequence", "acquisition_type"),
    *("sequence_name", "manufacturer", "synthetic", "derivation"),
)
"""Fields that the UIDs follow from, in this order: another one would name series anew that archives have already."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One picture: `pixels` has shape (row, column), uint8 or uint16; `index` counts slice spacings along ±x."""

    index: int
    pixels: NDArray[Any]
    lossy: bool = False


def wrap_volume(volume: NDArray[Any], sidecar: Sidecar) -> list[Dataset]:
    """Wrap an array.

    Parameters
    ----------
    volume : shape (slice, row, column), uint8 or uint16; rows head to foot, columns anterior to posterior
    sidecar : whose it is, and its spacings
    """
    return wrap_slices([Slice(index, plane) for index, plane in enumerate(volume)], sidecar)


def wrap_slices(slices: list[Slice], sidecar: Sidecar) -> list[Dataset]:
    """Build one MR series.

    Parameters
    ----------
    slices : any order; positions follow their `index`, gaps stay gaps
    sidecar : whose they are, and their spacings

    Returns
    -------
    One dataset with file meta information per slice, in order of position. Positions in LPS millimetres; the series is
    centred on x = 0. The sign of x is a convention: pictures do not say which side they start from.

    Raises
    ------
    InvalidRequestError
        No slices, unequal sizes or types, or one index twice.

    Source: DICOM PS3.3 C.7.6.2 (Image Plane).
    """
    ordered = sorted(slices, key=lambda item: item.index)
    _check(ordered)
    fingerprint = _fingerprint(ordered, sidecar)
    patient = (sidecar.issuer or "", sidecar.patient_id)
    study_uid = derived_uid("study", *patient, sidecar.study_key or fingerprint)
    series_uid = derived_uid("series", study_uid, fingerprint)
    steps = [after.index - before.index for before, after in itertools.pairwise(ordered)]
    between_mm = (min(steps) if steps else 1) * sidecar.slice_spacing_mm
    centre = (ordered[0].index + ordered[-1].index) / 2
    datasets = []
    for number, item in enumerate(ordered, start=1):
        dataset = _series_attributes(sidecar, study_uid, series_uid)
        dataset.InstanceNumber = number
        _image_plane(dataset, item, sidecar, between_mm, centre)
        _image_pixel(dataset, item)
        datasets.append(finished(dataset, derived_uid("instance", series_uid, str(item.index))))
    return datasets


def _check(ordered: list[Slice]) -> None:
    if not ordered:
        raise InvalidRequestError("A series needs at least one slice")
    if len({item.index for item in ordered}) < len(ordered):
        raise InvalidRequestError("Two slices have the same index")
    shapes = {(item.pixels.shape, item.pixels.dtype.name) for item in ordered}
    if len(shapes) > 1:
        raise InvalidRequestError("The slices differ in size or depth")
    shape, depth = next(iter(shapes))
    if len(shape) != 2 or 0 in shape or depth not in ("uint8", "uint16"):
        raise InvalidRequestError("A slice must be a grey picture of 8 or 16 bit")


def _fingerprint(ordered: list[Slice], sidecar: Sidecar) -> str:
    values = sidecar.model_dump()
    digest = hashlib.sha256(to_json({name: values[name] for name in _NAMED_BY}))
    for item in ordered:
        digest.update(f"{item.index}:{item.pixels.shape}:{item.pixels.dtype.str}".encode())
        digest.update(np.ascontiguousarray(item.pixels).tobytes())
    return digest.hexdigest()


def _series_attributes(sidecar: Sidecar, study_uid: str, series_uid: str) -> Dataset:
    dataset = described(sidecar, MRImageStorage, "MR", study_uid=study_uid, series_uid=series_uid)
    dataset.Modality = "MR"  # What the class is for, whatever the description says.
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    _sequence_hints(dataset, sidecar)
    dataset.FrameOfReferenceUID = derived_uid("frame-of-reference", series_uid)
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = ""
    return dataset


def _sequence_hints(dataset: Dataset, sidecar: Sidecar) -> None:
    dataset.ScanningSequence = sidecar.scanning_sequence
    dataset.SequenceVariant = "NONE"
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = sidecar.acquisition_type
    dataset.EchoTime = sidecar.echo_time_ms
    dataset.RepetitionTime = sidecar.repetition_time_ms
    dataset.EchoTrainLength = sidecar.echo_train_length
    if sidecar.flip_angle_deg is not None:
        dataset.FlipAngle = sidecar.flip_angle_deg
    if sidecar.magnetic_field_strength_t is not None:
        dataset.MagneticFieldStrength = sidecar.magnetic_field_strength_t
    if sidecar.sequence_name:
        dataset.SequenceName = sidecar.sequence_name


def _image_plane(dataset: Dataset, item: Slice, sidecar: Sidecar, between_mm: float, centre: float) -> None:
    rows, columns = item.pixels.shape
    row_mm, column_mm = sidecar.pixel_spacing_mm
    x_mm = (item.index - centre) * sidecar.slice_spacing_mm
    corner = (x_mm, -(columns - 1) / 2 * column_mm, (rows - 1) / 2 * row_mm)
    dataset.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    dataset.ImageOrientationPatient = list(_SAGITTAL)
    dataset.ImagePositionPatient = [_decimal(value) for value in corner]
    dataset.SliceLocation = _decimal(x_mm)
    dataset.SliceThickness = _decimal(sidecar.slice_thickness_mm or sidecar.slice_spacing_mm)
    dataset.SpacingBetweenSlices = _decimal(between_mm)


def _decimal(value: float) -> float:
    """A value whose text fits the 16 characters of VR DS."""
    return round(value, 6) + 0.0


def _image_pixel(dataset: Dataset, item: Slice) -> None:
    bits = item.pixels.dtype.itemsize * 8
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = item.pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    low, high = float(item.pixels.min()), float(item.pixels.max())
    if bits == 8:
        low, high = 0.0, 255.0
    dataset.WindowCenter, dataset.WindowWidth = (low + high + 1) / 2, max(high - low + 1, 1.0)
    if item.lossy:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
    data = np.ascontiguousarray(item.pixels.astype(item.pixels.dtype.newbyteorder("<"))).tobytes()
    dataset.PixelData = data + b"\x00" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
