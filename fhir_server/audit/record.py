"""AuditEvents of the FHIR API: one for each call and each refusal, as a resource like any other.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from fhir_server.store.changes import Change, save
from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event
from foramen.kernel.identifiers import new_logical_id

MAX_ENTITIES = 200
"""References one event names; a larger transaction is told by its count and its trace id."""


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
    return save(orjson.dumps(event), event, new_logical_id(), updated=recorded, own_url=own_url)
