"""Transactions on PostgreSQL: async for the web (SQLAlchemy + asyncpg), plain for commands and migrations.

Storage functions take a `Connection` and are written once: `AsyncConnection.run_sync` gives them one that awaits,
which also lets Authlib's synchronous grants work in the same transaction
(https://docs.sqlalchemy.org/en/21/orm/extensions/asyncio.html#running-synchronous-methods-and-functions-under-asyncio).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, NullPool, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from foramen.identity.ready_connections import LOST, ReadyConnections
from foramen.identity.two_statements import NeedsTransaction, Reading, TwoStatements
from foramen.kernel.errors import ConflictError, UpstreamError

T = TypeVar("T")
_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_S = 10
_IDLE_S = 1.0


def utc_now() -> datetime:
    """Return the current time, aware."""
    return datetime.now(UTC)


@contextmanager
def transaction(database_url: str) -> Iterator[Connection]:
    """Open one transaction of a command-line tool."""
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        with engine.begin() as connection:
            yield connection
    except IntegrityError as exc:
        raise _conflict(exc) from exc
    finally:
        engine.dispose()


def _conflict(error: IntegrityError) -> Exception:
    """Say that a name is taken, where that is what the database refused; anything else is a fault and stays one."""
    return ConflictError("An account or a client has this name") if _ONE_SUBJECT in str(error.orig) else error


_ONE_SUBJECT = "an account or a client has this name"  # what trigger `claim_subject` says
_AWAY = ("57P01", "57P02", "57P03")  # admin shutdown, crash shutdown, cannot connect now (starting, in recovery)


def _is_away(error: DBAPIError) -> bool:
    """Whether PostgreSQL is stopping, starting or recovering: it will be back."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "sqlstate", None) in _AWAY:
            return True
        cause = cause.__cause__ or getattr(cause, "orig", None)
    return False


def _ping_when_idle(engine: AsyncEngine) -> None:
    """Ask a pooled connection whether it lives, as `pool_pre_ping` does, but not one that was in use just now."""
    pool, dialect = engine.sync_engine.pool, engine.sync_engine.dialect

    def returned(_: object, record: ConnectionPoolEntry) -> None:
        record.info["returned"] = time.monotonic()

    def taken(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        if time.monotonic() - record.info.get("returned", time.monotonic()) < _IDLE_S:
            return
        try:
            alive = dialect.do_ping(connection)
        except Exception as exc:  # whatever a dead connection says
            raise DisconnectionError("the connection is gone") from exc
        if not alive:
            raise DisconnectionError("the connection is gone")

    event.listen(pool, "checkin", returned)
    event.listen(pool, "checkout", taken)


class IdentityDatabase:
    """The pool of the web process."""

    def __init__(self, database_url: str, pool_size: int = 5) -> None:
        url = make_url(database_url).set(drivername="postgresql+asyncpg")
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=_CONNECT_TIMEOUT_S,
            hide_parameters=True,  # a failed statement is logged: no name, no hash, no sealed secret with it
            connect_args={"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _STATEMENT_TIMEOUT_S},
        )
        _ping_when_idle(self._engine)
        self._ready = ReadyConnections(url.set(drivername="postgresql").render_as_string(hide_password=False))

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction: committed when it returns, rolled back when it raises.

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        try:
            # One greenlet for all of it: AsyncEngine takes one each to connect, begin, work, commit and close.
            return await greenlet_spawn(self._in_transaction, work)
        except (OperationalError, InterfaceError, PoolTimeoutError, OSError, TimeoutError) as exc:
            raise UpstreamError("The database does not answer", headers={"Retry-After": "2"}) from exc
        except IntegrityError as exc:
            raise _conflict(exc) from exc
        except DBAPIError as exc:
            if not (exc.connection_invalidated or _is_away(exc)):
                raise
            raise UpstreamError("The database does not answer", headers={"Retry-After": "2"}) from exc
        except asyncpg.PostgresError as exc:  # raised while connecting: shutting down, starting, too many connections
            raise UpstreamError("The database does not answer", headers={"Retry-After": "2"}) from exc

    async def run_checked(
        self, work: Callable[[Connection], T], statements: TwoStatements, asked: Mapping[str, Any]
    ) -> T:
        """Do work that reads and then writes once, by two statements where that suffices; else as `run` does.

        `work` may be done twice; it changes nothing but by its connection.

        Parameters
        ----------
        asked : parameters of what it asks first

        Raises
        ------
        UpstreamError
            The database does not answer.
        """
        try:
            row = await self._ready.fetch_row(statements.reading.text, statements.reading.arguments(asked))
        except LOST:
            row = None  # `run` finds out whether the database is away, and says so
        if row is None:
            return await self.run(work)
        reading = Reading(statements, row)
        try:
            result = reading.decide(work)
        except NeedsTransaction:
            return await self.run(work)
        writing = reading.writing()
        if writing is None:
            return result
        try:
            written = await self._ready.fetch_row(*writing)
        except asyncpg.PostgresError:  # refused, so not written: a transaction knows what to do about it
            written = None
        except LOST as exc:  # nobody knows whether it was written: what it was for is not handed out
            raise UpstreamError("The database does not answer", headers={"Retry-After": "2"}) from exc
        return result if written is not None else await self.run(work)

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with self._engine.sync_engine.begin() as connection:
            return work(connection)

    async def ready(self) -> bool:
        """Whether the database answers and the schema is there."""
        try:
            await self.run(lambda connection: connection.execute(text("SELECT 1 FROM identity.client LIMIT 1")))
        except (UpstreamError, DBAPIError):
            return False
        return True

    async def close(self) -> None:
        """Close all connections."""
        await self._ready.close()
        await self._engine.dispose()
