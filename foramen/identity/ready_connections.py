"""A few asyncpg connections for statements that are ready as text: no transaction, nothing of SQLAlchemy in between.

asyncpg's own pool resets a connection at every release, which costs more than the statement.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import orjson

_CONNECT_TIMEOUT_S = 5.0
_STATEMENT_TIMEOUT_S = 10.0
_MOST = 8
_BINARY_FORM = b"\x01"  # of jsonb (PostgreSQL 18, jsonb_send)
LOST: tuple[type[BaseException], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # A connection that died in the middle of an answer.
    OSError,
    TimeoutError,
)
"""What a statement that was right fails by."""


class ReadyConnections:
    """Holds up to `most` connections; the one used last is lent first, as its statements are prepared."""

    def __init__(self, url: str, most: int = _MOST) -> None:
        self._url, self._free = url, list[Any]()
        self._slots = asyncio.Semaphore(most)

    async def fetch_row(self, text: str, arguments: list[Any]) -> tuple[Any, ...] | None:
        """Run one statement; it is a transaction of its own. Returns its first row.

        Raises
        ------
        One of `LOST`
            The database is away, or it refuses; the connection is not used again.
        """
        async with self._slots:
            connection = self._free.pop() if self._free else None
            if connection is None or connection.is_closed():
                connection = await self._open()
            try:
                row = await connection.fetchrow(text, *arguments)
            except BaseException:  # A cancelled one is in an unknown state, too.
                connection.terminate()
                raise
            self._free.append(connection)
            return tuple(row) if row is not None else None

    async def _open(self) -> Any:
        connection = await asyncpg.connect(
            self._url, timeout=_CONNECT_TIMEOUT_S, command_timeout=_STATEMENT_TIMEOUT_S,
            # One plan fits all values: each statement finds single rows by their keys.
            server_settings={"jit": "off", "plan_cache_mode": "force_generic_plan"},
        )  # fmt: skip
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda value: _BINARY_FORM + orjson.dumps(value),
            decoder=lambda sent: orjson.loads(sent[1:]),
        )
        return connection

    async def close(self) -> None:
        """Close all connections that are not lent."""
        while self._free:
            await self._free.pop().close(timeout=2)
