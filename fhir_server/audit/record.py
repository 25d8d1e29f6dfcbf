"""AuditEvents of the FHIR API: one for each call and each refusal, as a resource like any other.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from fhir_server.model.resource import instant
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import extractor
from fhir_server.search.values import IndexValues
from fhir_server.store.changes import Change
from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event
from foramen.kernel.identifiers import new_logical_id

MAX_ENTITIES = 200
"""References one event names; a larger transaction is told by its count and its trace id."""

_TYPE = "AuditEvent"
_CHANGING = ("recorded", "entity")
_SAME: OrderedDict[tuple[object, ...], IndexValues] = OrderedDict()
_SAME_SIZE = 512


def audit_change(
    *,
    interaction: str,
    status: int,
    trace_id: str,
    context: AccessContext | None,
    own_url: str,
    entity: str | None = None,
    patient: str | None = None,
    written: Iterable[str] = (),
) -> Change:
    """Prepare the AuditEvent of one call.

    Parameters
    ----------
    interaction : code of http://hl7.org/fhir/restful-interaction
    entity : `Type/id` that was asked for, or `Type` for a search; never a search value
    written : references a transaction wrote, named as further entities
    """
    recorded = datetime.now(UTC)
    event = audit_event(
        interaction=interaction,
        source="fhir",
        status=status,
        recorded=recorded,
        trace_id=trace_id,
        context=context,
        entity=entity,
        patient=patient,
    )
    references = list(written)
    entities: list[dict[str, Any]] = event["entity"]
    entities.extend({"what": {"reference": reference}} for reference in references[:MAX_ENTITIES])
    if len(references) > MAX_ENTITIES:
        entities.append({"name": "count", "description": f"{len(references)} resources"})
    recorded = recorded.replace(microsecond=recorded.microsecond // 1000 * 1000)
    logical_id = new_logical_id()
    meta = {"versionId": "1", "lastUpdated": instant(recorded)}
    content = orjson.dumps({"resourceType": _TYPE, "id": logical_id, "meta": meta, **event})
    values = _values(event, logical_id, own_url, (interaction, event["outcome"], context, own_url))
    return Change(
        _TYPE,
        logical_id,
        resource_key(_TYPE, logical_id),
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
    values = extract({name: event[name] for name in _CHANGING}, logical_id)
    values.postings |= same.postings
    values.strings |= same.strings
    values.patients |= same.patients
    values.present |= same.present
    # A patient who acts is in the agent: the compartment's own posting came with `same`.
    return values
