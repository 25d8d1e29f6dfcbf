"""Group commit: what independent callers write at the same time shares one database transaction.

Each caller's unit stays all or nothing and is answered for itself, after the commit. A round trip, a lock statement and
a flush to disk are then paid once for all of them; a lone write waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from fhir_server.interactions.carrying_out import AsideError, alone, carry_out
from foramen.kernel.errors import UpstreamError

if TYPE_CHECKING:
    from fhir_server.interactions.operations import Result
    from fhir_server.interactions.unit_of_work import UnitOfWork
    from fhir_server.server import Server
    from fhir_server.store.connections import Connections

Waiting = tuple["UnitOfWork", "asyncio.Future[list[Result]]"]

_GROUP = 64
_LANES = 2
"""Transactions under way at once: the next group gathers while they run."""
_SHARE = 3
"""Part of all units at hand (one in so many) that must wait before a second transaction is begun beside the first: a
statement, a commit and a flush cost nearly the same for one unit as for ten."""
_SINGLES = 3
"""Units that go on alone at once; those that wait for a lock must not take every connection."""
LOCK_TIMEOUT_MS = 100
CONNECTIONS = _LANES


class GroupCommit:
    """Gathers units of work and commits them together.

    Parameters
    ----------
    connections : connections of the groups alone. Their `lock_timeout` is short (`LOCK_TIMEOUT_MS`): a group that meets
        a row somebody else holds gives up, and its units go on one by one, beside the groups, where they may wait
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._server: Server | None = None
        self._waiting: list[Waiting] = []
        self._written: set[tuple[str, str]] = set()
        self._under_way = 0
        self._lanes: set[asyncio.Task[None]] = set()
        self._single: set[asyncio.Task[None]] = set()
        self._singles = asyncio.Semaphore(_SINGLES)

    def serve(self, server: Server) -> None:
        """Say for whom it works; called once, as the server holds this and is built after it."""
        self._server = server

    async def perform(self, unit: UnitOfWork) -> list[Result]:
        """Carry out one unit; returns after the commit.

        Raises
        ------
        InteropError
            Nothing of it was written.
        """
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((unit, future))
        if len(self._lanes) < _LANES and self._are_enough():
            _keep(self._lanes, self._run())
        return await future

    def _are_enough(self) -> bool:
        """Whether those that wait make a group worth a transaction; without one under way any number does."""
        waiting = len(self._waiting)
        return waiting > 0 and (self._under_way == 0 or waiting * _SHARE >= self._under_way + waiting)

    async def _run(self) -> None:
        # What is left waiting is taken by the transaction that is under way, when it ends.
        while self._are_enough():
            group, names = self._next_group()
            if not group:
                return
            self._under_way += len(group)
            self._written |= names
            try:
                await self._commit(group)
            finally:
                self._under_way -= len(group)
                self._written -= names

    def _next_group(self) -> tuple[list[Waiting], set[tuple[str, str]]]:
        """Take what can go together: nobody writes what another of the group writes, or a group under way.

        Returns the group and the (type, id) that it writes.
        """
        group: list[Waiting] = []
        rest: list[Waiting] = []
        names: set[tuple[str, str]] = set()
        waiting, self._waiting = self._waiting, []
        for unit, future in waiting:
            try:
                own = set(unit.prepared_names())
            except Exception as exc:  # noqa: BLE001 - it is the answer to the one whose unit it is
                _answer(future, exc)
                continue
            if len(group) < _GROUP and names.isdisjoint(own) and self._written.isdisjoint(own):
                group.append((unit, future))
                names |= own
            else:
                rest.append((unit, future))
        self._waiting = rest
        return group, names

    async def _commit(self, group: list[Waiting]) -> None:
        assert self._server is not None  # noqa: S101 - serve() was called when the server was built
        try:
            async with self._connections.lend() as connection:
                outcomes = await carry_out(connection, [unit for unit, _ in group], self._server)
        except UpstreamError as exc:
            # The commit itself may have been reached: whoever tried again could write twice.
            for _, future in group:
                _answer(future, exc)
        except Exception:  # noqa: BLE001 - one of them is the reason: each alone, so that no other suffers
            for unit, future in group:
                _keep(self._single, self._alone(unit.again(), future))
        else:
            for (unit, future), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, AsideError):
                    _keep(self._single, self._alone(unit.again(), future))
                else:
                    _answer(future, outcome)

    async def _alone(self, unit: UnitOfWork, future: asyncio.Future[list[Result]]) -> None:
        async with self._singles:
            try:
                _answer(future, await alone(unit))
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer
                _answer(future, exc)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work, name="fhir-group-commit")
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _answer(future: asyncio.Future[list[Result]], outcome: list[Result] | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
