"""Stage 3, register: one study → the FHIR transaction that says it exists and asks for its analysis. Pure functions.

https://hl7.org/fhir/R4/imagingstudy.html, https://hl7.org/fhir/R4/task.html; clinical model §6.1.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from dicomweb.instance_header import tag_of, text_values
from dicomweb.patient_match import PatientMatch
from dicomweb.reconciliation.kinds import (
    LATE,
    PATIENT_LOST,
    RECORD_CHANGED,
    RECORD_DELETED,
    WITHDRAWN,
    Kind,
)
from dicomweb.study_index import IndexedSeries, IndexedStudy
from dicomweb.urgency import NOT_SAID, ROUTINE, Urgency, most_urgent
from foramen.kernel.corrected_series import corrected_series_uids
from foramen.kernel.identifiers import derived_uuid
from terminology import codes, systems

_OPEN = ("requested", "on-hold", "in-progress")
"""States of a Task that is not done: a newer input set takes its place. A worker that is at it notices and stops, so
that an older result never arrives after, and so in place of, the newer one."""


_OWNED = frozenset(
    ("status", "modality", "subject", "started", "numberOfSeries", "numberOfInstances", "series", "description")
)
"""Elements of an ImagingStudy that are ours."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What to post, and what the index shall remember when it went through."""

    bundle: dict[str, Any] | None
    input_hash: str
    state: str
    recorded: str | None = None
    findings: tuple[Kind, ...] = ()
    """`recorded`: hash of what we say in the ImagingStudy; None: it is as it was."""


def input_hash(series: tuple[IndexedSeries, ...]) -> str:
    """Name the input set: 16 hexadecimal digits over the series that are not our own output, nor corrected copies."""
    copies = frozenset[str]().union(*(corrected_series_uids(item.series_instance_uid) for item in series))
    lines = sorted(
        f"{item.series_instance_uid}:{len(item.sop_instance_uids)}:{','.join(sorted(item.sop_instance_uids))}"
        for item in series
        if not item.own_output and item.series_instance_uid not in copies
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def task_identifier(study_instance_uid: str, hash_: str) -> str:
    """Value of the Task's identifier: one Task per study and input set."""
    return f"{study_instance_uid}|{hash_}"


def register(
    study: IndexedStudy,
    match: PatientMatch,
    *,
    imaging_study: dict[str, Any] | None,
    tasks: list[dict[str, Any]],
    trace_id: str,
    now: str,
    urgency: Urgency = NOT_SAID,
) -> Registration:
    """Decide what the record needs to know about a study.

    Parameters
    ----------
    study : what the archive holds
    match : the patient it belongs to, or why none was found
    imaging_study, tasks : what the record holds already of this study
    now : FHIR instant
    urgency : what a Task that is to be made begins with

    Returns
    -------
    A transaction bundle, or None in it when the record is already right: a second delivery changes nothing.
    """
    hash_ = input_hash(study.series)
    entries: list[dict[str, Any]] = []
    focus: dict[str, Any] = {"identifier": _study_identifier(study), "type": "ImagingStudy"}
    subject = _subject(study, match, imaging_study)
    if imaging_study is None and study.recorded is not None and study.series:
        # Somebody deleted it while its images stand. That is a decision: it is not undone, nor followed, in silence.
        return Registration(None, study.input_hash or hash_, study.state, None, (RECORD_DELETED,))
    findings: tuple[Kind, ...] = ()
    recorded = None
    if subject is not None:
        withdrawn = match.reference is None or not study.series
        resource = imaging_study_resource(study, subject, withdrawn=withdrawn)
        recorded = recorded_hash(resource)
        entry, reference = _imaging_study_entry(study, resource, imaging_study)
        entries += [entry] if entry else []
        focus = {"reference": reference, "type": "ImagingStudy"} if match.reference is not None else focus
        findings = _findings(study, resource, recorded, imaging_study, entry is not None)
    if any(not series.own_output for series in study.series):
        entries += _task_entries(study, match, focus, hash_, tasks, trace_id, now, urgency)
    elif not study.series:
        entries += _withdrawn_tasks(tasks, now)
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries} if entries else None
    state = "withdrawn" if not study.series else "registered" if match.reference else "on-hold"
    return Registration(bundle, hash_, state, recorded, findings)


