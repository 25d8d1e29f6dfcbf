"""Requests to erase a person's record, what became of them, and which records are closed (ADR 0028).

https://www.gov.cn/xinwen/2021-08/20/content_5632486.htm (PIPL art. 47, 56)
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from fhir_server.search.hashing import resource_key
from foramen.kernel.errors import ConflictError

_COLUMNS = "id, patient, status, reason, requested, requested_by, requesters, decided, decided_by, note, job, finished"
CLOSED = ("restricted", "erased", "refused", "held", "lifted")


@dataclass(frozen=True, slots=True)
class Erasure:
    """One request. `requesters` are all names of who asked; nobody of them may approve.

    `outcome` of an approved one is its checkpoint: what was decided, and how far it is.
    """

    id: str
    patient: str
    status: str
    reason: str
    requested: datetime
    requested_by: str
    requesters: tuple[str, ...]
    decided: datetime | None
    decided_by: str | None
    note: str | None
    job: str | None
    finished: datetime | None
    outcome: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Closed:
    """One record that is closed: its Patient's id and key, `erasing`, `restricted` or `erased`, ids of Binaries."""

    key: int
    patient: str
    state: str
    binaries: tuple[str, ...]


def _read(record: Any) -> Erasure:
    values = dict(record)
    outcome = values.pop("outcome")
    values["requesters"] = tuple(values["requesters"])
    return Erasure(**values, outcome=orjson.loads(outcome) if outcome else {})


async def insert(connection: Any, erasure_id: str, patient: str, reason: str, by: str, requesters: list[str]) -> None:
    """Write down a request; those whose time is over go.

    Raises
    ------
    ConflictError
        409: there is an open one for this patient.
    """
    await connection.execute("DELETE FROM fhir.erasure WHERE keep_until < clock_timestamp()")
    try:
        await connection.execute(
            "INSERT INTO fhir.erasure (id, patient, status, reason, requested_by, requesters)"
            " VALUES ($1, $2, 'requested', $3, $4, $5)",
            erasure_id,
            patient,
            reason,
            by,
            requesters,
        )
    except asyncpg.UniqueViolationError as exc:
        raise ConflictError("A request to erase this record is open", issue_code="duplicate") from exc


async def find(connection: Any, erasure_id: str, patient: str, *, lock: bool = False) -> Erasure | None:
    """Return a request for this patient; `lock` keeps others from deciding it meanwhile."""
    record = await connection.fetchrow(
        f"SELECT {_COLUMNS}, outcome FROM fhir.erasure WHERE id = $1 AND patient = $2{' FOR UPDATE' if lock else ''}",
        erasure_id,
        patient,
    )
    return None if record is None else _read(record)


async def of_patient(connection: Any, patient: str) -> list[Erasure]:
    """Return all requests for a patient, oldest first."""
    records = await connection.fetch(
        f"SELECT {_COLUMNS}, outcome FROM fhir.erasure WHERE patient = $1 ORDER BY requested, id", patient
    )
    return [_read(record) for record in records]


async def decide(connection: Any, erasure_id: str, status: str, by: str, note: str, job: str | None = None) -> None:
    """Write down a decision."""
    await connection.execute(
        "UPDATE fhir.erasure SET status = $2, decided = clock_timestamp(), decided_by = $3, note = $4,"
        " job = coalesce($5, job) WHERE id = $1",
        erasure_id,
        status,
        by,
        note,
        job,
    )


async def checkpoint(connection: Any, erasure_id: str, state: dict[str, Any]) -> None:
    """Write down what was decided and how far an approved erasure is; whatever job goes on with it reads it."""
    await connection.execute(
        "UPDATE fhir.erasure SET outcome = $2 WHERE id = $1 AND status = 'approved'", erasure_id, orjson.dumps(state)
    )


async def finish(connection: Any, erasure_id: str, status: str, outcome: dict[str, Any] | None, years: int) -> None:
    """Close a request; it is kept for so many years from now."""
    await connection.execute(
        "UPDATE fhir.erasure SET status = $2, finished = clock_timestamp(), outcome = coalesce($3, outcome),"
        " keep_until = clock_timestamp() + make_interval(years => $4) WHERE id = $1",
        erasure_id,
        status,
        None if outcome is None else orjson.dumps(outcome),
        years,
    )


async def close(connection: Any, patient: str, state: str, erasure_id: str, binaries: list[str] | None = None) -> None:
    """Close a record, or say how it is closed now."""
    await connection.execute(
        "INSERT INTO fhir.restriction (key, patient, state, erasure, binaries) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (key) DO UPDATE SET state = excluded.state, erasure = excluded.erasure,"
        " binaries = CASE WHEN $6 THEN excluded.binaries ELSE restriction.binaries END",
        resource_key("Patient", patient),
        patient,
        state,
        erasure_id,
        binaries or [],
        binaries is not None,
    )


async def reopen(connection: Any, patient: str) -> None:
    """Open a closed record again."""
    await connection.execute("DELETE FROM fhir.restriction WHERE key = $1", resource_key("Patient", patient))


async def closed(connection: Any) -> list[Closed]:
    """Return all closed records."""
    records = await connection.fetch("SELECT key, patient, state, binaries FROM fhir.restriction")
    return [Closed(r["key"], r["patient"], r["state"], tuple(r["binaries"])) for r in records]
