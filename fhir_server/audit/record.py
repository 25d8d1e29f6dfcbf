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

from fhir_server.model.references import LOGICAL_ID
from fhir_server.model.resource import instant
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import extractor
from fhir_server.search.parameters import registry
from fhir_server.search.values import IndexValues
from fhir_server.store.changes import Change, old_values
from foramen.kernel.access_context import AccessContext
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
    `entity` is `Type/id` and never a search value; `written` are the references a transaction wrote.
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
) -> AuditRecord:
    """Remember one call.

    Parameters
    ----------
    interaction : code of http://hl7.org/fhir/restful-interaction
    entity, patient : `Type/id` that was asked for; anything else, which could be PHI, is left out
    written : references a transaction wrote, named as further entities
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
    )


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
        names = sorted(p for p in patients if len(p) < _LONGEST)
        if len(names) < 2:  # The others have no name of ours.
            return None, [reference for reference in references if not reference.startswith("Patient/")]
    else:
        names = sorted(p for p in patients if len(p) < _LONGEST)
    written = dict.fromkeys([*names[1:2], *references, *names[2:]])
    return (names[0] if names else None), [name for name in written if name not in names[:1]]


def encode(records: list[AuditRecord]) -> bytes:
    """Write a group of records."""
    return _ENCODER.encode(records)


def decode(text: bytes) -> list[AuditRecord]:
    """Read a group of records."""
    return _DECODER.decode(text)


def event_change(record: AuditRecord, own_url: str) -> Change:
    """Prepare the AuditEvent of one record, as a resource like any other."""
    recorded = datetime.fromtimestamp(record.recorded // 1000 / 1000, UTC)
    context = None
    if record.subject is not None:
        context = AccessContext(record.subject, record.client_id or "", (), fhir_user=record.fhir_user)
    event = audit_event(
        interaction=record.interaction,
        source="fhir",
        status=record.status,
        recorded=recorded,
        trace_id=record.trace_id,
        context=context,
        entity=record.entity,
        patient=record.patient,
    )
    entities: list[dict[str, Any]] = event["entity"]
    entities.extend({"what": {"reference": reference}} for reference in record.written)
    if record.more:
        entities.append({"name": "count", "description": f"{record.more} resources"})
    meta = {"versionId": "1", "lastUpdated": instant(recorded)}
    content = orjson.dumps({"resourceType": _TYPE, "id": record.logical_id, "meta": meta, **event})
    key = (record.interaction, event["outcome"], context, own_url, registry().version)
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
    )


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
