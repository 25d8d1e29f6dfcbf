"""`$expunge` of AuditEvents: only those past the retention, from the beginning of the chain, and told in the chain.

ADR 0022; docs/api/expunge.md
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from fhir_server.audit.chain import Removal
from fhir_server.audit.record import audit_record, encode
from fhir_server.operations.parameters import Parameters, parameters_response
from fhir_server.server import Call
from fhir_server.store import audit_chain, expunging
from fhir_server.store.changes import deletion
from fhir_server.store.writing import write_changes
from foramen.kernel.errors import InvalidResourceError, NotSupportedError

_DEFAULT_LIMIT = 1000


async def expunge_events(call: Call, parameters: Parameters) -> Response:
    """Remove AuditEvents whose blocks were sealed before the moment `before`; returns how many are gone.

    Raises
    ------
    NotSupportedError
        405: one event, or without `before`; AuditEvents are kept.
    InvalidResourceError
        422: `before` lies within the retention.
    """
    before = parameters.period("before")
    if call.logical_id or before is None:
        raise NotSupportedError("AuditEvents are kept", headers={"Allow": "GET"})
    parameters.check_known(("limit", "before"))
    days = call.server.audit_retention_days
    if before[0] > datetime.now(UTC) - timedelta(days=days):
        text = f"AuditEvents of the last {days} days are kept"
        raise InvalidResourceError(text, issue_code="business-rule", expression=("Parameters.parameter",))
    limit = min(parameters.integer("limit", least=1) or _DEFAULT_LIMIT, call.server.limits.max_expunge)
    async with call.server.connections.lend() as connection, connection.transaction():
        count = await _remove(call, connection, before[0], limit)
    call.audited = True
    return parameters_response([{"name": "count", "valueInteger": count}])


async def _remove(call: Call, connection: Any, before: datetime, limit: int) -> int:
    await audit_chain.lock(connection)
    blocks = await audit_chain.removable(connection, before, limit)
    rows = [row for block in blocks for row in block.rows or ()]
    if blocks:
        await audit_chain.allow_removal(connection)
        events = list((await audit_chain.events_of(connection, rows)).values())
        if len(events) != len(rows):
            text = "Events are missing: the audit trail has to be verified first"
            raise InvalidResourceError(text, issue_code="business-rule")
        now = datetime.now(UTC)
        # The deletion takes the entries out of the index; then the deletion itself goes.
        changes = [deletion(event, updated=now) for event in events]
        await write_changes(connection, call.server.rows, changes, call.server.own_url)
        await expunging.remove(connection, rows)
        await audit_chain.strip(connection, [block.number for block in blocks])
        context = call.access.context
        told = Removal(
            blocks[0].number,
            blocks[-1].number,
            len(rows),
            context.subject,
            context.client_id,
            before.isoformat(),
            call.trace_id,
        )
        await call.server.audit_sealer.add_removal(connection, told.note())
    event = audit_record(
        interaction="operation", status=200, trace_id=call.trace_id, context=call.access.context, operation="expunge"
    )
    await write_changes(connection, call.server.rows, [], call.server.own_url, (encode([event]), 1))
    return len(rows)
