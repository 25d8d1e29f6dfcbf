"""Audit of the gateway: every call and refusal is in our database before it is answered, and soon after in the record.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from dicomweb.database import Database
from dicomweb.lifecycle.last_access import LastAccess
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.log import get_log

_BATCH = 8
"""Events of one Bundle: a hundred cost no less each, and hold up whoever searches meanwhile ten times as long."""
_BREATH_S = 0.01
_IDLE_S = 5.0
_GATHER_S = 0.2
_LONGEST_BACK_OFF_S = 60.0
_MOST_ATTEMPTS = 50
HELD_S = 5.0
_INSERT = """INSERT INTO dicomweb.audit_outbox (event, held_as, held_until)
    SELECT event, held_as, CASE WHEN held_as IS NOT NULL THEN now() + make_interval(secs => $3) END
    FROM unnest($1::text[], $2::text[]) AS given (event, held_as)"""
_COMPLETE = """UPDATE dicomweb.audit_outbox o SET event = given.event, held_as = NULL, held_until = NULL
    FROM unnest($1::text[], $2::text[]) AS given (held_as, event) WHERE o.held_as = given.held_as"""
_NEXT = """SELECT id, event FROM dicomweb.audit_outbox
    WHERE attempts < $2 AND (held_until IS NULL OR held_until <= now()) ORDER BY attempts, id LIMIT $1"""


class AuditTrail:
    """A durable outbox with group commit: requests that come together share one INSERT."""

    def __init__(self, database: Database, fhir: FhirClient) -> None:
        self._database, self._fhir = database, fhir
        self.accesses = LastAccess(database)
        self._waiting: list[tuple[str, str | None, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def record(self, event: dict[str, Any], *, held_as: str | None = None) -> None:
        """Return when the event is durable.

        Parameters
        ----------
        held_as : a name by which `complete` finds it; until then, or for `HELD_S`, it is not sent

        Raises
        ------
        UpstreamError
            It could not be written: then the call it belongs to must not be answered.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((orjson.dumps(event).decode(), held_as, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await future
        self.accesses.note(event)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            fault: InteropError | None = None
            try:
                async with self._database.connection() as connection:
                    await connection.execute(_INSERT, *([item[place] for item in batch] for place in (0, 1)), HELD_S)
            except InteropError as error:
                fault = error
            except Exception as error:  # noqa: BLE001  the requests wait for us and must hear of it
                get_log().exception("audit cannot be written", reason=type(error).__name__)
                fault = UpstreamError("The audit trail cannot be written")
            for _, _, future in batch:
                if future.done():
                    continue
                if fault is None:
                    future.set_result(None)
                else:
                    future.set_exception(fault)
        self._wake.set()

    async def complete(self, events: Mapping[str, dict[str, Any]]) -> None:
        """Replace events that are held, by their names, and send them.

        Raises
        ------
        UpstreamError
            It could not be written: they are sent as they were recorded.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                _COMPLETE, list(events), [orjson.dumps(event).decode() for event in events.values()]
            )
        self._wake.set()

    async def run(self) -> None:
        """Send what lies in the outbox to the record, until cancelled. At least once: a kill may send a batch again."""
        back_off_s = 0.0
        while True:
            self._wake.clear()
            try:
                sent = await self.send_batch()
                back_off_s = 0.0
            except InteropError as error:
                back_off_s = min(max(1.0, 2 * back_off_s), _LONGEST_BACK_OFF_S)
                get_log().warning("audit waits", reason=error.message)
                await asyncio.sleep(back_off_s)
                continue
            if sent < _BATCH:
                with contextlib.suppress(TimeoutError):
                    # Not `wait_for`: before Python 3.12 it can lose a cancellation that comes together with the event.
                    async with asyncio.timeout(_IDLE_S):
                        await self._wake.wait()
                # Calls come in bursts: a short pause makes one Bundle of them.
                await asyncio.sleep(_GATHER_S)
            else:
                await asyncio.sleep(_BREATH_S)

    async def send_batch(self) -> int:
        """Send some events in one batch Bundle and forget those that were taken. Returns how many were tried."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_NEXT, _BATCH, _MOST_ATTEMPTS)
        if not rows:
            return 0
        entries = [
            {"resource": orjson.loads(row["event"]), "request": {"method": "POST", "url": "AuditEvent"}} for row in rows
        ]
        answer = await self._fhir.transaction({"resourceType": "Bundle", "type": "batch", "entry": entries})
        statuses = [entry.get("response", {}).get("status", "500") for entry in answer.get("entry", [])]
        taken = [row["id"] for row, status in zip(rows, statuses, strict=False) if status.startswith("2")]
        refused = [row["id"] for row in rows if row["id"] not in set(taken)]
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("DELETE FROM dicomweb.audit_outbox WHERE id = ANY($1::bigint[])", taken)
            await connection.execute(
                "UPDATE dicomweb.audit_outbox SET attempts = attempts + 1 WHERE id = ANY($1::bigint[])", refused
            )
        if refused:
            raise UpstreamError(f"The record refused {len(refused)} audit events")
        return len(rows)