def withdraw(imaging_study: dict[str, Any] | None, tasks: list[dict[str, Any]], now: str) -> dict[str, Any] | None:
    """Return the transaction that takes back what the record says of a study of which nothing is left; None: nothing.

    https://hl7.org/fhir/R4/valueset-imagingstudy-status.html (entered-in-error: withdrawn after it was released)
    """
    entries = _withdrawn_tasks(tasks, now)
    if imaging_study is not None:
        emptied = {key: value for key, value in imaging_study.items() if key not in ("series", "modality")}
        emptied |= {"status": "entered-in-error", "numberOfSeries": 0, "numberOfInstances": 0}
        if emptied != imaging_study:
            entries.append(_update_entry(emptied, imaging_study))
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries} if entries else None


def _subject(study: IndexedStudy, match: PatientMatch, existing: dict[str, Any] | None) -> str | None:
    """Whose ImagingStudy it is to be; None: it is not to be written, or stays as it is.

    One whose images are nobody's any more keeps its subject and is entered in error.
    """
    if existing is None:
        return match.reference if study.series else None
    of_nobody = match.reference is None and (study.patient_ref is None or study.patient_conflict)
    kept: str | None = (existing.get("subject") or {}).get("reference")
    return kept if of_nobody or not study.series else match.reference


def _findings(
    study: IndexedStudy, resource: dict[str, Any], recorded: str, existing: dict[str, Any] | None, written: bool
) -> tuple[Kind, ...]:
    """Name what was out of line in the record."""
    if existing is None or not written:
        return ()
    if study.recorded == recorded:
        return (RECORD_CHANGED,) if recorded_hash(existing) != recorded else ()
    if not study.series:
        return (WITHDRAWN,)
    if resource["status"] == "entered-in-error":
        return (PATIENT_LOST,)
    grew = study.recorded is not None and resource["numberOfInstances"] > existing.get("numberOfInstances", 0)
    return (LATE,) if grew and existing.get("status") == "available" else ()


