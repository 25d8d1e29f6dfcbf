"""A registration as DICOM Spatial Registration Storage, with its quality said in words (stage 5).

DICOM PS3.3 A.39.1 and C.20.2: the matrix of an item maps points of that item's frame of reference to the frame of the
object (Frame of Reference UID of the object, here that of the CT). Units are millimetres, LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian

from ai_services.registration.quality import Quality
from ai_services.registration.register import Registration
from ai_services.results.context import MANUFACTURER
from ai_services.results.dicom_source import copy_issuer
from foramen.kernel.identifiers import derived_uid

SPATIAL_REGISTRATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.1"
SERIES_NUMBER = 9005
SERIES_DESCRIPTION = "MR-CT registration (unverified)"
IDENTITY: Code = codes.DCM.FrameOfReferenceIdentity
BY_CONTENT: Code = codes.DCM.ImageContentBasedAlignment
"""PS3.16 CID 7100."""
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID")
_STUDY = ("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName")


def build_spatial_registration(
    registration: Registration,
    fixed: Sequence[Dataset],
    moving: Sequence[Dataset],
    made_at: datetime,
    software_version: str,
    key: Sequence[str] = (),
) -> Dataset:
    """Build the object; it belongs to the study of the fixed series.

    Parameters
    ----------
    registration : its transform maps the fixed series' frame to the moving one's
    fixed, moving : instances of both series, headers suffice
    made_at : aware time
    software_version : of the software that registered
    key : names the run, see `derived_uid`; frames of reference and version without it

    Raises
    ------
    ValueError
        A series has no frame of reference, or both have the same.
    """
    frames = [_frame_of(series) for series in (fixed, moving)]
    if frames[0] == frames[1]:
        raise ValueError("both series have the same frame of reference: there is nothing to register")
    dataset = _head(fixed[0], made_at, software_version, key or (*frames, software_version))
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frames[0], ""
    dataset.ContentLabel = "MR_CT_RIGID"
    dataset.ContentDescription = quality_text(registration.quality)[:64]
    dataset.ContentCreatorName = f"{MANUFACTURER}^"
    dataset.ContentDate, dataset.ContentTime = made_at.strftime("%Y%m%d"), made_at.strftime("%H%M%S")
    to_fixed = registration.transform.inverse().matrix()
    dataset.RegistrationSequence = DicomSequence(
        [
            _item(fixed, frames[0], np.eye(4), "identity", IDENTITY),
            _item(moving, frames[1], to_fixed, quality_text(registration.quality), BY_CONTENT),
        ]
    )
    dataset.ReferencedSeriesSequence = DicomSequence([_series(fixed)])
    if str(moving[0].StudyInstanceUID) == str(fixed[0].StudyInstanceUID):
        dataset.ReferencedSeriesSequence.append(_series(moving))
    else:
        other = Dataset()
        other.StudyInstanceUID = moving[0].StudyInstanceUID
        other.ReferencedSeriesSequence = DicomSequence([_series(moving)])
        dataset.StudiesContainingOtherReferencedInstancesSequence = DicomSequence([other])
    return dataset


def quality_text(quality: Quality) -> str:
    """The quality in one line; what was not measured says so."""

    def told(value: float | None, unit: str) -> str:
        return "not measured" if value is None else f"{value:.1f} {unit}" if unit else f"{value:.2f}"

    return (
        f"surfaces {told(quality.surface_mm, 'mm')}, overlap {told(quality.overlap, '')}, "
        f"starts {told(quality.spread_mm, 'mm')}, n={quality.vertebrae}"
    )


def _head(source: Dataset, made_at: datetime, software_version: str, key: Sequence[str]) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # DICOMweb clients write what is there: without preamble and these elements it is no file of PS3.10 §7.1.
    dataset.file_meta.FileMetaInformationGroupLength = 0  # counted when it is written
    dataset.preamble = b"\0" * 128
    dataset.file_meta.FileMetaInformationVersion = b"\0\1"
    dataset.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    for keyword in (*_PATIENT, *_STUDY):
        if keyword in source or keyword != "IssuerOfPatientID":
            setattr(dataset, keyword, source.get(keyword, ""))
    copy_issuer(source, dataset)
    dataset.SpecificCharacterSet = source.get("SpecificCharacterSet") or "ISO_IR 192"
    # Not the time: the same series registered by the same method are the same object, however often they are.
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SPATIAL_REGISTRATION_STORAGE
    uid = derived_uid("spatial-registration", *key)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "REG", SERIES_NUMBER, 1
    dataset.SeriesInstanceUID = derived_uid("spatial-registration-series", *key)
    dataset.SeriesDescription, dataset.Laterality = SERIES_DESCRIPTION, ""
    dataset.SeriesDate = dataset.InstanceCreationDate = made_at.strftime("%Y%m%d")
    dataset.SeriesTime = dataset.InstanceCreationTime = made_at.strftime("%H%M%S")
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, "registration"
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = software_version, "1"
    return dataset


def _item(series: Sequence[Dataset], frame: str, matrix: NDArray[np.float64], comment: str, kind: Code) -> Dataset:
    """One item of the Registration Sequence: a frame of reference, its images, and the way to the object's frame."""
    one = Dataset()
    one.FrameOfReferenceTransformationMatrixType = "RIGID"
    one.FrameOfReferenceTransformationMatrix = [round(float(value), 10) for value in matrix.ravel()]
    chain = Dataset()
    chain.MatrixSequence = DicomSequence([one])
    chain.FrameOfReferenceTransformationComment = comment
    chain.RegistrationTypeCodeSequence = DicomSequence([CodedConcept.from_code(kind)])
    item = Dataset()
    item.FrameOfReferenceUID = frame
    item.ReferencedImageSequence = DicomSequence([_reference(dataset) for dataset in series])
    item.MatrixRegistrationSequence = DicomSequence([chain])
    return item


def _series(series: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = series[0].SeriesInstanceUID
    item.ReferencedInstanceSequence = DicomSequence([_reference(dataset) for dataset in series])
    return item


def _reference(dataset: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    return item


def _frame_of(series: Sequence[Dataset]) -> str:
    frames = {str(dataset.get("FrameOfReferenceUID", "") or "") for dataset in series}
    if len(frames) != 1 or "" in frames:
        raise ValueError("each series needs one frame of reference")
    return frames.pop()
