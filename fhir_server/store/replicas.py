"""Searches on read replicas, causally: what anybody was told before a search began is seen by it (ADR 0016).

Before a search the primary is asked how far its log is flushed; a replica serves it only when it has replayed as much.
Every acknowledged write lies below that point, from whichever web process. A replica that lags or is lost costs nothing
but its share: the primary serves instead.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import asyncpg
from prometheus_client import Counter

from fhir_server.store.connections import Connections
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

T = TypeVar("T")
Work = Callable[[Any], Awaitable[T]]

_FLUSHED = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint"
_REPLAYED = "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint WHERE pg_is_in_recovery()"
_POLL_S = 0.002
_AVOID_LAGGING_S = 0.25
_AVOID_LOST_S = 2.0
_CONFLICTS = (asyncpg.SerializationError, asyncpg.ReadOnlySQLTransactionError, asyncpg.DeadlockDetectedError)
"""A replica cancels a statement that holds up its replay; on the primary the same statement goes through."""
_SEARCHES = Counter("foramen_fhir_searches_total", "FHIR searches by the database that served them", ["database"])
_ON_REPLICA, _ON_PRIMARY = _SEARCHES.labels("replica"), _SEARCHES.labels("primary")


class Horizon:
    """Asks the primary how far its log is flushed; what arrives while a question is under way shares the next one."""

    def __init__(self, primary: Connections) -> None:
        self._primary = primary
        self._waiting: list[asyncio.Future[int]] = []
        self._task: asyncio.Task[None] | None = None

    async def now(self) -> int:
        """Return a point of the log behind everything that was acknowledged before this call.

        Raises
        ------
        UpstreamError
            The primary is away.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask(), name="fhir-horizon")
        return await future

    async def _ask(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                async with self._primary.lend() as connection:
                    found = int(await connection.fetchval(_FLUSHED))
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to each who waits
                for future in group:
                    if not future.done():
                        future.set_exception(exc)
                continue
            for future in group:
                if not future.done():
                    future.set_result(found)


class Replica:
    """One replica: its connections, how far it was when last asked, and until when it is left alone.

    How far is known by connection: a replica that was started anew may be behind where it was before.
    """

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.avoid_until = 0.0
        self._replayed: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    async def has(self, connection: Any, horizon: int, wait_s: float) -> bool:
        """Whether it has replayed the log up to a point, waiting for that a moment."""
        deadline = time.monotonic() + wait_s
        while self._replayed.get(connection, -1) < horizon:
            found = await connection.fetchval(_REPLAYED)
            if found is None:  # Promoted: it is a primary of its own now, and knows nothing of ours.
                self.avoid(_AVOID_LOST_S)
                return False
            self._replayed[connection] = int(found)
            if found < horizon:
                if time.monotonic() >= deadline:
                    self.avoid(_AVOID_LAGGING_S)
                    return False
                await asyncio.sleep(_POLL_S)
        return True

    def avoid(self, seconds: float) -> None:
        """Leave it alone for a while."""
        self.avoid_until = time.monotonic() + seconds


class Searches:
    """Where searches run: on a replica that has seen enough, else on the primary."""

    def __init__(self, primary: Connections, replicas: list[Connections], wait_s: float) -> None:
        self._primary = primary
        self._replicas = [Replica(connections) for connections in replicas]
        self._order = itertools.count()
        self._horizon = Horizon(primary)
        self._wait_s = wait_s

    async def start(self) -> None:
        """Make room for connections; they open when first needed."""
        for replica in self._replicas:
            await replica.connections.start()

    async def stop(self) -> None:
        """Close the replicas' connections."""
        for replica in self._replicas:
            await replica.connections.stop()

    def free(self, *, primary: bool = False) -> int:
        """How many connections are free where searches run: of the primary, or of all replicas that are used."""
        now = time.monotonic()
        usable = [] if primary else [item.connections for item in self._replicas if item.avoid_until <= now]
        return sum(connections.free for connections in usable or [self._primary])

    async def run(self, work: Work[T], *, primary: bool = False) -> T:
        """Run reading work on a connection; it may be run a second time, on the primary.

        Parameters
        ----------
        primary : the work needs what is not flushed yet (AuditEvents of reads) and runs on the primary

        Raises
        ------
        UpstreamError
            The primary is away.
        """
        replica = None if primary else self._choose()
        if replica is not None:
            horizon = await self._horizon.now()
            try:
                async with replica.connections.lend() as connection:
                    if await replica.has(connection, horizon, self._wait_s):
                        result = await work(connection)
                        _ON_REPLICA.inc()
                        return result
            except _CONFLICTS:
                get_log().info("search repeated on the primary", reason="conflict with recovery")
            except UpstreamError as exc:
                if exc.issue_code in ("timeout", "throttled"):
                    raise
                replica.avoid(_AVOID_LOST_S)
                get_log().warning("replica does not answer")
        async with self._primary.lend() as connection:
            result = await work(connection)
        _ON_PRIMARY.inc()
        return result

    def _choose(self) -> Replica | None:
        if not self._replicas:
            return None
        now = time.monotonic()
        usable = [replica for replica in self._replicas if replica.avoid_until <= now]
        return usable[next(self._order) % len(usable)] if usable else None
