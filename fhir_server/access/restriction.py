"""Records that are closed to all but administrators: erasure was asked for, and a law keeps them (PIPL art. 47).

`Restriction` is what `Access` asks, as it asks `ConsentPolicy`: a condition for every query, a look at a version that
was found by its id, a check of each write. `Restrictions` remembers the closed records of a server; a change counts at
once in the process that made it and within `MAX_AGE_S` in others. When they cannot be read, nothing is shown (503).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fhir_server.search.conditions import AllOf, AnyPosting, Condition, Keys
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base
from fhir_server.store import erasures
from foramen.kernel.access_context import ADMINISTRATOR, GATEWAY, REGISTERED_BY_GATEWAY, AccessContext
from foramen.kernel.errors import ConflictError

if TYPE_CHECKING:
    from fhir_server.store.changes import Change, Stored
    from fhir_server.store.connections import Connections
    from fhir_server.store.erasures import Closed

MAX_AGE_S = 1.0
"""Longest time for which a process goes on with what it knew."""
_OPEN_TYPES = frozenset({"AuditEvent", "Group"})
"""Not hidden: the audit names ids only, and a Group is of many; it names members by their ids."""


class Restriction:
    """The closed records, as one caller meets them; `sees` lets an administrator read, never write.

    Parameters
    ----------
    known : types that the caller may read all the same
    """

    def __init__(self, closed: Iterable[Closed], *, sees: bool, known: frozenset[str] = frozenset()) -> None:
        self._open_types = _OPEN_TYPES | known
        found = list(closed)
        self._closed = frozenset(record.key for record in found)
        hidden = [] if sees else [record for record in found if record.state != "erased"]
        self._hidden = frozenset(record.key for record in hidden)
        self._binaries = frozenset(logical_id for record in hidden for logical_id in record.binaries)

    def condition(self, resource_type: str) -> Condition | None:
        """Return: in none of the closed records; None when nothing is hidden from the caller."""
        if not self._hidden or resource_type in self._open_types:
            return None
        base = patient_base(resource_type)
        outside = AnyPosting(tuple(base ^ key for key in sorted(self._hidden)), negated=True)
        if resource_type != "Binary" or not self._binaries:
            return outside
        named = tuple(resource_key("Binary", logical_id) for logical_id in sorted(self._binaries))
        return AllOf((outside, Keys(named, negated=True)))

    def hides(self, stored: Stored) -> bool:
        """Whether this version lies in a closed record."""
        if not self._hidden or stored.resource_type in self._open_types:
            return False
        if stored.resource_type == "Binary" and stored.logical_id in self._binaries:
            return True
        return not self._hidden.isdisjoint(stored.patients)

    def hidden_patients(self, resource_type: str) -> frozenset[int]:
        """Keys of the patients whose resources of this type a history leaves out."""
        return frozenset() if resource_type in self._open_types else self._hidden

    def check_write(self, change: Change) -> None:
        """Refuse to add to a closed record: that would be processing beyond storage.

        Raises
        ------
        ConflictError
            409.
        """
        if change.resource_type not in _OPEN_TYPES and not self._closed.isdisjoint(change.patient_keys):
            text = "The record is closed, as its erasure was asked for; an administrator can tell more"
            raise ConflictError(text, issue_code="business-rule")


class Restrictions:
    """Remembers the closed records of a server."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._read_at = 0.0
        self._generation = 0
        self._all: Restriction | None = None
        self._administrators: Restriction | None = None
        self._gateways: Restriction | None = None

    def forget(self) -> None:
        """Drop what is remembered: this process changed it."""
        self._generation += 1
        self._read_at = 0.0

    async def policy(self, context: AccessContext) -> Restriction | None:
        """Return what is closed to this caller, or None when no record is closed to anybody.

        Raises
        ------
        UpstreamError
            It cannot be read: nothing may be shown then.
        """
        if self._read_at == 0.0 or time.monotonic() - self._read_at > MAX_AGE_S:
            began, generation = time.monotonic(), self._generation
            async with self._connections.lend() as connection:
                found = await erasures.closed(connection)
            self._all = Restriction(found, sees=False) if found else None
            self._administrators = Restriction(found, sees=True) if found else None
            self._gateways = Restriction(found, sees=False, known=REGISTERED_BY_GATEWAY) if found else None
            if generation == self._generation:
                self._read_at = began
        if context.has_scope(ADMINISTRATOR):
            return self._administrators
        return self._gateways if context.has_scope(GATEWAY) else self._all
