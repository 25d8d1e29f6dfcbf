"""Headers of the source instances, made complete enough to derive results from them (stage 5).

DICOM PS3.3 C.7.1, C.7.2: type 2 attributes that a sender left out are present and empty; nothing is invented.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from pydicom.dataset import Dataset

from ai_services.prediction import Prediction
from foramen.kernel.dicom_text import mend_escape_sequences
from foramen.kernel.identifiers import derived_uid

mend_escape_sequences()

_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


def source_headers(prediction: Prediction, datasets: Sequence[Dataset]) -> list[Dataset]:
    """Headers of the source instances in the slice order of the prediction.

    Parameters
    ----------
    prediction : names the instances by SOP Instance UID
    datasets : the instances of the series in any order; pixel data is not needed

    Raises
    ------
    ValueError
        An instance of the prediction is not among the datasets.
    """
    by_uid = {str(dataset.SOPInstanceUID): dataset for dataset in datasets}
    missing = [uid for uid in prediction.sop_instance_uids if uid not in by_uid]
    if missing:
        raise ValueError(f"{len(missing)} source instances are not at hand")
    return [_complete(by_uid[uid]) for uid in prediction.sop_instance_uids]


def copy_issuer(source: Dataset, result: Dataset) -> None:
    """Give a result the patient's issuer (PS3.3 C.7.1.1): without it another hospital's patient has the same id."""
    for keyword in ("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"):
        if keyword in source:
            setattr(result, keyword, source[keyword].value)


def _complete(dataset: Dataset) -> Dataset:
    header = copy(dataset)
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, "")
    if not header.get("FrameOfReferenceUID"):
        # Type 1 for MR, but left out by some converters: instances of one series share one frame.
        header.FrameOfReferenceUID = derived_uid(str(header.SeriesInstanceUID), "frame-of-reference")
    if not header.get("SpecificCharacterSet"):
        header.SpecificCharacterSet = "ISO_IR 192"
    return header
