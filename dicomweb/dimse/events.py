"""AuditEvents of DIMSE: kinds of DICOM PS3.15 §A.5.3, durable before the peer hears the last answer.

https://hl7.org/fhir/R4/auditevent.html; codes: DICOM PS3.16 CID 400 (Audit Event ID).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event
from terminology import systems

SERVICE = f"{systems.BASE}/CodeSystem/dimse-service"
QUERY = ("110112", "Query")
ACCESSED = ("110103", "DICOM Instances Accessed")
TRANSFERRED = ("110104", "DICOM Instances Transferred")
BEGIN = ("110102", "Begin Transferring DICOM Instances")
IMPORT = ("110107", "Import")
SECURITY_ALERT = ("110113", "Security Alert")
PROCEDURE_RECORD = ("110111", "Procedure Record")
_ACTIONS = {"C-STORE": "C", "C-FIND": "E", "N-CREATE": "C", "N-SET": "U", "C-GET": "R", "C-MOVE": "R"}


def dimse_event(
    kind: tuple[str, str],
    service: str,
    *,
    status: int,
    trace_id: str,
    context: AccessContext | None,
    study: str | None = None,
    patient: str | None = None,
    peer: str | None = None,
    count: int | None = None,
) -> dict[str, Any]:
    """Build one event.

    Parameters
    ----------
    kind : code and display of PS3.16 CID 400
    service : "C-FIND", "C-MOVE", …, or "A-ASSOCIATE"
    status : HTTP status that means the same (200 done, 403 refused, 503 could not)
    study : Study Instance UID
    peer : AE title of the other side of a transfer, or the one that a refused caller claimed
    count : instances transferred, or answers given
    """
    event = audit_event(
        interaction="operation",
        source="dimse",
        status=status,
        recorded=datetime.now(UTC),
        trace_id=trace_id,
        context=context,
        entity=f"urn:oid:{study}" if study else None,
        patient=patient,
    )
    event["type"] = {"system": systems.DCM, "code": kind[0], "display": kind[1]}
    event["subtype"] = [{"system": SERVICE, "code": service}]
    event["action"] = _ACTIONS.get(service, "E")
    if peer is not None:
        event["agent"].append({"altId": f"aet:{peer}", "requestor": False})
    if count is not None:
        event["entity"].append({"name": "instances", "description": str(count)})
    return event
