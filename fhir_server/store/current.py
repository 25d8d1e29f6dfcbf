"""Reads of current versions, gathered: what arrives while a query runs is answered by one next query.

A lone read goes to the database at once; under load one round trip answers many, which is what a round trip costs.
"""

from __future__ import annotations

import asyncio

from fhir_server.search.hashing import resource_key
from fhir_server.store import reading
from fhir_server.store.changes import Stored
from fhir_server.store.connections import Connections

_GROUP = 64
_QUERIES = 2
"""Queries under way at once: the next group gathers while they run."""

Waiting = tuple[int, "asyncio.Future[Stored | None]"]


class CurrentReader:
    """Reads current versions by type and id."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._waiting: list[Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, resource_type: str, logical_id: str) -> Stored | None:
        """Return the current version, which may be a deletion.

        Raises
        ------
        UpstreamError
            The database is away.
        """
        future: asyncio.Future[Stored | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((resource_key(resource_type, logical_id), future))
        if len(self._tasks) < _QUERIES:
            task = asyncio.create_task(self._run(), name="fhir-read")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        found = await future
        if found is None or found.resource_type != resource_type or found.logical_id != logical_id:
            return None
        return found

    async def _run(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            try:
                async with self._connections.lend() as connection:
                    found = await reading.current(connection, [key for key, _ in group])
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to each who waits
                for _, future in group:
                    if not future.done():
                        future.set_exception(exc)
                continue
            for key, future in group:
                if not future.done():
                    future.set_result(found.get(key))
