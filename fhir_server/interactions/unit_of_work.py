"""Carry out writes, all or nothing: one request's create, update, patch or delete, or all of a transaction's.

Every write of the API passes here, so scope, compartment, versions, sign-off and audit are checked in one place.
https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from fhir_server.audit.record import AuditRecord, audit_record, told
from fhir_server.interactions.carrying_out import After, alone
from fhir_server.interactions.full_urls import base_of, relative_targets
from fhir_server.interactions.operations import ANY_VERSION, Operation, Result, at, check_type, query_pairs
from fhir_server.interactions.patched import patched_resource
from fhir_server.interactions.profiles import check_operations
from fhir_server.model.references import conditional_references, rewrite_references, rewriter
from fhir_server.model.resource import LARGE_BYTES, Resource
from fhir_server.rules import custom_parameters
from fhir_server.rules.ai_signoff import check_deletion, check_signoff
from fhir_server.search.hashing import hash64
from fhir_server.server import Call
from fhir_server.store import searching
from fhir_server.store.changes import Change, Stored, deletion, save
from foramen.kernel.access_context import GATEWAY
from foramen.kernel.errors import (
    DeletedError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
)
from foramen.kernel.identifiers import new_logical_id

MAX_SHARED = 10
"""Operations up to which a unit, if it is not large, shares its database transaction with those of other callers."""


async def perform(call: Call, operations: list[Operation], after: After | None = None) -> list[Result]:
    """Carry out all operations, all or nothing; the results keep their order.

    Parameters
    ----------
    after : runs with the connection and the results once everything is written and before it is committed (the GETs
        of a transaction)

    Raises
    ------
    InteropError
        Nothing was written.
    """
    asked = {(operation.resource_type, operation.action) for operation in operations}
    asked |= {(operation.resource_type, "s") for operation in operations if operation.query is not None}
    for resource_type, action in asked:
        call.access.context.reach(resource_type, action)
    await check_operations(call.server, operations)
    unit = UnitOfWork(call, operations)
    shared = not (unit.is_large or unit.needs_search or unit.changes_registry)
    if after is None and len(operations) <= MAX_SHARED and shared:
        results = await call.server.group_commit.perform(unit)
    else:
        results = await alone(unit, after)
    call.audited = True
    if call.server.consents is not None and any(operation.resource_type == "Consent" for operation in operations):
        call.server.consents.forget()
    return results


class UnitOfWork:
    """One attempt at carrying out one caller's operations."""

    def __init__(self, call: Call, operations: list[Operation]) -> None:
        self._call = call
        self._server = call.server
        self._asked = operations
        self._operations = [operation.fresh() for operation in operations]
        self._results: list[Result | None] = [None] * len(operations)
        self._found: dict[int, Stored] = {}
        self._changes: dict[int, Change] = {}
        self._buried: dict[int, bytes] = {}
        self._compartments: dict[tuple[str, str], int | None] = {}
        self._now = datetime.now(UTC)
        self._look_at(operations)
        self._targets: dict[bytes, bytes] = {}
        self._names: list[tuple[str, str]] | None = None

    def _look_at(self, operations: list[Operation]) -> None:
        """Find what decides how the unit is carried out."""
        self.needs_search = self.changes_registry = self.has_patches = False
        size = 0
        for operation in operations:
            if operation.query is not None:
                self.needs_search = True
            if operation.patch is not None:
                self.has_patches = True
            if operation.resource_type == custom_parameters.RESOURCE_TYPE:
                self.changes_registry = True
            if operation.resource is not None:
                body = operation.resource.body
                size += len(body)
                if b"?" in body and conditional_references(body):
                    self.needs_search = True
        self.is_large = size > LARGE_BYTES

    @property
    def call(self) -> Call:
        """The request it belongs to."""
        return self._call

    @property
    def takes_long(self) -> bool:
        """Whether much may happen between the time that its resources carry and their being written."""
        return self.is_large or len(self._operations) > MAX_SHARED

    def again(self) -> UnitOfWork:
        """Return a fresh attempt."""
        return UnitOfWork(self._call, self._asked)

    async def search(self, connection: Any) -> None:
        """Find what conditions and conditional references speak of, inside the transaction."""
        await self._resolve_conditions(connection)
        self._assign_ids()
        asked: set[bytes] = set()
        for operation in self._operations:
            if operation.resource is not None:
                asked |= conditional_references(operation.resource.body)
        targets = {text: await self._conditional_target(connection, text.decode()) for text in sorted(asked)}
        self._rewrite(targets)
        self._names = self._replaced_names()

    def prepared_names(self) -> list[tuple[str, str]]:
        """Return (type, id) of what is replaced: to be locked before `decide`.

        Raises
        ------
        InvalidRequestError
            The same resource is written twice.
        """
        if self._names is None:
            self._assign_ids()
            self._rewrite({})
            self._names = self._replaced_names()
        return self._names

    def _replaced_names(self) -> list[tuple[str, str]]:
        names = [
            operation.name
            for place, operation in enumerate(self._operations)
            if self._results[place] is None and operation.method != "POST"
        ]
        if len(names) > 1 and len(set(names)) != len(names):
            raise InvalidRequestError("The transaction writes the same resource twice", issue_code="duplicate")
        return names

    def take(self, current: dict[tuple[str, str], Stored], buried: dict[int, bytes]) -> None:
        """Take the newest versions, now locked: what was found may have changed since."""
        for place, operation in enumerate(self._operations):
            if self._results[place] is None and operation.method != "POST":
                self._found.pop(place, None)
                if operation.name in current:
                    self._found[place] = current[operation.name]
        self._buried = buried

    async def learn(self, connection: Any) -> None:
        """Look up whose institution the versions that are replaced belong to, now that they are locked."""
        await self._call.access.learn(connection, *self._found.values())

    async def check_institutions(self, connection: Any, changes: list[Change]) -> None:
        """Refuse what would be written into records of other institutions.

        Raises
        ------
        ForbiddenError
            Nothing of this unit may be written.
        """
        if self._call.access.wall is not None:
            await self._call.access.wall.check_writes(connection, changes)

    async def apply_patches(self, *, is_shared: bool) -> None:
        """Make the resources of all PATCHes out of the locked versions.

        Parameters
        ----------
        is_shared : whether others wait for this unit: what takes long is then put off

        Raises
        ------
        InteropError
            There is nothing to patch, or the patch does not fit.
        AsideError
            It takes long and `is_shared`.
        """
        for place, operation in enumerate(self._operations):
            if operation.patch is None:
                continue
            with at(operation):
                if operation.patch.asks:
                    self._call.access.granted(operation.resource_type, "r")
                old = self._visible(place, operation)
                if old is None:
                    raise NotFoundError(f"{operation.resource_type} not found")
                if old.is_deleted:
                    raise DeletedError(f"{operation.resource_type} was deleted")
                if operation.patch.asks and not self._may_read(old):
                    raise ForbiddenError("A patch with conditions needs the right to read the resource")
                self._check_version(operation, old)
                resource = await patched_resource(self._server, operation, old, is_shared=is_shared)
                body = rewrite_references(resource.body, self._targets) if self._targets else resource.body
                if body != resource.body:
                    resource = Resource(resource.resource_type, body, orjson.loads(body))
                operation.resource = resource
                self.is_large = self.is_large or len(resource.body) > LARGE_BYTES

    def decide(self) -> tuple[list[Change], list[Result]]:
        """Decide what is written and what is answered; pure.

        Raises
        ------
        InteropError
            Nothing of this unit may be written.
        """
        self._now = datetime.now(UTC)
        for place, operation in enumerate(self._operations):
            if self._results[place] is None:
                with at(operation):
                    self._decide(place, operation)
        self._check_signoff()
        results = [result for result in self._results if result is not None]
        assert len(results) == len(self._operations)  # noqa: S101
        return list(self._changes.values()), results[: len(self._asked)]

    async def _resolve_conditions(self, connection: Any) -> None:
        """Search for what conditional operations speak of, each query under a lock so that two cannot both miss."""
        asked = [(place, o) for place, o in enumerate(self._operations) if o.query is not None]
        locks = sorted({lock for _, o in asked for lock in _condition_locks(o)})
        if locks:
            await connection.execute(
                "SELECT pg_advisory_xact_lock(l) FROM (SELECT l FROM unnest($1::bigint[]) AS l ORDER BY l) o", locks
            )
        for place, operation in asked:
            with at(operation):
                limit = self._server.limits.max_conditional_delete if operation.multiple else 1
                found = await self._matches(connection, operation.resource_type, operation.query or "", limit)
            if found:
                self._found[place] = found[0]
            for other in found[1:]:
                self._found[len(self._operations)] = other
                self._operations.append(operation.fresh())
                self._results.append(None)

    async def _matches(self, connection: Any, resource_type: str, query: str, limit: int = 1) -> list[Stored]:
        request = self._call.parser().parse(resource_type, query_pairs(query), strict=True)
        if not request.selection.conditions or not request.echo:
            raise InvalidRequestError("A conditional interaction needs search parameters", issue_code="required")
        found = await searching.matches(connection, request.selection, limit + 1)
        if len(found) > limit:
            what = "one resource" if limit == 1 else f"{limit} resources"
            raise PreconditionError(f"The condition matches more than {what}", issue_code="multiple-matches")
        return found

    def _assign_ids(self) -> None:
        same_query: dict[tuple[str, str], int] = {}
        for place, operation in enumerate(self._operations):
            found = self._found.get(place)
            if found is not None:
                if operation.method == "PUT" and operation.resource is not None:
                    with at(operation):
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
                operation.must_be_new = True  # The condition did not find it: it must not be overwritten either.
            elif operation.method == "PATCH" and operation.logical_id is None:
                with at(operation):
                    raise NotFoundError("The condition matches no resource")
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

    def _rewrite(self, conditional: dict[bytes, bytes]) -> None:
        """Point references at what this transaction creates, and at what conditional references found."""
        targets = {
            operation.full_url.encode(): operation.reference.encode()
            for operation in self._operations
            if operation.full_url and operation.logical_id
        }
        targets |= conditional
        self._targets = targets
        if not targets:
            return
        relative, rewrite = relative_targets(targets), rewriter(targets)
        for operation in self._operations:
            if operation.resource is not None:
                near = relative.get(base_of(operation.full_url.encode())) if relative and operation.full_url else None
                sent = operation.resource.body
                body = rewrite_references(sent, {**targets, **near}) if near else rewrite(sent)
                if body is not sent and body != sent:
                    operation.resource = Resource(operation.resource_type, body, orjson.loads(body))

    async def _conditional_target(self, connection: Any, text: str) -> bytes:
        resource_type, _, query = text.partition("?")
        check_type(resource_type)
        found = await self._matches(connection, resource_type, query)
        if not found:
            raise PreconditionError("A conditional reference matches nothing", issue_code="not-found")
        return found[0].reference.encode()

    def _compartment(self, operation: Operation) -> int | None:
        """Key of the Patient whose record bounds the writer, or None; asked once for each type and action."""
        key = operation.resource_type, operation.method
        try:
            return self._compartments[key]
        except KeyError:
            found = self._call.access.compartment_key(operation.resource_type, operation.action)
            self._compartments[key] = found
            return found

    def _visible(self, place: int, operation: Operation) -> Stored | None:
        """Return what is replaced, if it exists and the writer may know it."""
        old = self._found.get(place)
        compartment = self._compartment(operation)
        access = self._call.access
        bounded = compartment is not None or access.is_bounded(operation.resource_type, operation.action)
        inside = not bounded or (old is not None and (compartment is None or compartment in old.patients))
        inside = inside and not (old is not None and access.hides(old, operation.action))
        if operation.method != "POST" and not inside:
            # Outside the compartment there is nothing, and nothing may be put there under a chosen id either.
            raise NotFoundError(f"{operation.resource_type} not found")
        return old

    def _decide(self, place: int, operation: Operation) -> None:
        old = self._visible(place, operation)
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
        compartment = self._compartment(operation)
        if compartment is not None:
            self._check_compartment(operation, change, compartment)
        self._call.access.check_write(change, operation.action)
        self._changes[place] = change
        status = 201 if old is None or old.is_deleted else 200
        content = None if operation.patch is not None and not self._may_read(change.stored()) else change.content
        self._results[place] = Result(
            status, change.resource_type, change.logical_id, change.version, change.updated, content
        )

    def _may_read(self, stored: Stored) -> bool:
        """Whether the caller may see a version: what a patch made, unlike an update's body, is not the caller's own."""
        if not self._call.access.may(stored.resource_type, "r"):
            return False
        compartment = self._call.access.compartment_key(stored.resource_type, "r")
        inside = compartment is None or compartment in stored.patients
        return inside and not self._call.access.hides(stored)

    def _check_compartment(self, operation: Operation, change: Change, compartment: int) -> None:
        created_patient = operation.resource_type == "Patient" and change.previous is None
        if created_patient or set(change.patient_keys) != {compartment}:
            raise ForbiddenError("The token may write into its own patient's record only")

    def _check_version(self, operation: Operation, old: Stored | None) -> None:
        exists = old is not None and not old.is_deleted
        if operation.must_be_new and exists:
            raise PreconditionError("The resource exists already", issue_code="duplicate")
        if operation.if_match is None:
            if exists and operation.action == "u" and self._server.limits.require_if_match:
                raise InvalidRequestError("If-Match with the version that was read is needed", issue_code="required")
            since = operation.unmodified_since
            if since is None or (old is not None and exists and old.updated.replace(microsecond=0) <= since):
                return
        elif exists and old is not None and operation.if_match in (ANY_VERSION, old.version):
            return
        raise PreconditionError("The resource was changed by somebody else; read it again")

    def _delete(self, place: int, operation: Operation, old: Stored | None) -> None:
        if operation.if_match is not None or operation.unmodified_since is not None:
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
            previous = change.previous
            if operation.resource is None:
                if previous is not None:
                    change.old = previous.data()
                    check_deletion(change.old, self._call.access.context)
                continue
            old = None
            if previous is not None and previous.is_deleted:
                content = self._buried.get(previous.row)
                old = orjson.loads(content) if content else None
            elif previous is not None:
                old = change.old = previous.data()
            check_signoff(old, operation.resource.data, operation.reference, self._call.access.context, provenances)

    def audit(self, changes: list[Change]) -> AuditRecord | None:
        """Prepare the audit record that is committed with the writes it tells of.

        Returns
        -------
        None: they are events of our own gateways, which would say of each that it was written.
        """
        call = self._call
        is_new_event = all(change.previous is None and change.resource_type == "AuditEvent" for change in changes)
        if changes and is_new_event and call.access.context.has_scope(GATEWAY):
            return None
        single = self._operations[0] if len(self._operations) == 1 and call.audit_code != "transaction" else None
        patient, written = told(changes, self._server.own_url, each=single is None)
        return audit_record(
            interaction=call.audit_code,
            status=self._results[0].status if single and self._results[0] else 200,
            trace_id=call.trace_id,
            context=call.access.context,
            entity=single.reference if single and single.logical_id else None,
            patient=patient,
            written=written,
        )


def _condition_locks(operation: Operation) -> list[int]:
    """Locks of a condition: its identifiers when it has some, else all of it, however it was spelled."""
    pairs = query_pairs(operation.query or "")
    identifiers = [f"{name}={value}" for name, value in pairs if name.partition(":")[0] == "identifier"]
    texts = identifiers or ["&".join(sorted(f"{name}={value}" for name, value in pairs))]
    return [hash64(f"{operation.resource_type}?{text}") for text in texts]


def _result(status: int, stored: Stored) -> Result:
    return Result(status, stored.resource_type, stored.logical_id, stored.version, stored.updated, stored.content)
