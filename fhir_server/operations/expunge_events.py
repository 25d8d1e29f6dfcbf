"""`$expunge` of AuditEvents: only those past the retention, from the beginning of the chain, and told in the chain.

ADR 0022; docs/api/expunge.md
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncpg
from starlette.responses import Response

from fhir_server.audit.chain import Block, Removal, is_whole
from fhir_server.audit.record import audit_record, encode
from fhir_server.audit.retention import is_past_retention, kept_since
from fhir_server.audit.seal import seal
from fhir_server.interactions.carrying_out import AGAIN, ATTEMPTS
from fhir_server.operations.parameters import Parameters, parameters_response
from fhir_server.server import Call
from fhir_server.store import audit_chain, expunging
from fhir_server.store.changes import Stored, deletion
from fhir_server.store.writing import write_changes
from foramen.kernel.errors import ConflictError, InvalidResourceError, NotSupportedError

_DEFAULT_LIMIT = 1000
_LOCK_MS = 5000
"""Longest a removal waits for whoever seals; while a chain begins that may be minutes."""
_T = TypeVar("_T")


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
    if before[0] > kept_since(days):
        text = f"AuditEvents of the last {days} days are kept"
        raise InvalidResourceError(text, issue_code="business-rule", expression=("Parameters.parameter",))
    limit = min(parameters.integer("limit", least=1) or _DEFAULT_LIMIT, call.server.limits.max_expunge)

    async def remove(connection: Any) -> int:
        return await _remove(call, connection, before[0], limit)

    count = await unless_overtaken(call, remove)
    call.audited = True
    return parameters_response([{"name": "count", "valueInteger": count}])


async def unless_overtaken(call: Call, work: Callable[[Any], Awaitable[_T]]) -> _T:
    """Do some work in a transaction of its own, again when other writers crossed it.

    Raises
    ------
    ConflictError
        409: they keep crossing it, or audit events are being sealed for long; nothing was done.
    """
    for attempt in range(ATTEMPTS):
        try:
            async with call.server.connections.lend() as connection, connection.transaction():
                return await work(connection)
        except asyncpg.LockNotAvailableError as exc:
            raise ConflictError("Audit events are being sealed or removed by another; try again") from exc
        except AGAIN as exc:
            if attempt == ATTEMPTS - 1:
                raise ConflictError("Others keep writing what is to be removed; try again") from exc
            if isinstance(exc, asyncpg.SerializationError):  # Other search parameters came into force meanwhile.
                await call.server.registry.refresh(max_age_s=0.0)
    raise AssertionError("unreachable")


async def _remove(call: Call, connection: Any, before: datetime, limit: int) -> int:
    await audit_chain.lock_within(connection, _LOCK_MS)
    blocks = await audit_chain.removable(connection, before, limit)
    rows = [row for block in blocks for row in block.rows or ()]
    if blocks:
        await audit_chain.allow_removal(connection)
        now = datetime.now(UTC)
        events = await _events(call, connection, blocks, now)
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


async def _events(call: Call, connection: Any, blocks: list[Block], now: datetime) -> list[Stored]:
    """Return the events of blocks that are what was sealed.

    A block whose time was moved back by somebody else, or an event that is younger than its block says, must not go
    "by rule".
    """
    whole = all(is_whole(block, seal()) for block in blocks)
    found = await audit_chain.events_of(connection, [row for block in blocks for row in block.rows or ()])
    days = call.server.audit_retention_days
    old = all(
        row in found and is_past_retention(found[row].updated, block.at, days, now)
        for block in blocks
        for row in block.rows or ()
    )
    if not whole or not old:
        text = "Events are missing or were changed: the audit trail has to be verified first"
        raise InvalidResourceError(text, issue_code="business-rule")
    return list(found.values())
