"""Searches of a shape that proves slow do not queue behind each other while connections are free (ADR 0021)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psycopg
import pytest

from fhir_server.store.connections import Connections
from fhir_server.store.gathered_pages import GatheredPageReader
from fhir_server.store.page_shapes import GatheredPages, PageQuestion
from fhir_server.store.replicas import Searches

SIZE = 8
SLOW = GatheredPages(
    "SELECT a.place, p.* FROM unnest($1::bigint[]) WITH ORDINALITY AS a(x0, place)"
    " CROSS JOIN LATERAL (SELECT a.x0::text AS id, pg_sleep(a.x0 / 1000.0)::text AS slept) p",
    (0,),
)


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[Connections]:
    found = Connections(database_url, SIZE, 20)
    await found.start()
    yield found
    await found.stop()


def under_way(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(a.x0%' AND state = 'active'"
            " AND pid <> pg_backend_pid() AND datname = current_database()"
        ).fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize("arrive", ["at once", "one by one"])
async def test_a_slow_shape_uses_the_free_connections_but_one(
    connections: Connections, database_url: str, arrive: str
) -> None:
    reader = GatheredPageReader(Searches(connections, [], 0.1))
    asked = []
    for _ in range(12):
        asked.append(asyncio.create_task(reader.read(PageQuestion(SLOW, (1500,)), primary=False)))
        await asyncio.sleep(0.01 if arrive == "one by one" else 0)
    most = 0
    while not all(task.done() for task in asked):
        most = max(most, await asyncio.to_thread(under_way, database_url))
        await asyncio.sleep(0.05)
    assert most == SIZE - 1
    assert all([record["id"] for record in task.result()] == ["1500"] for task in asked)


async def test_what_is_fast_still_goes_together(connections: Connections, database_url: str) -> None:
    reader = GatheredPageReader(Searches(connections, [], 0.1))
    began = time.monotonic()
    asked = [asyncio.create_task(reader.read(PageQuestion(SLOW, (1,)), primary=False)) for _ in range(64)]
    await asyncio.gather(*asked)
    assert time.monotonic() - began < 5
    assert connections.free == SIZE
    assert sum(connection is not None for connection in connections._free) == 2
