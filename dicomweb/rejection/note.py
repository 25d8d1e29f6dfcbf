"""Rejection notes: Key Object Selection documents that name what is rejected and why. Pure functions over datasets.

DICOM PS3.3 §A.35.4 (Key Object Selection Document IOD), §C.17.6, PS3.16 TID 2010; IHE RAD TF-2 4.66.4.1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage, generate_uid

from dicomweb.instance_header import OWN_MANUFACTURER
from dicomweb.rejection.codes import SCHEME, RejectionCode

SOP_CLASS = str(KeyObjectSelectionDocumentStorage)
MOST_REFERENCES = 100_000
_STUDY_LEVEL = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
)


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One instance that a note names."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


@dataclass(frozen=True, slots=True)
class RejectionNote:
    """What a received note says; `foreign`: it names instances of other studies than its own too."""

    code: RejectionCode
    text: str
    references: tuple[Reference, ...]
    foreign: bool


@dataclass(frozen=True, slots=True)
class WrittenNote:
    """A note of ours, as a DICOM file."""

    series_instance_uid: str
    sop_instance_uid: str
    content: bytes


def write_note(
    study: dict[str, Any], references: Sequence[Reference], code: RejectionCode, text: str, now: datetime
) -> WrittenNote:
    """Write a note about instances of one study.

    Parameters
    ----------
    study : study level of the index (DICOM JSON model): the note is in the same study, and of the same patient
    references : at least one
    text : why, in a person's words; may be empty
    now : aware time of the rejection
    """
    known = Dataset.from_json({tag: value for tag, value in study.items() if "BulkDataURI" not in value})
    note = Dataset()
    note.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _STUDY_LEVEL:
        if keyword in known:
            note[keyword] = known[keyword]
        elif keyword != "IssuerOfPatientID":
            setattr(note, keyword, "")
    local = now.astimezone()
    day, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    note.SOPClassUID, note.SOPInstanceUID = SOP_CLASS, generate_uid(prefix=None)
    note.Modality, note.SeriesInstanceUID = "KO", generate_uid(prefix=None)
    note.SeriesNumber, note.InstanceNumber = 1, 1
    note.SeriesDescription = "Rejection Note"
    note.Manufacturer = OWN_MANUFACTURER
    note.SeriesDate = note.ContentDate = day
    note.SeriesTime = note.ContentTime = time
    note.TimezoneOffsetFromUTC = local.strftime("%z")
    note.ReferencedPerformedProcedureStepSequence = []
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = [_code(str(code), code.meaning)]
    note.ContentTemplateSequence = [_template()]
    note.ContentSequence = [*([_description(text)] if text else []), *(_mentioned(item) for item in references)]
    note.CurrentRequestedProcedureEvidenceSequence = [_evidence(str(note.StudyInstanceUID), references)]
    note.file_meta = FileMetaDataset()
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    target = BytesIO()
    dcmwrite(target, note, enforce_file_format=True)
    return WrittenNote(str(note.SeriesInstanceUID), str(note.SOPInstanceUID), target.getvalue())


def read_note(dataset: Dataset) -> RejectionNote | None:
    """Return what a note says; None: the instance is no rejection note.

    Raises
    ------
    ValueError
        It has the title of a rejection note, and names nothing, or more than `MOST_REFERENCES`.
    """
    if str(dataset.get("SOPClassUID", "")) != SOP_CLASS:
        return None
    titles = dataset.get("ConceptNameCodeSequence") or []
    try:
        code = RejectionCode(str(titles[0].get("CodeValue", "")))
    except (IndexError, ValueError):
        return None
    if str(titles[0].get("CodingSchemeDesignator", "")) != SCHEME:
        return None
    own, foreign = str(dataset.StudyInstanceUID), False
    found: dict[str, Reference] = {}
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []:
        if str(study.get("StudyInstanceUID", "")) != own:
            foreign = True
            continue
        for series in study.get("ReferencedSeriesSequence") or []:
            for item in series.get("ReferencedSOPSequence") or []:
                names = (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID)
                found[str(names[1])] = Reference(*(str(name) for name in names))
    if len(found) > MOST_REFERENCES or not (found or foreign):
        raise ValueError("A rejection note names at least one instance")
    return RejectionNote(code, _text_of(dataset), tuple(sorted(found.values())), foreign)


def _evidence(study: str, references: Sequence[Reference]) -> Dataset:
    evidence = Dataset()
    evidence.StudyInstanceUID = study
    by_series: dict[str, list[Dataset]] = {}
    for item in sorted(references):
        by_series.setdefault(item.series_instance_uid, []).append(_sop(item))
    evidence.ReferencedSeriesSequence = []
    for uid, items in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID, series.ReferencedSOPSequence = uid, items
        evidence.ReferencedSeriesSequence.append(series)
    return evidence


def _sop(item: Reference) -> Dataset:
    sop = Dataset()
    sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID = item.sop_class_uid, item.sop_instance_uid
    return sop


def _mentioned(item: Reference) -> Dataset:
    """Content item for one instance (TID 2010 rows 5 to 7: IMAGE, WAVEFORM or COMPOSITE)."""
    content = Dataset()
    content.RelationshipType = "CONTAINS"
    content.ValueType = "IMAGE" if "Image Storage" in UID(item.sop_class_uid).name else "COMPOSITE"
    content.ReferencedSOPSequence = [_sop(item)]
    return content


def _description(text: str) -> Dataset:
    content = Dataset()
    content.RelationshipType, content.ValueType = "CONTAINS", "TEXT"
    content.ConceptNameCodeSequence = [_code("113012", "Key Object Description")]
    content.TextValue = text
    return content


def _text_of(dataset: Dataset) -> str:
    for item in dataset.get("ContentSequence") or []:
        names = item.get("ConceptNameCodeSequence") or []
        if item.get("ValueType") == "TEXT" and names and names[0].get("CodeValue") == "113012":
            return str(item.get("TextValue") or "")
    return ""


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, SCHEME, meaning
    return code


def _template() -> Dataset:
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    return template
