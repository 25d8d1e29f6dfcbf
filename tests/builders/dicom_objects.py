"""SYNTHETIC objects that are no plain series: a colour image, a report, a document, a presentation state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import BasicTextSRStorage, GrayscaleSoftcopyPresentationStateStorage, SecondaryCaptureImageStorage

from tests.builders.dicom import series

_PIXELS = (
    *("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing", "WindowCenter", "WindowWidth"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices"),
)


def without_pixels(seed: int, sop_class: str) -> Dataset:
    """The header of a SYNTHETIC instance of a class that has no pixels."""
    dataset = series(1, seed=seed, patient_id=f"SYN-{seed}")[0]
    for keyword in _PIXELS:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    return dataset


def colour_instance(seed: int, **attributes: Any) -> Dataset:
    """An RGB image of noise, 32 × 24."""
    dataset = series(1, seed=seed, size=(32, 24), depth="uint8", patient_id=f"SYN-{seed}")[0]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = np.random.default_rng(seed).integers(0, 255, (32, 24, 3)).astype(np.uint8).tobytes()
    for keyword in ("WindowCenter", "WindowWidth"):
        dataset.pop(keyword, None)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """A code sequence of one item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def structured_report(seed: int, finding: str) -> Dataset:
    """A report with a text and a measurement."""
    dataset = without_pixels(seed, BasicTextSRStorage)
    dataset.Modality, dataset.ValueType, dataset.ContinuityOfContent = "SR", "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag = "PARTIAL", "UNVERIFIED"
    dataset.ConceptNameCodeSequence = code("18748-4", "LN", "Imaging Report")
    text, length, measured = Dataset(), Dataset(), Dataset()
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", finding
    text.ConceptNameCodeSequence = code("121071", "DCM", "Finding")
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "11.2", code("mm", "UCUM", "mm")
    length.RelationshipType, length.ValueType, length.MeasuredValueSequence = "CONTAINS", "NUM", [measured]
    length.ConceptNameCodeSequence = code("410668003", "SCT", "Length")
    dataset.ContentSequence = [text, length]
    return dataset


def presentation_state(seed: int, images: Sequence[Dataset], window: tuple[float, float]) -> Dataset:
    """A grayscale softcopy presentation state: a window, inverse, turned by 90° and mirrored."""
    dataset = without_pixels(seed, GrayscaleSoftcopyPresentationStateStorage)
    for keyword in ("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName"):
        if keyword in images[0]:
            setattr(dataset, keyword, images[0][keyword].value)
    dataset.Modality, dataset.PresentationLUTShape = "PR", "INVERSE"
    dataset.ImageRotation, dataset.ImageHorizontalFlip = 90, "Y"
    shown, softcopy = Dataset(), Dataset()
    shown.SeriesInstanceUID = images[0].SeriesInstanceUID
    shown.ReferencedImageSequence = [_reference(image) for image in images]
    softcopy.WindowCenter, softcopy.WindowWidth = window
    dataset.ReferencedSeriesSequence, dataset.SoftcopyVOILUTSequence = [shown], [softcopy]
    return dataset


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item
