"""The audit log: groups of audit records, durable at once and turned into AuditEvents a little later.

https://hl7.org/fhir/R4/auditevent.html; ADR 0020 says why.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

_TAKE = """
WITH waiting AS (
    SELECT number, count FROM fhir.audit_log WHERE number <= $1 ORDER BY number LIMIT $2
), counted AS (
    SELECT number, sum(count) OVER (ORDER BY number) - count AS before FROM waiting
)
SELECT number, records FROM fhir.audit_log WHERE number IN (SELECT number FROM counted WHERE before < $2)
ORDER BY number FOR UPDATE{}
"""


async def append(connection: Any, records: bytes, count: int) -> None:
    """Add one group of encoded records."""
    await connection.execute("INSERT INTO fhir.audit_log (records, count) VALUES ($1, $2)", records, count)


async def newest(connection: Any) -> int:
    """Return the number of the newest group, 0 when nothing waits."""
    return int(await connection.fetchval("SELECT coalesce(max(number), 0) FROM fhir.audit_log"))


async def first(connection: Any) -> int | None:
    """Return the number of the oldest group that waits, or None."""
    found: int | None = await connection.fetchval("SELECT min(number) FROM fhir.audit_log")
    return found


async def set_aside(connection: Any, records: bytes) -> None:
    """Keep a group that cannot be read, out of the way."""
    await connection.execute(
        "INSERT INTO fhir.audit_log_damaged SELECT coalesce(max(number), 0) + 1, now(), $1 FROM fhir.audit_log_damaged",
        records,
    )


async def oldest(connection: Any) -> datetime | None:
    """Return when the oldest waiting group was written, or None."""
    found: datetime | None = await connection.fetchval("SELECT at FROM fhir.audit_log ORDER BY number LIMIT 1")
    return found


async def take(connection: Any, up_to: int, most: int, *, wait: bool) -> list[bytes]:
    """Remove the oldest groups, some `most` records of them, inside the caller's transaction.

    Parameters
    ----------
    up_to : newest group that is wanted
    wait : wait for groups another process is indexing right now (True), or leave them to it
    """
    records = await connection.fetch(_TAKE.format("" if wait else " SKIP LOCKED"), up_to, most)
    if records:
        await connection.execute("DELETE FROM fhir.audit_log WHERE number = ANY($1)", [r["number"] for r in records])
    return [record["records"] for record in records]


_PATIENTS = """
WITH shown AS (SELECT key, unnest(patients) AS patient FROM fhir.resource WHERE key = ANY($1)), named AS (
    SELECT key, type, id FROM fhir.resource WHERE key = ANY(ARRAY(SELECT DISTINCT patient FROM shown))
)
SELECT s.key, 'Patient/' || n.id AS name FROM shown s JOIN named n ON n.key = s.patient WHERE n.type = 'Patient'
"""


async def patients_of(connection: Any, keys: list[int]) -> dict[int, list[str]]:
    """Return the Patients in whose records resources are, as references by the resource's key."""
    found: dict[int, list[str]] = {}
    if keys:
        for record in await connection.fetch(_PATIENTS, keys):
            found.setdefault(record["key"], []).append(record["name"])
    return found


async def present(connection: Any, keys: list[int]) -> set[int]:
    """Return which of these keys some resource has."""
    records = await connection.fetch("SELECT key FROM fhir.resource WHERE key = ANY($1)", keys)
    return {record["key"] for record in records}
