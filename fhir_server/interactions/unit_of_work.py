"""Carry out writes, all or nothing: one request's create, update or delete, or all of a transaction's.

Every write of the API passes here, so scope, compartment, versions, sign-off and audit are checked in one place.
https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from fhir_server.audit.record import audit_change
from fhir_server.interactions.operations import Operation, Result, check_type, query_pairs
from fhir_server.model.references import conditional_references, rewrite_references
from fhir_server.model.resource import Resource
from fhir_server.rules.ai_signoff import SIGNED_OFF, check_signoff
from fhir_server.search.hashing import hash64
from fhir_server.server import Call
from fhir_server.store import reading, searching
from fhir_server.store.changes import Change, Stored, deletion, save
from fhir_server.store.writing import write_changes
from foramen.kernel.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
)
from foramen.kernel.identifiers import new_logical_id

_ATTEMPTS = 4
_AGAIN = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


After = Callable[[Any], Awaitable[None]]


async def perform(call: Call, operations: list[Operation], after: After | None = None) -> list[Result]:
    """Carry out all operations in one database transaction; the results keep their order.

    Parameters
    ----------
    after : runs on the connection once everything is written and before it is committed (the GETs of a transaction)

    Raises
    ------
    InteropError
        Nothing was written.
    """
    for operation in operations:
        call.access.context.reach(operation.resource_type, operation.action)
        if operation.query is not None:
            call.access.context.reach(operation.resource_type, "s")
    for attempt in range(_ATTEMPTS):
        try:
            async with call.server.connections.lend() as connection:
                work = UnitOfWork(call, [replace(operation) for operation in operations])
                results = await work.run(connection, after)
                call.audited = True
                return results
        except _AGAIN as exc:
            # Another writer took the id or crossed our locks: decide again on what now stands.
            if attempt == _ATTEMPTS - 1:
                raise ConflictError("Other writers keep changing this resource; try again") from exc
    raise AssertionError("unreachable")


class UnitOfWork:
    """One attempt at carrying out the operations."""

    def __init__(self, call: Call, operations: list[Operation]) -> None:
        self._call = call
        self._server = call.server
        self._operations = operations
        self._results: list[Result | None] = [None] * len(operations)
        self._found: dict[int, Stored] = {}
        self._changes: dict[int, Change] = {}
        self._buried: dict[int, bytes] = {}
        self._now = datetime.now(UTC)

    async def run(self, connection: Any, after: After | None) -> list[Result]:
        """Carry out everything; the transaction ends with the return."""
        simple = (
            after is None
            and all(o.method == "POST" and o.query is None for o in self._operations)
            and not any(conditional_references(o.resource.body) for o in self._operations if o.resource)
        )
        if simple:  # New resources only: one statement writes them, and it is its own transaction.
            return await self._write(connection)
        async with connection.transaction():
            await self._resolve_conditions(connection)
            results = await self._write(connection)
            if after is not None:
                await after(connection)
            return results

    async def _write(self, connection: Any) -> list[Result]:
        self._assign_ids()
        await self._rewrite(connection)
        await self._lock(connection)
        for place, operation in enumerate(self._operations):
            if self._results[place] is None:
                self._decide(place, operation)
        self._check_signoff()
        changes = list(self._changes.values())
        await write_changes(connection, self._server.rows, [*changes, self._audit(changes)], self._server.own_url)
        results = [result for result in self._results if result is not None]
        assert len(results) == len(self._operations)  # noqa: S101
        return results

    async def _resolve_conditions(self, connection: Any) -> None:
        """Search for what conditional operations speak of, each query under a lock so that two cannot both miss."""
        asked = [(place, o) for place, o in enumerate(self._operations) if o.query is not None]
        locks = sorted({hash64(f"{o.resource_type}?{o.query}") for _, o in asked})
        if locks:
            await connection.execute(
                "SELECT pg_advisory_xact_lock(l) FROM (SELECT l FROM unnest($1::bigint[]) AS l ORDER BY l) o", locks
            )
        for place, operation in asked:
            found = await self._one_match(connection, operation.resource_type, operation.query or "")
            if found is not None:
                self._found[place] = found

    async def _one_match(self, connection: Any, resource_type: str, query: str) -> Stored | None:
        request = self._call.parser().parse(resource_type, query_pairs(query), strict=True)
        if not request.selection.conditions or not request.echo:
            raise InvalidRequestError("A conditional interaction needs search parameters", issue_code="required")
        found = await searching.matches(connection, request.selection, 2)
        if len(found) > 1:
            raise PreconditionError("The condition matches more than one resource", issue_code="multiple-matches")
        return found[0] if found else None

    def _assign_ids(self) -> None:
        same_query: dict[tuple[str, str], int] = {}
        for place, operation in enumerate(self._operations):
            found = self._found.get(place)
            if found is not None:
                if operation.method == "PUT" and operation.resource is not None:
                    self._check_same_id(operation, found)
                operation.logical_id = found.logical_id
                if operation.method == "POST":
                    self._results[place] = _result(200, found)
            elif operation.method == "POST":
                key = (operation.resource_type, operation.query or "")
                if operation.query is not None and key in same_query:
                    operation.logical_id = self._operations[same_query[key]].logical_id
                    self._results[place] = Result(
                        200, operation.resource_type, operation.logical_id or "", 1, self._now, None
                    )
                    continue
                same_query[key] = place
                operation.logical_id = new_logical_id()
            elif operation.method == "PUT" and operation.logical_id is None:
                sent = operation.resource.logical_id if operation.resource else None
                operation.logical_id = sent or new_logical_id()
            elif operation.method == "DELETE" and operation.logical_id is None:
                self._results[place] = Result(204, operation.resource_type, "", None, None, None)

    @staticmethod
    def _check_same_id(operation: Operation, found: Stored) -> None:
        sent = operation.resource.logical_id if operation.resource else None
        if sent is not None and sent != found.logical_id:
            raise InvalidRequestError(
                "The id in the body differs from the resource that the condition matches",
                issue_code="value",
                expression=(f"{operation.resource_type}.id",),
            )

    async def _rewrite(self, connection: Any) -> None:
        """Point references at what this transaction creates, and resolve conditional references."""
        targets = {
            operation.full_url.encode(): operation.reference.encode()
            for operation in self._operations
            if operation.full_url and operation.logical_id
        }
        asked: set[bytes] = set()
        for operation in self._operations:
            if operation.resource is not None:
                asked |= conditional_references(operation.resource.body)
        for text in sorted(asked):
            targets[text] = await self._conditional_target(connection, text.decode())
        if not targets:
            return
        for operation in self._operations:
            if operation.resource is not None:
                body = rewrite_references(operation.resource.body, targets)
                if body != operation.resource.body:
                    operation.resource = Resource(operation.resource_type, body, orjson.loads(body))

    async def _conditional_target(self, connection: Any, text: str) -> bytes:
        resource_type, _, query = text.partition("?")
        check_type(resource_type)
        found = await self._one_match(connection, resource_type, query)
        if found is None:
            raise PreconditionError("A conditional reference matches nothing", issue_code="not-found")
        return found.reference.encode()

    async def _lock(self, connection: Any) -> None:
        """Lock what is replaced and take its newest version: what was found may have changed since."""
        names = [
            operation.name
            for place, operation in enumerate(self._operations)
            if self._results[place] is None and operation.method != "POST"
        ]
        if len(set(names)) != len(names):
            raise InvalidRequestError("The transaction writes the same resource twice", issue_code="duplicate")
        if names:
            current = await reading.lock(connection, names)
            for place, operation in enumerate(self._operations):
                if self._results[place] is None and operation.method != "POST":
                    self._found.pop(place, None)
                    if operation.name in current:
                        self._found[place] = current[operation.name]
            gone = [s.row for s in current.values() if s.is_deleted and s.resource_type in SIGNED_OFF]
            if gone:  # Who deletes AI output and writes it anew still has AI output.
                self._buried = await reading.before_deletion(connection, gone)

    def _decide(self, place: int, operation: Operation) -> None:
        old = self._found.get(place)
        compartment = self._call.access.compartment_key(operation.resource_type, operation.action)
        inside = compartment is None or (old is not None and compartment in old.patients)
        if operation.method != "POST" and not inside:
            # Outside the compartment there is nothing, and nothing may be put there under a chosen id either.
            raise NotFoundError(f"{operation.resource_type} not found")
        if operation.method == "DELETE":
            self._delete(place, operation, old)
            return
        self._check_version(operation, old)
        if operation.resource is None:
            raise InvalidRequestError("The entry needs a resource", issue_code="required")
        change = save(
            operation.resource.body,
            operation.resource.data,
            operation.logical_id or "",
            updated=max(self._now, old.updated) if old else self._now,
            own_url=self._server.own_url,
            previous=old,
            method=operation.method,
        )
        if compartment is not None:
            self._check_compartment(operation, change, compartment)
        self._changes[place] = change
        status = 201 if old is None or old.is_deleted else 200
        self._results[place] = _result(status, change.stored())

    def _check_compartment(self, operation: Operation, change: Change, compartment: int) -> None:
        created_patient = operation.resource_type == "Patient" and change.previous is None
        if created_patient or set(change.patient_keys) != {compartment}:
            raise ForbiddenError("The token may write into its own patient's record only")

    @staticmethod
    def _check_version(operation: Operation, old: Stored | None) -> None:
        if operation.must_be_new and old is not None and not old.is_deleted:
            raise PreconditionError("The resource exists already", issue_code="duplicate")
        if operation.if_match is None:
            return
        if old is None or old.is_deleted or old.version != operation.if_match:
            raise PreconditionError("The resource was changed by somebody else; read it again")

    def _delete(self, place: int, operation: Operation, old: Stored | None) -> None:
        if operation.if_match is not None:
            self._check_version(operation, old)
        if old is not None and not old.is_deleted:
            change = deletion(old, updated=max(self._now, old.updated))
            self._changes[place] = change
            self._results[place] = Result(
                204, operation.resource_type, old.logical_id, change.version, change.updated, None
            )
            return
        # Deleting what is not there has no effect and is no error (http.html#delete).
        self._results[place] = Result(204, operation.resource_type, operation.logical_id or "", None, None, None)

    def _check_signoff(self) -> None:
        provenances = [
            operation.resource.data
            for place, operation in enumerate(self._operations)
            if operation.resource_type == "Provenance" and place in self._changes and operation.resource is not None
        ]
        for place, change in self._changes.items():
            operation = self._operations[place]
            if operation.resource is None:
                continue
            previous = change.previous
            old = None
            if previous is not None:
                content = self._buried.get(previous.row) if previous.is_deleted else previous.content
                old = orjson.loads(content) if content else None
            check_signoff(old, operation.resource.data, operation.reference, self._call.access.context, provenances)

    def _audit(self, changes: list[Change]) -> Change:
        """Prepare the AuditEvent that is committed with the writes it tells of."""
        call = self._call
        single = self._operations[0] if len(self._operations) == 1 and call.audit_code != "transaction" else None
        patients = sorted(
            {p for change in changes if change.values is not None for p in change.values.patients if len(p) < 80}
        )
        return audit_change(
            interaction=call.audit_code,
            status=self._results[0].status if single and self._results[0] else 200,
            trace_id=call.trace_id,
            context=call.access.context,
            own_url=self._server.own_url,
            entity=single.reference if single and single.logical_id else None,
            patient=patients[0] if patients else None,
            written=[
                *([] if single else [f"{change.resource_type}/{change.logical_id}" for change in changes]),
                *patients[1:],
            ],
        )


def _result(status: int, stored: Stored) -> Result:
    return Result(status, stored.resource_type, stored.logical_id, stored.version, stored.updated, stored.content)
