"""Makes the audit records of reads and refusals durable: callers wait while a group of them is committed together.

One commit serves all that arrived meanwhile, so the cost of a commit is shared by everybody who is waiting anyway.
"""

from __future__ import annotations

import asyncio
import contextlib

from fhir_server.audit.record import AuditRecord, encode
from fhir_server.store import audit_log
from fhir_server.store.connections import Connections
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

_GROUP = 256
_MAX_WAITING = 20_000
_RETRY_S = 0.5

Waiting = tuple[AuditRecord, "asyncio.Future[None] | None"]


class AuditWriter:
    """Collects records and commits them in groups, in the order they came."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._waiting: list[Waiting] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start the task that commits."""
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name="fhir-audit-writer")

    async def stop(self, timeout_s: float = 10.0) -> None:
        """Commit what waits, then end."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, timeout_s)
        if self._waiting:
            get_log().error("audit events could not be written", count=len(self._waiting))

    async def record(self, record: AuditRecord) -> None:
        """Return when the record is committed.

        Raises
        ------
        UpstreamError
            The database is away; the record is kept and written when it is back.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(record, future)
        await future

    def remember(self, record: AuditRecord) -> None:
        """Keep a record that nobody can wait for, as the database is away; it is written when it is back."""
        self._add(record, None)

    def _add(self, record: AuditRecord, future: asyncio.Future[None] | None) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            raise UpstreamError("The audit log cannot be written", headers={"Retry-After": "5"})
        self._waiting.append((record, future))
        self._wake.set()

    async def _run(self) -> None:
        while not (self._stopping and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
                if not await self._commit(group):
                    if self._stopping:
                        return
                    await asyncio.sleep(_RETRY_S)

    async def _commit(self, group: list[Waiting]) -> bool:
        try:
            async with self._connections.lend() as connection:
                await audit_log.append(connection, encode([record for record, _ in group]), len(group))
        except UpstreamError as exc:
            self._waiting = [(record, None) for record, _ in group] + self._waiting
            self._settle(group, exc)
            return False
        except Exception as exc:  # noqa: BLE001 - every caller must get an answer, and the task must live on
            get_log().error("audit events were refused by the database", exception=type(exc).__name__, count=len(group))
            self._settle(group, exc)
            return True
        self._settle(group, None)
        return True

    @staticmethod
    def _settle(group: list[Waiting], error: Exception | None) -> None:
        for _, future in group:
            if future is not None and not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
