"""Legal holds: what must not be removed, whoever asks. A hold in force stops `$erase` and `$expunge` alike (ADR 0028).

Whoever removes takes the lock shared and looks for holds in the same transaction; whoever places one takes it alone: so
from the moment that a hold is acknowledged nothing under it is removed.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_server.search.hashing import resource_key
from foramen.kernel.errors import ConflictError

_LOCK = 0x464F5248  # "FORH"
_COLUMNS = "id, reference, reason, basis, until, placed, placed_by, released, released_by, release_reason"
IN_FORCE = "released IS NULL AND (until IS NULL OR until > clock_timestamp())"


@dataclass(frozen=True, slots=True)
class Hold:
    """One hold. `basis` is the law or article, `until` None: until it is released."""

    id: str
    reference: str
    reason: str
    basis: str
    until: datetime | None
    placed: datetime
    placed_by: str
    released: datetime | None = None
    released_by: str | None = None
    release_reason: str | None = None


async def place(connection: Any, hold: Hold, patients: Iterable[int]) -> None:
    """Put a hold in force with the commit; it waits for removals that are under way. Inside a transaction.

    Parameters
    ----------
    patients : keys of the patients in whose records the held resource lies
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    await connection.execute(
        "INSERT INTO fhir.legal_hold (id, key, reference, patients, reason, basis, until, placed_by)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        hold.id,
        resource_key(*hold.reference.split("/", 1)),
        hold.reference,
        sorted(patients),
        hold.reason,
        hold.basis,
        hold.until,
        hold.placed_by,
    )


async def release(connection: Any, hold_id: str, reference: str, by: str, reason: str) -> bool:
    """End a hold on this resource; False when none is in force under that id."""
    found = await connection.fetchval(
        "UPDATE fhir.legal_hold SET released = clock_timestamp(), released_by = $3, release_reason = $4"
        " WHERE id = $1 AND reference = $2 AND released IS NULL RETURNING true",
        hold_id,
        reference,
        by,
        reason,
    )
    return bool(found)


async def of_resource(connection: Any, reference: str) -> list[Hold]:
    """Return all holds that were placed on a resource, released ones too, oldest first."""
    records = await connection.fetch(
        f"SELECT {_COLUMNS} FROM fhir.legal_hold WHERE reference = $1 ORDER BY placed, id", reference
    )
    return [Hold(*record) for record in records]


async def over(connection: Any, key: int, patients: Iterable[int] = ()) -> list[Hold]:
    """Return the holds in force that keep a resource: on itself, on a patient whose record it is in.

    For a Patient, holds on anything of the record count too.
    """
    records = await connection.fetch(
        f"SELECT {_COLUMNS} FROM fhir.legal_hold WHERE {IN_FORCE} AND (key = $1 OR key = ANY($2) OR $1 = ANY(patients))"
        " ORDER BY placed, id",
        key,
        sorted(patients),
    )
    return [Hold(*record) for record in records]


async def lock_removal(connection: Any) -> None:
    """Keep holds from being placed until the transaction ends; those that are there can be seen."""
    await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", _LOCK)


async def check(connection: Any, key: int, patients: Iterable[int] = ()) -> None:
    """Let a removal go on. Inside its transaction.

    Raises
    ------
    ConflictError
        409: a hold is in force; the text names it.
    """
    await lock_removal(connection)
    found = await over(connection, key, patients)
    if found:
        raise held(found)


def held(found: list[Hold]) -> ConflictError:
    """Return the refusal that names the holds."""
    named = ", ".join(f"{hold.id} on {hold.reference}" for hold in found[:10])
    return ConflictError(f"A legal hold is in force: {named}", issue_code="business-rule")


UNHELD = (
    f"NOT EXISTS (SELECT FROM fhir.legal_hold WHERE {IN_FORCE} AND (legal_hold.key = r.key"
    " OR legal_hold.key = ANY(r.patients) OR r.key = ANY(legal_hold.patients)))"
)
"""Clause over `r` (fhir.resource): no hold keeps it."""