def recorded_hash(resource: dict[str, Any]) -> str:
    """Name what an ImagingStudy says of what is ours to say: 16 hexadecimal digits."""
    ours = {key: value for key, value in resource.items() if key in _OWNED}
    return hashlib.sha256(orjson.dumps(ours, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _imaging_study_entry(
    study: IndexedStudy, resource: dict[str, Any], existing: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, str]:
    if existing is None:
        full_url = derived_uuid("ImagingStudy", study.study_instance_uid).urn
        condition = f"identifier={_token(systems.DICOM_UID, f'urn:oid:{study.study_instance_uid}')}"
        request = {"method": "POST", "url": "ImagingStudy", "ifNoneExist": condition}
        return {"fullUrl": full_url, "resource": resource, "request": request}, full_url
    reference = f"ImagingStudy/{existing['id']}"
    merged = _carry_over(existing, resource)
    if _without_version(merged) == _without_version(existing):
        return None, reference
    return _update_entry(merged, existing), reference


def _task_entries(
    study: IndexedStudy,
    match: PatientMatch,
    focus: dict[str, Any],
    hash_: str,
    tasks: list[dict[str, Any]],
    trace_id: str,
    now: str,
    urgency: Urgency,
) -> list[dict[str, Any]]:
    value = task_identifier(study.study_instance_uid, hash_)
    current = next((task for task in tasks if value in _identifier_values(task)), None)
    superseded = [task for task in tasks if task is not current and task["status"] in _OPEN]
    entries = [_update_entry(_ended(task, now, "superseded"), task) for task in superseded]
    if current is None:
        task = _task(study, match, focus, value, trace_id, now)
        # What a person or an order made an emergency stays one when more images of it come.
        task |= _priority([urgency.priority, *(task.get("priority") for task in superseded)], urgency)
        full_url = derived_uuid("Task", value).urn
        condition = f"identifier={_token(systems.IDENTIFIER_TASK, value)}"
        request = {"method": "POST", "url": "Task", "ifNoneExist": condition}
        return [*entries, {"fullUrl": full_url, "resource": task, "request": request}]
    if current["status"] == "on-hold":
        task = _task(study, match, focus, value, trace_id, current["authoredOn"]) | {"id": current["id"]}
        task |= {"lastModified": now, "identifier": current["identifier"]}
        # Somebody may have given it a priority while it waited; its order may be found only now that its patient is.
        task |= _priority([current.get("priority"), urgency.priority], urgency)
        if match.reference is not None or task.get("statusReason") != current.get("statusReason"):
            entries.append(_update_entry(task, current))
    return entries


def _priority(told: list[str | None], urgency: Urgency) -> dict[str, Any]:
    """Priority of a Task, and the order that it was asked for by; routine is what the standard says of none."""
    priority = most_urgent(told)
    return {
        **({"basedOn": [{"reference": urgency.order}]} if urgency.order else {}),
        **({"priority": priority} if priority not in (None, ROUTINE) else {}),
    }


def needs_task(study: IndexedStudy, tasks: list[dict[str, Any]]) -> bool:
    """Whether a Task would be made, or one on hold written anew: only then it matters how urgent the study is."""
    if all(series.own_output for series in study.series):
        return False
    value = task_identifier(study.study_instance_uid, input_hash(study.series))
    current = next((task for task in tasks if value in _identifier_values(task)), None)
    return current is None or current["status"] == "on-hold"


def imaging_study_resource(study: IndexedStudy, patient: str, *, withdrawn: bool = False) -> dict[str, Any]:
    """ImagingStudy of an indexed study; our own SEG and SR series are listed like all others.

    Parameters
    ----------
    withdrawn : whether it is not to be used: no images are left, or they are not the patient's
    """
    modalities = list(dict.fromkeys(filter(None, (_first(series.attributes, "Modality") for series in study.series))))
    resource: dict[str, Any] = {
        "resourceType": "ImagingStudy",
        "identifier": [_study_identifier(study)],
        "status": "entered-in-error" if withdrawn else "available",
        "modality": [{"system": systems.DCM, "code": code} for code in sorted(modalities)],
        "subject": {"reference": patient},
        "numberOfSeries": len(study.series),
        "numberOfInstances": sum(len(series.sop_instance_uids) for series in study.series),
        "series": [_series(series) for series in study.series],
    }
    if is_synthetic(study):
        resource["meta"] = {"tag": [codes.SYNTHETIC.coding()]}
    if accession := _first(study.attributes, "AccessionNumber"):
        resource["identifier"].append(
            {"type": {"coding": [{"system": systems.IDENTIFIER_TYPE, "code": "ACSN"}]}, "value": accession}
        )
    if started := started_at(study.attributes):
        resource["started"] = started
    if description := _first(study.attributes, "StudyDescription"):
        resource["description"] = description
    return {key: value for key, value in resource.items() if value != []}


def _series(series: IndexedSeries) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "uid": series.series_instance_uid,
        "modality": {"system": systems.DCM, "code": _first(series.attributes, "Modality") or "OT"},
        "numberOfInstances": len(series.sop_instance_uids),
    }
    number = _first(series.attributes, "SeriesNumber")
    if number.isdigit():
        entry["number"] = int(number)
    if description := _first(series.attributes, "SeriesDescription"):
        entry["description"] = description
    return entry


def _task(
    study: IndexedStudy, match: PatientMatch, focus: dict[str, Any], value: str, trace_id: str, authored_on: str
) -> dict[str, Any]:
    task: dict[str, Any] = {
        "resourceType": "Task",
        "identifier": [
            {"system": systems.IDENTIFIER_TASK, "value": value},
            {"system": systems.IDENTIFIER_TRACE, "value": trace_id},
        ],
        # All Tasks of one study carry its UID here, so that the next input set finds the earlier ones.
        "groupIdentifier": _study_identifier(study),
        "status": "requested",
        "intent": "order",
        "code": codes.ANALYSE_STUDY.concept(),
        "focus": focus,
        "authoredOn": authored_on,
        "lastModified": authored_on,
    }
    if is_synthetic(study):
        task["meta"] = {"tag": [codes.SYNTHETIC.coding()]}
    if description := description_without_phi(study.attributes, study.as_stored):
        task["description"] = description
    if match.reference is not None:
        task["for"] = {"reference": match.reference}
    elif match.reason is not None:
        task |= {"status": "on-hold", "statusReason": match.reason.concept()}
    return task


def _withdrawn_tasks(tasks: list[dict[str, Any]], now: str) -> list[dict[str, Any]]:
    return [_update_entry(_ended(task, now, "images-withdrawn"), task) for task in tasks if task["status"] in _OPEN]


def _ended(task: dict[str, Any], now: str, why: str) -> dict[str, Any]:
    reason = codes.REGISTRATION_REASONS[why].concept()
    return task | {"status": "cancelled", "statusReason": reason, "lastModified": now}


def is_synthetic(study: IndexedStudy) -> bool:
    """Whether the study says of itself that it is synthetic: PatientID `SYN-…`, or SYNTHETIC in a description."""
    descriptions = [_first(study.attributes, "StudyDescription")]
    descriptions += [_first(series.attributes, "SeriesDescription") for series in study.series]
    return _first(study.attributes | study.as_stored, "PatientID").startswith("SYN-") or any(
        "SYNTHETIC" in text for text in descriptions
    )


def started_at(attributes: dict[str, Any]) -> str | None:
    """Start of the study as FHIR dateTime: with a time only where the offset from UTC is known (FHIR demands one)."""
    date = re.fullmatch(r"(\d{4})(\d{2})(\d{2})", _first(attributes, "StudyDate"))
    if date is None:
        return None
    day = "-".join(date.groups())
    time = re.match(r"(\d{2})(\d{2})(\d{2})", _first(attributes, "StudyTime"))
    offset = re.fullmatch(r"([+-]\d{2})(\d{2})", _first(attributes, "TimezoneOffsetFromUTC"))
    return f"{day}T{':'.join(time.groups())}{':'.join(offset.groups())}" if time and offset else day


def description_without_phi(attributes: dict[str, Any], *earlier: dict[str, Any]) -> str:
    """Study description, or nothing when it repeats a part of the patient's name or identifier.

    Parameters
    ----------
    earlier : name and identifier that the attributes had before they were corrected
    """
    description = _first(attributes, "StudyDescription")
    parts: set[str] = set()
    for level in (attributes, *earlier):
        names = text_values(level.get(tag_of("PatientName"), {}))
        parts |= {part for name in names for part in re.split(r"[\^= ]+", name.casefold()) if len(part) > 1}
        parts |= {_first(level, "PatientID").casefold()} - {""}
    folded = description.casefold()
    return "" if any(part in folded for part in parts) else description


def _carry_over(existing: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    """Our elements replace theirs; what others added (endpoint, basedOn, note…) and their tags stay."""
    merged = {key: value for key, value in existing.items() if key not in _OWNED} | {
        key: value for key, value in resource.items() if key not in ("meta", "identifier")
    }
    kept = existing.get("identifier", [])
    merged["identifier"] = [
        *kept,
        *(item for item in resource["identifier"] if item["value"] not in [i.get("value") for i in kept]),
    ]
    tags = existing.get("meta", {}).get("tag", [])
    new = [tag for tag in resource.get("meta", {}).get("tag", []) if tag["code"] not in [t.get("code") for t in tags]]
    if new:
        merged["meta"] = existing.get("meta", {}) | {"tag": [*tags, *new]}
    return merged


def _without_version(resource: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "meta"} | {
        "tag": resource.get("meta", {}).get("tag")
    }


def _update_entry(resource: dict[str, Any], existing: dict[str, Any]) -> dict[str, Any]:
    """PUT with If-Match: nobody's change in between is lost (412 → the whole registration is tried again)."""
    url = f"{existing['resourceType']}/{existing['id']}"
    version = existing["meta"]["versionId"]
    return {"fullUrl": url, "resource": resource, "request": {"method": "PUT", "url": url, "ifMatch": f'W/"{version}"'}}


def _study_identifier(study: IndexedStudy) -> dict[str, str]:
    return {"system": systems.DICOM_UID, "value": f"urn:oid:{study.study_instance_uid}"}


def _identifier_values(resource: dict[str, Any]) -> list[str]:
    return [item.get("value", "") for item in resource.get("identifier", [])]


def token_parameter(system: str, value: str) -> str:
    """`system|value` with the characters escaped that separate in a search (FHIR R4 search §3.1.1.4.0.1)."""
    escaped = re.sub(r"([\\|,$])", r"\\\1", value)
    return f"{system}|{escaped}"


def _token(system: str, value: str) -> str:
    return quote(token_parameter(system, value), safe="")


def _first(attributes: dict[str, Any], keyword: str) -> str:
    values = text_values(attributes.get(tag_of(keyword), {}))
    return values[0].strip() if values else ""
