"""A batch of a rebuild is read from the index in its order: its cost does not grow with the record."""

from __future__ import annotations

from typing import Any

import psycopg

from fhir_server.store import rebuilding
from tests.contract.fhir.api import Api, observation


class Explaining:
    """A connection that keeps the plan of what is asked of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.plan = ""

    async def fetch(self, text: str, *arguments: Any) -> list[Any]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan"
            )
            connection.execute(f"PREPARE q(text, text, bigint, bigint) AS {text}")
            values = ", ".join(f"'{value}'" for value in arguments)
            found = connection.execute(f"EXPLAIN EXECUTE q({values})")
            self.plan = "\n".join(row[0] for row in found)
        return []


async def test_a_batch_is_not_sorted(api: Api, database_url: str) -> None:
    await api.put_ok({**observation("Patient/p", "F1"), "id": "x"})
    connection = Explaining(database_url)
    await rebuilding.next_rows(connection, "Observation", None, 100)
    assert "resource_updated" in connection.plan
    assert "Sort" not in connection.plan
