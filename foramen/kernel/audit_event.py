"""Build AuditEvent resources: every call and every refusal leaves one. Holds ids, never names or values.

https://hl7.org/fhir/R4/auditevent.html (codes of DICOM PS3.15 and http://hl7.org/fhir/restful-interaction)
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from foramen.kernel.access_context import AccessContext

OPERATION_NAME = "https://foramen.example/fhir/CodeSystem/operation-name"
"""Second subtype of an operation: which one it was."""
BREAK_GLASS = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "code": "BTG",
    "display": "break the glass",
}
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_ACTIONS = {"create": "C", "read": "R", "vread": "R", "update": "U", "patch": "U", "delete": "D"}


def audit_event(
    *,
    interaction: str,
    source: str,
    status: int,
    recorded: datetime,
    trace_id: str,
    context: AccessContext | None,
    entity: str | None = None,
    patient: str | None = None,
    operation: str | None = None,
) -> dict[str, Any]:
    """Build one AuditEvent.

    Parameters
    ----------
    interaction : code of http://hl7.org/fhir/restful-interaction, or a DICOMweb transaction ("retrieve", "store"…)
    source : "fhir", "dicomweb", "auth"
    status : HTTP status that was answered; 401 and 403 are refusals (outcome 8), 5xx serious failures (12)
    recorded : aware UTC time
    context : who asked; None when nobody could be recognised
    entity : what was asked for, e.g. "Observation/1" or a Study Instance UID as "urn:oid:…"; never a search value
    patient : "Patient/id" when known
    operation : name of a FHIR operation, without the dollar sign
    """
    outcome = "0" if status < 400 else "4" if status in (404, 409, 410, 412, 422) else "8" if status < 500 else "12"
    resource: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": interaction}, *_operation(operation)],
        "action": _ACTIONS.get(interaction, "E"),
        "recorded": recorded.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "outcome": outcome,
        "agent": _agents(context),
        "source": {"observer": {"display": f"foramen {source}"}},
        "entity": [{"name": "trace", "description": trace_id}, *_entities(entity, patient)],
    }
    mark_break_glass(resource, context.break_glass.id if context is not None and context.break_glass else None)
    return resource


def break_glass_policy(break_glass: str) -> str:
    """Return the URI by which AuditEvents of an occasion of emergency access are found (search parameter `policy`)."""
    return f"urn:uuid:{break_glass}"


def mark_break_glass(event: dict[str, Any], break_glass: str | None) -> None:
    """Say in an event that emergency access was its purpose, and which; nothing where there is none."""
    if break_glass is not None:
        event["purposeOfEvent"] = [{"coding": [BREAK_GLASS]}]
        event["agent"][0]["policy"] = [break_glass_policy(break_glass)]


def _operation(name: str | None) -> list[dict[str, Any]]:
    return [{"system": OPERATION_NAME, "code": name}] if name else []


def _agents(context: AccessContext | None) -> list[dict[str, Any]]:
    """Who asked; the institution, so that events can be counted by it; and whose permissions were lent."""
    if context is None:
        return [{"altId": "anonymous", "requestor": True}]
    agent: dict[str, Any] = {"altId": context.subject, "name": context.client_id, "requestor": True}
    if context.fhir_user:
        agent["who"] = {"reference": context.fhir_user}
    agents = [agent]
    if context.institution and _ID.fullmatch(context.institution):
        agents.append({"who": {"reference": f"Organization/{context.institution}"}, "requestor": False})
    return agents + [{"altId": lender, "requestor": False} for lender in context.lenders]


def _entities(entity: str | None, patient: str | None) -> list[dict[str, Any]]:
    entities: list[dict[str, Any]] = []
    if entity is not None:
        what = {"identifier": {"value": entity}} if entity.startswith("urn:") else {"reference": entity}
        entities.append({"what": what})
    if patient is not None and patient != entity:
        entities.append({"what": {"reference": patient}})
    return entities
