"""Task ↔ workitem (a Unified Procedure Step in the DICOM JSON model). Pure functions.

DICOM PS3.3 §C.30, PS3.4 Table CC.2.5-3; https://hl7.org/fhir/R4/task.html. What a Task has no element for is kept in
the Task as it came (`INPUT`), so that a workitem made by UPS-RS is read back whole; what a Task has an element for is
always taken from there, so that the two cannot disagree.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

import orjson

from terminology import systems

Resource = dict[str, Any]
Model = dict[str, Any]

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
WORKLIST = "1.2.840.10008.5.1.4.34.5"
FILTERED_WORKLIST = "1.2.840.10008.5.1.4.34.5.1"
SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
INPUT = "ups-attributes"
LOCK = f"{systems.BASE}/identifier/workitem-lock"
"""System of the identifier that holds the digest of the Transaction UID: who reads the Task cannot take the lock."""

STATE, TRANSACTION, READINESS, PRIORITY = "00741000", "00081195", "00404041", "00741200"
LABEL, WORKLIST_LABEL, START, MODIFIED = "00741204", "00741202", "00404005", "00404010"
PROGRESS, CODES, INPUTS, PERFORMED = "00741002", "00404018", "00404021", "00741216"
PATIENT_NAME, PATIENT_ID, ISSUER = "00100010", "00100020", "00100021"
_UIDS = ("00080016", "00080018")
_STATES = {"in-progress": IN_PROGRESS, "completed": COMPLETED}
_CLOSED = ("cancelled", "failed", "rejected", "entered-in-error")
_PRIORITIES = {"stat": "HIGH", "asap": "HIGH", "urgent": "HIGH"}
STATUSES = {SCHEDULED: "draft,requested,received,accepted,ready,on-hold", IN_PROGRESS: "in-progress"} | {
    COMPLETED: "completed",
    CANCELED: ",".join(_CLOSED),
}
"""Values of Task.status by Procedure Step State."""


def attribute(vr: str, *values: Any) -> Model:
    """One attribute of the JSON model; without a value it is empty."""
    return {"vr": vr, "Value": list(values)} if values and values != ("",) else {"vr": vr}


def value_of(model: Model, tag: str) -> Any:
    """Return the first value of an attribute, None when it is absent, empty or malformed."""
    found = model.get(tag)
    values = found.get("Value") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values else None


def uid_of(task: Resource) -> str | None:
    """UID of the workitem that a Task is: the one it was given, else the one of its logical id (PS3.5 §B.2)."""
    for item in task.get("identifier", ()):
        if item.get("system") == systems.DICOM_UID:
            return str(item.get("value", "")).removeprefix("urn:oid:")
    try:
        return f"2.25.{uuid.UUID(task['id']).int}"
    except ValueError:
        return None


def id_of(uid: str) -> str | None:
    """Logical id of the Task whose id a UID was made of, None when it was made of none."""
    number = uid.removeprefix("2.25.")
    if number == uid or not number.isdigit() or int(number) >= 1 << 128:
        return None
    return str(uuid.UUID(int=int(number)))


def state_of(task: Resource) -> str:
    """Procedure Step State of a Task."""
    return CANCELED if task["status"] in _CLOSED else _STATES.get(task["status"], SCHEDULED)


def digest_of(transaction_uid: str) -> str:
    """What the Task keeps of a Transaction UID."""
    return hashlib.sha256(transaction_uid.encode()).hexdigest()


def lock_of(task: Resource) -> str | None:
    """Digest of the Transaction UID that locks a Task, None: no workitem's performer holds it."""
    return next((str(item["value"]) for item in task.get("identifier", ()) if item.get("system") == LOCK), None)


def kept_attributes(task: Resource) -> Model:
    """Return the attributes that the Task keeps as they came."""
    for item in task.get("input", ()):
        if item.get("type", {}).get("text") == INPUT:
            try:
                found = orjson.loads(item.get("valueString", ""))
            except orjson.JSONDecodeError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def with_attributes(task: Resource, model: Model, now: str) -> Resource:
    """Write attributes of a workitem into its Task: into the Task's elements, and whole beside them."""
    kept = {tag: item for tag, item in model.items() if tag not in (STATE, TRANSACTION, *_UIDS, MODIFIED)}
    others = [item for item in task.get("input", ()) if item.get("type", {}).get("text") != INPUT]
    text = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
    changed = task | {"lastModified": now, "input": [*others, {"type": {"text": INPUT}, "valueString": text}]}
    priority = value_of(kept, PRIORITY)
    if priority:
        changed["priority"] = "stat" if priority == "HIGH" else "routine"
    if label := value_of(kept, LABEL):
        changed["description"] = str(label)
    if (codes := value_of(kept, CODES)) is not None and isinstance(codes, dict):
        scheme, code = value_of(codes, "00080102"), value_of(codes, "00080100")
        if code:
            coding = {"code": str(code), "display": str(value_of(codes, "00080104") or code)}
            changed["code"] = {"coding": [{"system": _system(str(scheme or "")), **coding}]}
    words = value_of(value_of(kept, PROGRESS) or {}, "00741006")
    if words:
        changed["businessStatus"] = {"text": str(words)}
    if value_of(kept, READINESS) in ("INCOMPLETE", "UNAVAILABLE") and changed["status"] in ("requested", "on-hold"):
        changed["status"] = "on-hold"
    elif changed["status"] == "on-hold" and value_of(kept, READINESS) == "READY":
        changed["status"] = "requested"
    return changed


