"""Carry out units of work in a database transaction: lock, decide each, write all, commit.

https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg
from starlette.concurrency import run_in_threadpool

from fhir_server.audit.record import AuditRecord, encode
from fhir_server.interactions.operations import Result
from fhir_server.rules import custom_parameters
from fhir_server.server import Server
from fhir_server.store import reading
from fhir_server.store.changes import Change
from fhir_server.store.writing import write_changes
from foramen.kernel.errors import ConflictError, InvalidRequestError

if TYPE_CHECKING:
    from fhir_server.interactions.unit_of_work import UnitOfWork

ATTEMPTS = 4
AGAIN = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class AsideError(Exception):
    """A unit would keep the others of its group waiting: it goes on alone."""


After = Callable[[Any, list[Result]], Awaitable[None]]


def keeps_changing() -> ConflictError:
    """Answer a writer whom others overtook again and again."""
    return ConflictError("Other writers keep changing this resource; try again")


async def alone(unit: UnitOfWork, after: After | None = None) -> list[Result]:
    """Carry out one unit in a database transaction of its own, again when other writers overtook it.

    Raises
    ------
    InteropError
        Nothing was written.
    """
    call = unit.call
    for attempt in range(ATTEMPTS):
        try:
            async with call.server.connections.lend() as connection:
                (outcome,) = await carry_out(connection, [unit], call.server, after)
        except AGAIN as exc:
            # Another writer took the id or crossed our locks: decide again on what now stands.
            if attempt == ATTEMPTS - 1:
                raise keeps_changing() from exc
            if isinstance(exc, asyncpg.SerializationError):
                await call.server.registry.refresh(max_age_s=0.0)  # Other search parameters may be in force.
            unit = unit.again()
            continue
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
    raise AssertionError("unreachable")


async def carry_out(
    connection: Any, units: list[UnitOfWork], server: Server, after: After | None = None
) -> list[list[Result] | Exception]:
    """Carry out units of independent callers in one database transaction, each all or nothing.

    A unit that is refused is left out; its place in the answer holds the error. The transaction ends with the return.
    """
    names = [name for unit in units if not unit.needs_search for name in unit.prepared_names()]
    aside = any(unit.needs_search or unit.changes_registry or unit.takes_long for unit in units)
    if not names and after is None and not aside:
        # New resources only: one statement writes them, and it is its own transaction.
        return await _write(connection, units, server)
    async with connection.transaction():
        if any(unit.takes_long for unit in units):
            await reading.begin_writing(connection)
        for unit in units:
            if unit.needs_search:
                await unit.search(connection)
                names += unit.prepared_names()
        if names:
            current = await reading.lock(connection, names)
            gone = [s.row for s in current.values() if s.is_deleted]
            # Who deletes AI output and writes it anew still has AI output.
            buried = await reading.before_deletion(connection, gone) if gone else {}
            for unit in units:
                unit.take(current, buried)
        outcomes = await _write(connection, units, server)
        if after is not None:
            if isinstance(outcomes[0], Exception):
                raise outcomes[0]
            try:  # Others may wait for what this transaction has locked.
                async with asyncio.timeout(server.limits.statement_timeout_s):
                    await after(connection, outcomes[0])
            except TimeoutError as exc:
                raise InvalidRequestError("The GETs of the transaction take too long", issue_code="too-costly") from exc
        return outcomes


async def _write(connection: Any, units: list[UnitOfWork], server: Server) -> list[list[Result] | Exception]:
    outcomes: list[list[Result] | Exception] = []
    changes: list[Change] = []
    records: list[AuditRecord] = []
    is_any = False
    for unit in units:
        try:
            await unit.learn(connection)
            if unit.has_patches:
                await unit.apply_patches(is_shared=len(units) > 1)
            # To index much takes long; such a unit has no others beside it that would wait.
            decided, results = await run_in_threadpool(unit.decide) if unit.is_large else unit.decide()
            await unit.check_institutions(connection, decided)
        except Exception as exc:  # noqa: BLE001 - it is this unit's answer, and no other's
            outcomes.append(exc)
            continue
        if unit.changes_registry:  # Such a unit is alone in its transaction.
            await custom_parameters.apply(unit.call, connection, decided)
        changes += decided
        is_any = True
        if (record := unit.audit(decided)) is not None:
            records.append(record)
        outcomes.append(results)
    if is_any:
        audit = (encode(records), len(records)) if records else (b"", 0)
        await write_changes(connection, server.rows, changes, server.own_url, audit)
    return outcomes
