"""Turns durable audit records into AuditEvents: at once when somebody asks for AuditEvents, else when there is time.

ADR 0020: a read pays for one appended record; the work of indexing is done in large groups, in quiet moments.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from fhir_server.audit.record import AuditRecord, decode, event_change, touched
from fhir_server.audit.seal import BrokenSealError
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.store import audit_log
from fhir_server.store.connections import Connections
from fhir_server.store.rows import RowNumbers
from fhir_server.store.writing import write_changes
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

_RECORDS = 100
"""Records of one transaction."""
_AT_ONCE = 8
"""Events that are built before requests have their turn."""
_WHILE_BUSY = 1000
"""Records of one look while the server is busy."""
_LOOK_S = 0.5
_ATTEMPTS = 4
_QUIET = 100
"""Calls between two looks below which the server counts as quiet."""


class AuditIndexer:
    """Indexes what the audit log holds; several processes may do so at once.

    `calls` counts what the edge serves: from it the indexer sees whether there is time. `refresh` loads the search
    parameters that are in force.
    """

    def __init__(
        self,
        connections: Connections,
        rows: RowNumbers,
        own_url: str,
        delay_s: float,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._connections = connections
        self._rows = rows
        self._own_url = own_url
        self._delay_s = delay_s
        self._refresh = refresh
        self.calls = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start looking for records."""
        self._task = asyncio.create_task(self._run(), name="fhir-audit-indexer")

    async def stop(self) -> None:
        """End; what is not indexed yet is indexed after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def settle(self) -> None:
        """Index everything that was recorded before this call, so that a search for AuditEvents finds it.

        Raises
        ------
        UpstreamError
            The database is away, or others keep crossing the work.
        """
        async with self._connections.lend() as connection:
            bound = await audit_log.newest(connection)
        while bound:
            await self._index(bound, wait=True)
            # Nothing may also mean that another process was quicker with the groups that were waited for.
            async with self._connections.lend() as connection:
                first = await audit_log.first(connection)
            if first is None or first > bound:
                return

    async def _index(self, up_to: int, *, wait: bool) -> int:
        """Index the oldest groups in one transaction; returns how many records they held.

        Raises
        ------
        UpstreamError
            Others crossed it again and again; the records stay where they are.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await self._attempt(up_to, wait=wait)
            except asyncpg.SerializationError:  # Other search parameters came into force meanwhile.
                await self._refresh()
            except asyncpg.DeadlockDetectedError:
                continue
        raise UpstreamError("Audit events are being indexed; try again", headers={"Retry-After": "1"})

    async def _attempt(self, up_to: int, *, wait: bool) -> int:
        async with self._connections.lend() as connection, connection.transaction():
            # Whatever a crash loses of this is again in the log, as both are one transaction.
            await connection.execute("SET LOCAL synchronous_commit = off")
            groups = await audit_log.take(connection, up_to, _RECORDS, wait=wait)
            records: list[AuditRecord] = []
            for group in groups:
                try:
                    records += decode(group)
                except (msgspec.DecodeError, BrokenSealError):
                    get_log().error("audit records cannot be read and were set aside", count=1)
                    await audit_log.set_aside(connection, group)
            count = len(records)
            records = await self._unknown(connection, records)
            if records:
                patients = await self._patients(connection, records)
                changes = []
                for number, (record, found) in enumerate(zip(records, patients, strict=True), start=1):
                    changes.append(event_change(record, self._own_url, found))
                    if number % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                await write_changes(connection, self._rows, changes, self._own_url)
        return count

    async def _unknown(self, connection: Any, records: list[AuditRecord]) -> list[AuditRecord]:
        """Leave out what is an AuditEvent already: a group whose acknowledgement was lost is in the log twice."""
        once = {resource_key("AuditEvent", record.logical_id): record for record in records}
        known = await audit_log.present(connection, list(once))
        return [record for key, record in once.items() if key not in known]

    async def _patients(self, connection: Any, records: list[AuditRecord]) -> list[set[str]]:
        """Name the patients in whose records lies what each call showed."""
        keys = [[hash64(reference) for reference in touched(record)] for record in records]
        found = await audit_log.patients_of(connection, sorted({key for some in keys for key in some}))
        return [{name for key in some for name in found.get(key, ())} for some in keys]

    async def _run(self) -> None:
        seen = self.calls
        while True:
            await asyncio.sleep(_LOOK_S)
            busy = self.calls - seen > _QUIET
            seen = self.calls
            try:
                await self._look(busy)
            except UpstreamError:
                continue
            except Exception as exc:  # noqa: BLE001 - the task must live on; the records stay where they are
                get_log().error("audit records could not be indexed", exception=type(exc).__name__)

    async def _look(self, busy: bool) -> None:
        async with self._connections.lend() as connection:
            oldest, bound = await audit_log.oldest(connection), await audit_log.newest(connection)
        if oldest is None or (busy and (datetime.now(UTC) - oldest).total_seconds() < self._delay_s):
            return
        loop = asyncio.get_running_loop()
        began, done = loop.time(), 0
        while (count := await self._index(bound, wait=False)) and not (busy and done >= _WHILE_BUSY):
            done += count
            took = loop.time() - began  # Half of the time belongs to requests, whatever waits here.
            await asyncio.sleep(took)
            began = loop.time()
