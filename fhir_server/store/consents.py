"""Active Consents for the access policy, and word of each change of one, from whatever process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import orjson

from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import type_parameters
from fhir_server.search.values import token_hashes

_CHANNEL = "fhir_consent"
_PAGE = 500
_ACTIVE = """
SELECT r.row, r.content FROM fhir.posting p JOIN fhir.resource r ON r.row = p.row
WHERE p.hash = ANY($1) AND r.row > $2 ORDER BY r.row LIMIT $3
"""


async def active_consents(connection: Any) -> list[dict[str, Any]]:
    """Return all Consents whose status is active."""
    status = type_parameters("Consent").parameters["status"]
    hashes = [base ^ token_hashes(None, "active")[0] for base in status.bases()]
    found: list[dict[str, Any]] = []
    last = -(2**63)
    while records := await connection.fetch(_ACTIVE, hashes, last, _PAGE):
        last = records[-1]["row"]
        found += [orjson.loads(record["content"]) for record in records]
    return found


async def practitioners_of(connection: Any, roles: list[str]) -> dict[str, str]:
    """Return the Practitioner that each PractitionerRole (`PractitionerRole/id`) speaks of."""
    keys = [resource_key(*role.split("/", 1)) for role in roles]
    records = await connection.fetch(
        "SELECT type || '/' || id AS role, content FROM fhir.resource WHERE key = ANY($1) AND content IS NOT NULL", keys
    )
    found = {record["role"]: orjson.loads(record["content"]).get("practitioner") or {} for record in records}
    return {role: who["reference"] for role, who in found.items() if who.get("reference")}


async def listen(url: str, changed: Callable[[], None], timeout_s: float) -> Any:
    """Open a connection on which the database tells of each committed change of a Consent.

    Raises
    ------
    OSError, asyncpg.PostgresError
        The database is away.
    """
    connection = await asyncpg.connect(url, timeout=timeout_s)
    await connection.add_listener(_CHANNEL, lambda *_: changed())
    return connection
