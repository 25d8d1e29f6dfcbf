"""Audit of the FHIR API: what is remembered of each call and each refusal, and the AuditEvent made of it.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from fhir_server.audit.seal import seal
from fhir_server.model.references import LOGICAL_ID
from fhir_server.model.resource import instant
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import extractor
from fhir_server.search.values import IndexValues
from fhir_server.store.changes import Change, old_values, registry_version
from foramen.kernel.access_context import AccessContext, BreakGlass
from foramen.kernel.audit_event import audit_event
from foramen.kernel.identifiers import new_logical_id

MAX_ENTITIES = 200
"""References one event names; a larger transaction is told by its count and its trace id."""

_LONGEST = 80
"""Characters from which on a reference is not that of a Patient of ours."""
_TYPE = "AuditEvent"
_CHANGING = ("recorded", "entity")
_SAME: OrderedDict[tuple[object, ...], IndexValues] = OrderedDict()
_SAME_SIZE = 512


class AuditRecord(msgspec.Struct, array_like=True, frozen=True):
    """One call: everything its AuditEvent will say.

    `interaction` is a code of http://hl7.org/fhir/restful-interaction; `recorded` counts microseconds since 1970;
    `entity` is `Type/id` and never a search value; `written` are the references a transaction wrote. `shown` is what a
    search returned (`references_of`); the event does not name that but the patients whose records it was in.
    """

    logical_id: str
    recorded: int
    interaction: str
    status: int
    trace_id: str
    subject: str | None
    client_id: str | None
    fhir_user: str | None
    entity: str | None
    patient: str | None
    written: list[str]
    more: int = 0
    operation: str | None = None
    institution: str | None = None
    shown: list[str] = []
    lenders: list[str] = []
    break_glass: str | None = None


_REFERENCE = re.compile(rf"[A-Z][A-Za-z]+/(?:{LOGICAL_ID.pattern})")
_DECODER = msgspec.json.Decoder(list[AuditRecord])
_ENCODER = msgspec.json.Encoder()


def _reference(text: str | None) -> str | None:
    return text if text is not None and _REFERENCE.fullmatch(text) else None


def audit_record(
    *,
    interaction: str,
    status: int,
    trace_id: str,
    context: AccessContext | None,
    entity: str | None = None,
    patient: str | None = None,
    written: Iterable[str] = (),
    operation: str | None = None,
    shown: list[str] | None = None,
) -> AuditRecord:
    """Remember one call.

    Parameters
    ----------
    interaction : code of http://hl7.org/fhir/restful-interaction
    entity, patient : `Type/id` that was asked for; anything else, which could be PHI, is left out
    written : references a transaction wrote, named as further entities
    operation : name of an operation, without the dollar sign
    shown : what a search returned, as `references_of` reads it
    """
    references = [reference for reference in written if _reference(reference)]
    return AuditRecord(
        new_logical_id(),
        int(datetime.now(UTC).timestamp() * 1_000_000),
        interaction,
        status,
        trace_id,
        context.subject if context else None,
        context.client_id if context else None,
        context.fhir_user if context else None,
        _reference(entity),
        _reference(patient),
        references[:MAX_ENTITIES],
        len(references) if len(references) > MAX_ENTITIES else 0,
        operation,
        context.institution if context else None,
        shown or [],
        list(context.lenders) if context else [],
        context.break_glass.id if context and context.break_glass else None,
    )


def references_of(shown: list[str]) -> list[str]:
    """Return what a call showed, as references: ids stand behind ``Type?``, and references may stand among them."""
    resource_type, found = "", []
    for item in shown:
        if item.endswith("?"):
            resource_type = item[:-1]
        else:
            found.append(item if "/" in item else f"{resource_type}/{item}")
    return found


def told(changes: list[Change], own_url: str, *, each: bool) -> tuple[str | None, list[str]]:
    """Name the patients whose records were written, and what was written: `patient` and `written` of a record.

    An event that names two patients is in nobody's record (`search.index`), so two are named before anything else:
    else the one who is named alone would read what was written of others.

    Parameters
    ----------
    each : also name every resource
    """
    references = [f"{change.resource_type}/{change.logical_id}" for change in changes] if each else []
    patients = {p for change in changes if change.values is not None for p in change.values.patients}
    if len({key for change in changes for key in change.patient_keys}) > 1:
        gone = [c.previous for c in changes if c.values is None and c.previous is not None]
        patients |= {p for previous in gone for p in old_values(previous, own_url).patients}
        names = _names(patients)
        if len(names) < 2:  # The others have no name of ours.
            return None, [reference for reference in references if not reference.startswith("Patient/")]
    else:
        names = _names(patients)
    written = dict.fromkeys([*names[1:2], *references, *names[2:]])
    return (names[0] if names else None), [name for name in written if name not in names[:1]]


def _names(patients: set[str]) -> list[str]:
    """Return those that are Patients of ours: a Binary may lie in the record of anything else."""
    return sorted(p for p in patients if len(p) < _LONGEST and p.startswith("Patient/"))


def encode(records: list[AuditRecord]) -> bytes:
    """Write a group of records, with the code that only a server makes."""
    return seal().group(_ENCODER.encode(records))


def is_group(group: bytes) -> bool:
    """Whether a group has a code; those of before the chain (ADR 0022) begin with their records."""
    return not group.startswith(b"[")


def decode(text: bytes) -> list[AuditRecord]:
    """Read a group of records.

    Raises
    ------
    BrokenSealError
        Its code does not fit.
    msgspec.DecodeError
        These are no records.
    """
    return _DECODER.decode(seal().records(text))


def touched(record: AuditRecord) -> list[str]:
    """Return references of what a call showed or read, when it did: the patients are found by them.

    A refusal names nobody: who may not see a resource shall not learn whose it is. Events are no part of a record: who
    reads them is not told in the events of each patient whom they name.
    """
    if record.status >= 400:
        return []
    found = [*references_of(record.shown), record.entity or ""]
    return [reference for reference in found if reference and not reference.startswith(f"{_TYPE}/")]


def event_change(record: AuditRecord, own_url: str, patients: Iterable[str] = ()) -> Change:
    """Prepare the AuditEvent of one record, as a resource like any other.

    Parameters
    ----------
    patients : Patients in whose records lies what `touched` returned
    """
    record = _with_patients(record, patients)
    recorded = datetime.fromtimestamp(record.recorded // 1000 / 1000, UTC)
    context = None
    if record.subject is not None:
        context = AccessContext(
            record.subject,
            record.client_id or "",
            (),
            fhir_user=record.fhir_user,
            institution=record.institution,
            lenders=tuple(record.lenders),
            break_glass=BreakGlass(record.break_glass, "") if record.break_glass else None,
        )
    event = audit_event(
        interaction=record.interaction,
        source="fhir",
        status=record.status,
        recorded=recorded,
        trace_id=record.trace_id,
        context=context,
        entity=record.entity,
        patient=record.patient,
        operation=record.operation,
    )
    entities: list[dict[str, Any]] = event["entity"]
    entities.extend({"what": {"reference": reference}} for reference in record.written)
    if record.more:
        entities.append({"name": "count", "description": f"{record.more} resources"})
    meta = {"versionId": "1", "lastUpdated": instant(recorded)}
    content = orjson.dumps({"resourceType": _TYPE, "id": record.logical_id, "meta": meta, **event})
    known = registry_version()
    key = (record.interaction, record.operation, event["outcome"], context, own_url, known)
    values = _values(event, record.logical_id, own_url, key)
    return Change(
        _TYPE,
        record.logical_id,
        resource_key(_TYPE, record.logical_id),
        1,
        recorded,
        "POST",
        content,
        values,
        sorted(hash64(reference) for reference in values.patients),
        None,
        registry=known,
    )


def _with_patients(record: AuditRecord, patients: Iterable[str]) -> AuditRecord:
    named = {record.entity, record.patient, *record.written}
    names = sorted(name for name in patients if name not in named)
    if not names:
        return record
    if record.patient is None and not (record.entity or "").startswith("Patient/"):
        record, names = msgspec.structs.replace(record, patient=names[0]), names[1:]
    room = max(0, MAX_ENTITIES - len(record.written))
    written, more = [*record.written, *names[:room]], record.more + len(names[room:])
    return msgspec.structs.replace(record, written=written, more=more)


def _values(event: dict[str, Any], logical_id: str, own_url: str, key: tuple[object, ...]) -> IndexValues:
    """Index values of an event: those of its constant part are found once for each caller and interaction."""
    extract = extractor(_TYPE, own_url).extract
    same = _SAME.get(key)
    if same is None:
        same = _SAME[key] = extract({n: v for n, v in event.items() if n not in _CHANGING}, logical_id)
        if len(_SAME) > _SAME_SIZE:
            _SAME.popitem(last=False)
    if same.patients:  # A patient who acts: who else is named decides in whose record the event is.
        return extract(event, logical_id)
    values = extract({name: event[name] for name in _CHANGING}, logical_id)
    values.postings |= same.postings
    values.strings |= same.strings
    values.present |= same.present
    return values
