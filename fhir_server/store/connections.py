"""A few dedicated asyncpg connections, each kept for long with its prepared statements; lost ones are opened again.

asyncpg's own pool resets a connection at every release, which costs two thirds of the rate (measured).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from foramen.kernel.errors import UpstreamError

_LOST: tuple[type[BaseException], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # A connection that died in the middle of an answer.
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    ConnectionError,
    OSError,
)
_SESSION = (
    "SET synchronous_commit = on; SET jit = off; SET random_page_cost = 1.1; SET enable_seqscan = off; "
    "SET enable_memoize = off; "
    "SET timezone = 'UTC'; "
    # Statements are written so that one plan fits all values (ADR 0014): planning anew would cost more than most run.
    "SET plan_cache_mode = force_generic_plan"
)
_CONNECT_TIMEOUT_S = 5.0


def _unavailable() -> UpstreamError:
    return UpstreamError("The database does not answer; try again", headers={"Retry-After": "1"})


def _busy() -> UpstreamError:
    # RFC 9110 §15.6.4; issue type `throttled`: "not prepared to handle this request due to load management".
    return UpstreamError(
        "All database connections are busy; try again", issue_code="throttled", headers={"Retry-After": "2"}
    )


class Connections:
    """Holds up to `size` connections; the one used last is lent first, as its statements are warm.

    Parameters
    ----------
    session : SQL that each new connection runs
    wait_s : longest a borrower waits for one to be free; None: without end (jobs, which nobody waits for)
    """

    def __init__(
        self, url: str, size: int, statement_timeout_s: float, session: str = "", wait_s: float | None = None
    ) -> None:
        self._url = url
        self._session = f"{_SESSION}; SET statement_timeout = {int(statement_timeout_s * 1000)}; {session}"
        self._free: list[Any] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._size = size
        self._wait_s = wait_s

    @property
    def free(self) -> int:
        """How many could be lent now."""
        return len(self._free) if not self._waiting else 0

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._waiting)

    async def start(self) -> None:
        """Make the slots; connections open when first needed."""
        self._free = [None] * self._size

    async def stop(self) -> None:
        """Close all connections, waiting for those that are lent."""
        for _ in range(self._size):
            connection = await self._take(None)
            if connection is not None and not connection.is_closed():
                await connection.close(timeout=2)

    async def _open(self) -> Any:
        connection = await asyncpg.connect(self._url, timeout=_CONNECT_TIMEOUT_S, statement_cache_size=400)
        await connection.execute(self._session)
        return connection

    async def _take(self, wait_s: float | None) -> Any:
        if self._free and not self._waiting:
            return self._free.pop()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(wait_s):
                return await future
        except (asyncio.CancelledError, TimeoutError) as exc:
            if future.done() and not future.cancelled():
                self._give(future.result())
            else:
                with suppress(ValueError):  # Whoever gave one back in between has taken it out already.
                    self._waiting.remove(future)
            if isinstance(exc, TimeoutError):
                raise _busy() from exc
            raise

    def _give(self, connection: Any) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(connection)
                return
        self._free.append(connection)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Any]:
        """Lend a connection.

        Raises
        ------
        UpstreamError
            The database is away, or all connections stay busy (`throttled`); the next call tries again.
        """
        connection = await self._take(self._wait_s)
        try:
            if connection is None or connection.is_closed():
                connection = await self._open()
            yield connection
        except asyncpg.QueryCanceledError as exc:
            raise UpstreamError("The query took too long", issue_code="timeout") from exc
        except _LOST as exc:
            if connection is not None and not connection.is_closed():
                connection.terminate()
            connection = None
            raise _unavailable() from exc
        finally:
            if connection is not None and connection.is_closed():
                connection = None
            elif connection is not None and connection.is_in_transaction():
                connection.terminate()  # A cancelled request must not hand its open transaction to the next one.
                connection = None
            self._give(connection)
