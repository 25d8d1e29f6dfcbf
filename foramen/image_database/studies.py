"""Search of studies: by what QIDO-RS matches, narrowed by labels and institutions, which the record knows.

DICOM PS3.18 §10.6 (Search); https://hl7.org/fhir/R4/imagingstudy.html#search
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from foramen.image_database.attributes import day_of, number_of, text_of
from foramen.image_database.labels import LABEL_SYSTEM, labels_of, token
from foramen.image_database.record import Record
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError

PAGE_SIZE = 24
MOST_NARROWED = 500
_CHUNK = 100
_LARGEST_QIDO_PAGE = 1000
_LONGEST_HAN_NAME = 8
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
MODALITIES = ("MR", "CT", "DX", "CR", "XA", "US", "OT", "XC", "ES", "SEG", "SR", "M3D")
FILTERS = ("patient_id", "name", "since", "until", "modality", "body_part", "description", "label", "institution")


@dataclass(slots=True)
class StudyLine:
    """What a list shows of a study; `record_id` is the id of its ImagingStudy, empty where there is none in reach."""

    uid: str
    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    date: str
    accession_number: str
    description: str
    modalities: list[str]
    series: int
    instances: int
    record_id: str = ""
    patient: str = ""
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Found:
    """One page of a search; `total` is None where nobody counted."""

    lines: list[StudyLine]
    more: bool
    total: int | None = None


def qido_parameters(query: dict[str, str]) -> list[tuple[str, str]]:
    """Return the QIDO-RS parameters of the fields of the search form. Pure.

    Raises
    ------
    InvalidRequestError
        A day is none, or the modality.
    """
    parameters: list[tuple[str, str]] = []
    if value := query.get("patient_id", "").strip():
        parameters.append(("PatientID", value))
    if value := query.get("name", "").strip():
        parameters.append(("PatientName", name_pattern(value)))
    since, until = (query.get(name, "").strip() for name in ("since", "until"))
    if any(day and not _DAY.fullmatch(day) for day in (since, until)):
        raise InvalidRequestError("A day is written as 2026-01-31")
    if since or until:
        parameters.append(("StudyDate", f"{since.replace('-', '')}-{until.replace('-', '')}"))
    if value := query.get("modality", ""):
        if value not in MODALITIES:
            raise InvalidRequestError("There is no such modality")
        parameters.append(("ModalitiesInStudy", value))
    if value := query.get("description", "").strip():
        parameters.append(("StudyDescription", f"*{value}*"))
    return parameters


def name_pattern(typed: str) -> str:
    """Return the wildcard pattern of a name: its parts in their order. Pure.

    Chinese names are written without a space, and nobody can tell where the family name ends: each character is a part.
    """
    parts = list(typed.replace(" ", "")) if not typed.isascii() and len(typed) <= _LONGEST_HAN_NAME else typed.split()
    return f"*{'*'.join(parts)}*"


def line_of(attributes: dict[str, Any]) -> StudyLine:
    """Return the line of a study that QIDO-RS found. Pure."""
    return StudyLine(
        uid=text_of(attributes, "StudyInstanceUID"),
        patient_id=text_of(attributes, "PatientID"),
        patient_name=text_of(attributes, "PatientName"),
        birth_date=day_of(attributes, "PatientBirthDate"),
        sex=text_of(attributes, "PatientSex"),
        date=day_of(attributes, "StudyDate"),
        accession_number=text_of(attributes, "AccessionNumber"),
        description=text_of(attributes, "StudyDescription"),
        modalities=text_of(attributes, "ModalitiesInStudy").split(),
        series=number_of(attributes, "NumberOfStudyRelatedSeries"),
        instances=number_of(attributes, "NumberOfStudyRelatedInstances"),
    )


async def search(record: Record, query: dict[str, str], page: int) -> Found:
    """Search.

    Raises
    ------
    InvalidRequestError
        A field that cannot be searched for.
    PayloadTooLargeError
        A label, institution or body part leaves more than can be narrowed: other fields have to help.
    """
    parameters = qido_parameters(query)
    narrowed = await _narrowed(record, query)
    offset = (page - 1) * PAGE_SIZE
    if narrowed is None:
        bounds = [("limit", str(PAGE_SIZE + 1)), ("offset", str(offset))]
        found = await record.found("/studies", [*parameters, *bounds])
        lines, more, total = [line_of(item) for item in found[:PAGE_SIZE]], len(found) > PAGE_SIZE, None
    else:
        everything = await _among(record, parameters, sorted(narrowed))
        lines, total = everything[offset : offset + PAGE_SIZE], len(everything)
        more = total > offset + PAGE_SIZE
    await add_record(record, lines)
    return Found(lines, more, total)


async def _among(record: Record, parameters: list[tuple[str, str]], uids: list[str]) -> list[StudyLine]:
    found: list[StudyLine] = []
    for start in range(0, len(uids), _CHUNK):
        chunk = ",".join(uids[start : start + _CHUNK])
        answer = await record.found("/studies", [*parameters, ("StudyInstanceUID", chunk), ("limit", str(_CHUNK))])
        found += [line_of(item) for item in answer]
    return sorted(found, key=lambda line: (line.date, line.uid), reverse=True)


async def _narrowed(record: Record, query: dict[str, str]) -> set[str] | None:
    """Studies that fields leave which QIDO-RS cannot match studies by; None: no such field is filled in."""
    asked: list[tuple[str, str]] = []
    if label := query.get("label", "").strip():
        asked.append(("_tag", token(LABEL_SYSTEM, label)))
    if institution := query.get("institution", "").strip():
        if not _ID.fullmatch(institution):
            raise InvalidRequestError("There is no such institution")
        asked.append(("patient.organization", f"Organization/{institution}"))
    left: set[str] | None = None
    if asked:
        parameters = [*asked, ("_elements", "identifier"), ("_count", str(MOST_NARROWED + 1))]
        bundle = await record.fhir.page("ImagingStudy", parameters)
        left = {study_uid_of(entry["resource"]) for entry in bundle.get("entry", []) if "resource" in entry} - {""}
        if len(left) > MOST_NARROWED:
            raise PayloadTooLargeError(f"More than {MOST_NARROWED} studies: fill in more fields")
    if body_part := query.get("body_part", "").strip().upper():
        series = await record.found("/series", [("BodyPartExamined", body_part), ("limit", str(_LARGEST_QIDO_PAGE))])
        if len(series) >= _LARGEST_QIDO_PAGE:
            raise PayloadTooLargeError(f"More than {MOST_NARROWED} studies: fill in more fields")
        of_part = {text_of(item, "StudyInstanceUID") for item in series}
        left = of_part if left is None else left & of_part
    return left


async def add_record(record: Record, lines: list[StudyLine]) -> None:
    """Add what the record knows of studies: the ImagingStudy, its patient and its labels."""
    if not lines:
        return
    identifiers = ",".join(f"urn:dicom:uid|urn:oid:{line.uid}" for line in lines)
    parameters = [("identifier", identifiers), ("_elements", "identifier,subject,meta"), ("_count", str(len(lines)))]
    bundle = await record.fhir.page("ImagingStudy", parameters)
    known = {
        study_uid_of(entry["resource"]): entry["resource"] for entry in bundle.get("entry", []) if "resource" in entry
    }
    for line in lines:
        if resource := known.get(line.uid):
            line.record_id = str(resource["id"])
            line.patient = str(resource.get("subject", {}).get("reference", "")).rpartition("Patient/")[2]
            line.labels = labels_of(resource)


def study_uid_of(resource: dict[str, Any]) -> str:
    """Return the Study Instance UID of an ImagingStudy; empty: it has none."""
    values = [str(item.get("value", "")) for item in resource.get("identifier", [])]
    return next((value.removeprefix("urn:oid:") for value in values if value.startswith("urn:oid:")), "")