def _system(scheme: str) -> str:
    return {"DCM": systems.DCM, "99FORAMEN": systems.TASK_CODE}.get(scheme, f"{systems.BASE}/coding-scheme/{scheme}")


def workitem_of(task: Resource, patient: Resource | None, base: str) -> Model:
    """Workitem that a Task is; never with its Transaction UID (PS3.18 §11.5.2).

    Parameters
    ----------
    patient : the Task's Patient as far as the caller may read it
    base : public URL of this gateway
    """
    kept, state = kept_attributes(task), state_of(task)
    model: Model = {
        PATIENT_NAME: attribute("PN"),
        PATIENT_ID: attribute("LO"),
        INPUTS: attribute("SQ", *_inputs(task, base)),
        CODES: attribute("SQ", *_codes(task)),
        START: attribute("DT", dicom_time(task.get("authoredOn", ""))),
        WORKLIST_LABEL: attribute("LO", "FORAMEN"),
        READINESS: attribute("CS", "INCOMPLETE" if task["status"] == "on-hold" else "READY"),
        **kept,
        "00080016": attribute("UI", UPS_PUSH),
        "00080018": attribute("UI", uid_of(task) or ""),
        STATE: attribute("CS", state),
        MODIFIED: attribute("DT", dicom_time(task.get("lastModified", ""))),
        PRIORITY: attribute("CS", _priority(task, kept)),
        LABEL: attribute("LO", (task.get("description") or _text(task.get("code", {})) or "Task")[:64]),
        PROGRESS: attribute("SQ", *_progress(task, kept, state)),
    }
    if patient is not None:
        model |= _patient(patient)
    return dict(sorted(model.items()))


def _priority(task: Resource, kept: Model) -> str:
    named = _PRIORITIES.get(task.get("priority", "routine"), "MEDIUM")
    return "LOW" if named == "MEDIUM" and value_of(kept, PRIORITY) == "LOW" else named


def _text(concept: Resource) -> str:
    coding = (concept.get("coding") or [{}])[0]
    return str(concept.get("text") or coding.get("display") or coding.get("code") or "")


def _codes(task: Resource) -> list[Model]:
    schemes = {systems.DCM: "DCM", systems.TASK_CODE: "99FORAMEN"}
    return [
        {
            "00080100": attribute("SH", str(coding.get("code", ""))[:16]),
            "00080102": attribute("SH", schemes.get(coding.get("system", ""), "99FORAMEN")),
            "00080104": attribute("LO", str(coding.get("display", coding.get("code", "")))[:64]),
        }
        for coding in task.get("code", {}).get("coding", ())
    ]


def _inputs(task: Resource, base: str) -> list[Model]:
    group = task.get("groupIdentifier", {})
    if group.get("system") != systems.DICOM_UID:
        return []
    study = str(group.get("value", "")).removeprefix("urn:oid:")
    return [
        {
            "0020000D": attribute("UI", study),
            "0040E020": attribute("CS", "DICOM"),
            "0040E025": attribute("SQ", {"00081190": attribute("UR", f"{base}/studies/{study}")}),
        }
    ]


def _progress(task: Resource, kept: Model, state: str) -> list[Model]:
    item = dict(value_of(kept, PROGRESS) or {})
    if words := task.get("businessStatus", {}).get("text"):
        item["00741006"] = attribute("ST", str(words))
    if state == CANCELED:
        item.setdefault("00404052", attribute("DT", dicom_time(task.get("lastModified", ""))))
        if reason := _text(task.get("statusReason", {})):
            item["00741238"] = attribute("LT", reason)
    return [item] if item else []


def _patient(patient: Resource) -> Model:
    name = (patient.get("name") or [{}])[0]
    group = "^".join([str(name.get("family", "")), " ".join(name.get("given", ()))]).rstrip("^") or name.get("text", "")
    model = {PATIENT_NAME: attribute("PN", {"Alphabetic": group}) if group else attribute("PN")}
    for item in patient.get("identifier", ()):
        issuer = str(item.get("system", "")).removeprefix(f"{systems.IDENTIFIER_PATIENT}/")
        if issuer != item.get("system"):
            return model | {PATIENT_ID: attribute("LO", str(item.get("value", ""))), ISSUER: attribute("LO", issuer)}
    return model


def dicom_time(text: str) -> str:
    """FHIR dateTime or instant as DICOM DT in UTC; empty when it is none."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return ""
    if moment.tzinfo is None:
        return moment.strftime("%Y%m%d")
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
