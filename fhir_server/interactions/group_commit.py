"""Group commit: what independent callers write at the same time shares one database transaction.

Each caller's unit stays all or nothing and is answered for itself, after the commit. A round trip, a lock statement and
a flush to disk are then paid once for all of them; a lone write waits for nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fhir_server.interactions.unit_of_work import AGAIN, ATTEMPTS, UnitOfWork, carry_out, keeps_changing
from foramen.kernel.errors import InteropError

if TYPE_CHECKING:
    from fhir_server.interactions.operations import Result
    from fhir_server.server import Server

Waiting = tuple[UnitOfWork, "asyncio.Future[list[Result]]"]

_GROUP = 64
_LANES = 2
"""Transactions under way at once: the next group gathers while they run."""


class GroupCommit:
    """Gathers units of work and commits them together."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._waiting: list[Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, server: Server) -> None:
        """Say whose connections are used; called once, as the server holds this and is built after it."""
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
        if len(self._tasks) < _LANES:
            task = asyncio.create_task(self._run(), name="fhir-group-commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run(self) -> None:
        while self._waiting:
            group = self._next_group()
            if group:
                await self._commit(group)

    def _next_group(self) -> list[Waiting]:
        """Take what can go together: nobody writes what another of the group writes."""
        group: list[Waiting] = []
        rest: list[Waiting] = []
        names: set[tuple[str, str]] = set()
        for unit, future in self._waiting:
            try:
                own = set(unit.prepared_names())
            except InteropError as exc:
                _answer(future, exc)
                continue
            if len(group) < _GROUP and names.isdisjoint(own):
                group.append((unit, future))
                names |= own
            else:
                rest.append((unit, future))
        self._waiting = rest
        return group

    async def _commit(self, group: list[Waiting]) -> None:
        server = self._server
        assert server is not None  # noqa: S101 - serve() was called when the server was built
        for attempt in range(ATTEMPTS):
            try:
                async with server.connections.lend() as connection:
                    outcomes = await carry_out(connection, [unit for unit, _ in group], server)
            except AGAIN:
                if len(group) > 1:  # One of them met another process's write: each alone, so that no other suffers.
                    for unit, future in group:
                        await self._commit([(unit.again(), future)])
                    return
                if attempt == ATTEMPTS - 1:
                    _answer(group[0][1], keeps_changing())
                    return
                group = [(unit.again(), future) for unit, future in group]
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to each who waits
                for _, future in group:
                    _answer(future, exc)
                return
            else:
                for (_, future), outcome in zip(group, outcomes, strict=True):
                    _answer(future, outcome)
                return


def _answer(future: asyncio.Future[list[Result]], outcome: list[Result] | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
