"""Searches on a real streaming replica: never behind what was acknowledged, and the primary when it cannot be."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from tests.builders.replica import Replica, replica_of
from tests.contract.fhir.api import EVERYTHING, Api, observation, running


@pytest.fixture(scope="module")
def module_database_url() -> Iterator[str]:
    """A server of our own: a base backup takes everything, and the other one has the databases of all tests."""
    folder = Path(tempfile.mkdtemp(prefix="fp-"))
    folder.chmod(0o755)
    try:
        yield start_postgres(folder / "data")
    finally:
        stop_postgres(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def replica(module_database_url: str) -> Iterator[Replica]:
    with replica_of(module_database_url) as found:
        yield found


@pytest.fixture
def with_replica(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> Replica:
    monkeypatch.setenv("FORAMEN_FHIR_REPLICA_URLS", replica.url)
    return replica


def served(database: str) -> float:
    return REGISTRY.get_sample_value("foramen_fhir_searches_total", {"database": database}) or 0.0


async def test_own_writes_are_seen_from_any_process(with_replica: Replica, module_database_url: str) -> None:
    """40 rounds: written through one service, searched at once through the other, which reads from the replica."""
    async with running(module_database_url) as (_, one), running(module_database_url) as (_, two):
        writer, reader = Api(one), Api(two)
        await writer.put_ok({"resourceType": "Patient", "id": "p"})
        before = served("replica"), served("primary")
        for number in range(40):
            await writer.put_ok({**observation("Patient/p", code=f"R{number}"), "id": f"r{number}"})
            assert await reader.ids(f"Observation?code=R{number}") == [f"r{number}"]
            await writer.put_ok({**observation("Patient/p", code=f"S{number}"), "id": f"r{number}"})
            assert await reader.ids(f"Observation?code=R{number}") == []
            await writer.delete(f"/fhir/Observation/r{number}")
            assert await reader.ids(f"Observation?patient=p&code=S{number}") == []
        from_replica, from_primary = served("replica") - before[0], served("primary") - before[1]
        assert from_replica + from_primary == 120
        assert from_replica > 60, (from_replica, from_primary)


async def test_a_replica_that_stands_still_is_passed_over(with_replica: Replica, module_database_url: str) -> None:
    async with running(module_database_url) as (_, client):
        api = Api(client)
        await api.put_ok({"resourceType": "Patient", "id": "p"})
        with_replica.pause()
        try:
            before = served("primary")
            for number in range(5):
                await api.put_ok({**observation("Patient/p", code=f"P{number}"), "id": f"p{number}"})
                assert await api.ids(f"Observation?code=P{number}") == [f"p{number}"]
            assert served("primary") - before == 5
        finally:
            with_replica.resume()
        await asyncio.sleep(0.4)
        before = served("replica")
        assert await api.ids("Observation?code=P4") == ["p4"]
        for _ in range(20):
            await asyncio.sleep(0.1)
            await api.ids("Observation?code=P4")
        assert served("replica") > before


async def test_system_search_includes_and_pages_come_from_one_place(
    with_replica: Replica, module_database_url: str
) -> None:
    async with running(module_database_url) as (_, client):
        api = Api(client)
        await api.put_ok({"resourceType": "Patient", "id": "q"})
        for number in range(6):
            await api.put_ok({**observation("Patient/q", code="Q"), "id": f"q{number}"})
        before = served("replica")
        assert len(await api.ids("Observation?code=Q&_count=2&_include=Observation:patient")) == 6
        assert len(await api.ids("?_type=Observation,Patient&_id=q0,q1,q2,q3,q4,q5,q")) == 7
        assert served("replica") > before
        # AuditEvents of reads are not flushed at once: they are looked for on the primary alone.
        before = served("replica")
        await api.get("/fhir/AuditEvent?_count=1")
        await api.get("/fhir/Observation?code=Q&_revinclude=AuditEvent:entity")
        assert served("replica") == before


async def test_a_lost_replica_is_replaced_by_the_primary(with_replica: Replica, module_database_url: str) -> None:
    async with running(module_database_url) as (_, client):
        api = Api(client, EVERYTHING)
        await api.put_ok({"resourceType": "Patient", "id": "p"})
        await api.put_ok({**observation("Patient/p", code="L"), "id": "l"})
        assert await api.ids("Observation?code=L") == ["l"]
        with_replica.stop()
        try:
            for _ in range(5):
                assert await api.ids("Observation?code=L") == ["l"]
        finally:
            with_replica.start()
        await asyncio.sleep(2.2)
        before = served("replica")
        for _ in range(10):
            assert await api.ids("Observation?code=L") == ["l"]
        assert served("replica") > before


async def test_nothing_is_asked_of_a_primary_without_replicas(database_url: str) -> None:
    async with running(database_url) as (_, client):
        before = served("replica"), served("primary")
        await Api(client).get("/fhir/Patient?name=x")
        assert (served("replica") - before[0], served("primary") - before[1]) == (0, 1)
