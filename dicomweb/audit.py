"""Audit of the gateway: every call and refusal is in our database before it is answered, and soon after in the record.

https://hl7.org/fhir/R4/auditevent.html
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson

from dicomweb.database import Database
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.log import get_log

_BATCH = 100
_IDLE_S = 5.0
_GATHER_S = 0.2
_LONGEST_BACK_OFF_S = 60.0
_MOST_ATTEMPTS = 50


class AuditTrail:
    """A durable outbox with group commit: requests that come together share one INSERT."""

    def __init__(self, database: Database, fhir: FhirClient) -> None:
        self._database, self._fhir = database, fhir
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def record(self, event: dict[str, Any]) -> None:
        """Return when the event is durable.

        Raises
        ------
        UpstreamError
            It could not be written: then the call it belongs to must not be answered.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((orjson.dumps(event).decode(), future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await future

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            fault: InteropError | None = None
            try:
                async with self._database.connection() as connection:
                    await connection.execute(
                        "INSERT INTO dicomweb.audit_outbox (event) SELECT unnest($1::text[])",
                        [text for text, _ in batch],
                    )
            except InteropError as error:
                fault = error
            except Exception as error:  # noqa: BLE001  the requests wait for us and must hear of it
                get_log().exception("audit cannot be written", reason=type(error).__name__)
                fault = UpstreamError("The audit trail cannot be written")
            for _, future in batch:
                if future.done():
                    continue
                if fault is None:
                    future.set_result(None)
                else:
                    future.set_exception(fault)
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

    async def send_batch(self) -> int:
        """Send up to 100 events in one batch Bundle and forget those that were taken. Returns how many were tried."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id, event FROM dicomweb.audit_outbox WHERE attempts < $2 ORDER BY attempts, id LIMIT $1",
                *(_BATCH, _MOST_ATTEMPTS),
            )
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
