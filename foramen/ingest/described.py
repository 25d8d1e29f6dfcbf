"""The attributes that every wrapped object shares: whose it is, which study and series, what made it. Pure.

DICOM PS3.3 C.7.1.1 (Patient), C.7.2.1 (General Study), C.7.3.1 (General Series), C.7.5.2 (Enhanced General Equipment).
"""

from __future__ import annotations

import hashlib

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from foramen import __version__
from foramen.ingest.sidecar import Description
from foramen.kernel.identifiers import derived_uid

IMPLEMENTATION_CLASS_UID = derived_uid("implementation", "foramen")
_LONGEST_DESCRIPTION = 64


def study_uid_of(description: Description) -> str:
    """Study Instance UID: of the study key where there is one, else of the whole description.

    So everything that one sidecar describes lies in one study, and a repeat names the same one.
    """
    key = description.study_key or hashlib.sha256(description.model_dump_json().encode()).hexdigest()
    return derived_uid("study", description.issuer or "", description.patient_id, key)


def described(description: Description, sop_class: str, modality: str, *, study_uid: str, series_uid: str) -> Dataset:
    """Return a new dataset with the modules of patient, study, series and equipment.

    Parameters
    ----------
    sop_class : SOP Class UID
    modality : value of (0008,0060) where the description names none
    """
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = description.study_date
    dataset.StudyTime = dataset.ContentTime = ""
    dataset.AccessionNumber = description.accession_number
    dataset.Modality = description.modality or modality
    dataset.Manufacturer = description.manufacturer
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = labelled(description.study_description, description.synthetic)
    dataset.SeriesDescription = labelled(description.series_description, description.synthetic)
    if description.derivation:
        dataset.DerivationDescription = description.derivation
    dataset.PatientName = description.patient_name
    dataset.PatientID = description.patient_id
    if description.issuer:
        dataset.IssuerOfPatientID = description.issuer
    dataset.PatientBirthDate = description.patient_birth_date
    dataset.PatientSex = description.patient_sex
    dataset.BodyPartExamined = description.body_part
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series_uid
    dataset.StudyID = ""
    dataset.SeriesNumber = description.series_number
    return dataset


def labelled(text: str, synthetic: bool) -> str:
    """Return a description that says so when what it describes is synthetic."""
    if not synthetic or "SYNTHETIC" in text:
        return text
    return f"SYNTHETIC {text}".strip()[:_LONGEST_DESCRIPTION]


def equipment(dataset: Dataset) -> None:
    """Add Enhanced General Equipment, whose attributes must have values (PS3.3 Table C.7-8b): this program."""
    dataset.Manufacturer = dataset.Manufacturer or "Foramen"
    dataset.ManufacturerModelName = "foramen ingest"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = __version__


def finished(dataset: Dataset, sop_instance_uid: str, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Name the instance and add its file meta information (PS3.10 §7.1)."""
    dataset.SOPInstanceUID = sop_instance_uid
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = "FORAMEN"
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
    return dataset
