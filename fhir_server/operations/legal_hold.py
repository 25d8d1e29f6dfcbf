"""`$legal-hold`, `$legal-hold-release`: keep a record, or a study, from being erased or expunged. For administrators.

Our own operations (ADR 0028); docs/api/legal-hold.md
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from fhir_server.audit.record import audit_record, encode
from fhir_server.operations.parameters import parameters_of, parameters_response
from fhir_server.route import Route
from fhir_server.search.hashing import resource_key
from fhir_server.server import Call
from fhir_server.store import legal_holds, reading
from fhir_server.store.legal_holds import Hold
from fhir_server.store.writing import write_changes
from fhir_server.subject_rights.record import marks
from fhir_server.subject_rights.texts import checked_text
from foramen.kernel.errors import InvalidResourceError, NotFoundError
from foramen.kernel.identifiers import new_logical_id

TYPES = ("Patient", "ImagingStudy")


async def place(call: Call) -> Response:
    """Put a legal hold on a patient's record or on one study."""
    parameters = await parameters_of(call)
    parameters.check_known(("reason", "basis", "until"))
    until = parameters.period("until")
    if until is not None and until[1] <= datetime.now(UTC):
        raise InvalidResourceError("until has passed", issue_code="value")
    reason, basis = parameters.required_text("reason"), parameters.required_text("basis")
    async with call.server.connections.lend() as connection, connection.transaction():
        stored = await reading.read(connection, call.resource_type, call.logical_id)
        if stored is None:
            raise NotFoundError(f"{call.resource_type} not found")
        known = await _marks(connection, call)
        hold = Hold(
            new_logical_id(),
            f"{call.resource_type}/{call.logical_id}",
            checked_text(reason, "reason", known),
            checked_text(basis, "basis", known),
            until[1] if until is not None else None,
            datetime.now(UTC),
            call.access.context.subject,
        )
        own = resource_key(call.resource_type, call.logical_id)
        await legal_holds.place(connection, hold, {key for key in stored.patients if key != own})
        await audit(call, connection)
    return parameters_response([{"name": "hold", "part": parts_of(hold)}])


async def list_holds(call: Call) -> Response:
    """Return the holds that were placed on a patient's record or a study, released ones too."""
    async with call.server.connections.lend() as connection:
        found = await legal_holds.of_resource(connection, f"{call.resource_type}/{call.logical_id}")
    return parameters_response([{"name": "hold", "part": parts_of(hold)} for hold in found])


async def release(call: Call) -> Response:
    """End a legal hold."""
    parameters = await parameters_of(call)
    parameters.check_known(("hold", "reason"))
    hold_id, reason = parameters.required_text("hold"), parameters.required_text("reason")
    reference = f"{call.resource_type}/{call.logical_id}"
    async with call.server.connections.lend() as connection, connection.transaction():
        reason = checked_text(reason, "reason", await _marks(connection, call))
        if not await legal_holds.release(connection, hold_id, reference, call.access.context.subject, reason):
            raise NotFoundError("No hold of this id is in force on this resource")
        await audit(call, connection)
        found = await legal_holds.of_resource(connection, reference)
    return parameters_response([{"name": "hold", "part": parts_of(hold)} for hold in found if hold.id == hold_id])


async def _marks(connection: Any, call: Call) -> set[str]:
    return await marks(connection, call.logical_id) if call.resource_type == "Patient" else set()


async def audit(call: Call, connection: Any) -> None:
    """Write the AuditEvent of a change in its transaction."""
    event = audit_record(
        interaction="operation",
        status=200,
        trace_id=call.trace_id,
        context=call.access.context,
        entity=call.entity,
        patient=f"Patient/{call.logical_id}" if call.resource_type == "Patient" else None,
        operation=call.operation,
    )
    await write_changes(connection, call.server.rows, [], call.server.own_url, (encode([event]), 1))
    call.audited = True


def parts_of(hold: Hold) -> list[dict[str, Any]]:
    """Return a hold as parts of a parameter."""
    texts = {"id": hold.id, "reason": hold.reason, "basis": hold.basis, "placedBy": hold.placed_by}
    texts |= {"releasedBy": hold.released_by or "", "releaseReason": hold.release_reason or ""}
    moments = {"placed": hold.placed, "until": hold.until, "released": hold.released}
    parts: list[dict[str, Any]] = [{"name": "resource", "valueReference": {"reference": hold.reference}}]
    parts += [{"name": name, "valueString": text} for name, text in texts.items() if text]
    return parts + [{"name": name, "valueInstant": at.isoformat()} for name, at in moments.items() if at is not None]


_DEFINITION = "https://foramen.example/fhir/OperationDefinition/"
ROUTES: tuple[Route, ...] = tuple(
    Route(
        method,
        f"{resource_type}/{{id}}/${name}",
        handler,
        "",
        "operation",
        definition=_DEFINITION + name,
        administrator=True,
    )
    for resource_type in TYPES
    for method, name, handler in (
        ("POST", "legal-hold", place),
        ("GET", "legal-hold", list_holds),
        ("POST", "legal-hold-release", release),
    )
)
