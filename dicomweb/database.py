"""One small pool of connections to the gateway's own schema; a lost database is an `UpstreamError`, not a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from foramen.kernel.errors import UpstreamError

_CLOSE_S = 5.0
_AT_HAND = 2
"""Of a search: its own, and one for what goes on in the background."""
_KEPT_S = 3600.0
"""A connection that is not used stays so long: to open one costs as much as many searches, and one waits for it."""


async def _prepare(connection: asyncpg.Connection[Any]) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads, schema="pg_catalog"
    )


async def _no_reset(_: asyncpg.Connection[Any]) -> None:
    """Skip `DISCARD ALL`: nothing here changes session state, and the default reset costs more than a query."""


class Database:
    """A pool that opens on first use and after the server came back.

    Parameters
    ----------
    planned_anew : every statement is planned for its values. A plan kept for all values serves fixed statements best;
        of a search, whose words may name one study or half of them, it is often a bad one.
    """

    def __init__(self, url: str, *, planned_anew: bool = False) -> None:
        self._url = url
        self._settings = {"plan_cache_mode": "force_custom_plan"} if planned_anew else {}
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lend a connection.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        try:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        min_size=_AT_HAND,
                        max_size=8,
                        max_inactive_connection_lifetime=_KEPT_S,
                        init=_prepare,
                        reset=_no_reset,
                        command_timeout=30,
                        server_settings=self._settings,
                    )
            async with self._pool.acquire() as connection:
                yield connection
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as exc:
            raise UpstreamError("The database does not answer", headers={"Retry-After": "5"}) from exc
        except (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError) as exc:
            raise UpstreamError("The database is shutting down", headers={"Retry-After": "5"}) from exc

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()
            self._pool = None
