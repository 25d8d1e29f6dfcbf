"""The schema is migrated while the server serves: requests wait for a moment at most, and none fails."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from fhir_server.store import schema
from tests.contract.fhir.api import Api, entry, observation, patient_resource, running

_STEPS_OF_TODAY = schema.FOLDER
LONGEST_S = 1.0
"""Longest a request may take meanwhile, on a machine with other work."""
_MISSING = "0050_consent_notice.sql"
"""The step of today that the server also starts without; it puts triggers on the table of the hot path."""
_STEPS = {
    # Steps as later versions may have them: a column on a table of the hot path, an index on one that is large.
    "9001_column.sql": "ALTER TABLE fhir.resource ADD COLUMN extra integer;\nALTER TABLE fhir.history ADD COLUMN extra "
    "integer;\n",
    "9002_index.sql": "-- outside a transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS resource_extra"
    " ON fhir.resource (extra, row);\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The steps that are to be applied, at first without one of them, as an older version had them."""
    older = tmp_path / "migrations"
    older.mkdir()
    for path in _STEPS_OF_TODAY.glob("*.sql"):
        if path.name != _MISSING:
            shutil.copy(path, older)
    monkeypatch.setattr(schema, "FOLDER", older)
    return older


class Load:
    """Readers and writers that go on until they are told to stop; keeps how long each request took."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stopped = False
        self.times: list[float] = []
        self.faults: list[str] = []

    async def _loop(self, request: Callable[[], Awaitable[httpx.Response]]) -> None:
        while not self._stopped:
            began = time.monotonic()
            answer = await request()
            self.times.append(time.monotonic() - began)
            if answer.status_code not in (200, 201):
                self.faults.append(answer.text)
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        api = self._api
        updated = {**observation("Patient/p", "F02"), "id": "updated"}
        requests = (
            lambda: api.get("/fhir/Patient/p"),
            lambda: api.get("/fhir/Observation?patient=p&code=F01&_count=5"),
            lambda: api.get("/fhir/Observation/updated/_history?_count=3"),
            lambda: api.post("/fhir/Observation", observation("Patient/p")),
            lambda: api.put("/fhir/Observation/updated", updated),
            lambda: api.transaction(entry("POST", "Observation", observation("Patient/p")), entry("GET", "Patient/p")),
        )
        await asyncio.gather(*(self._loop(request) for request in requests))

    def stop(self) -> None:
        self._stopped = True


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_newer_steps_are_applied_while_requests_are_served(empty_database_url: str, folder: Path) -> None:
    async with running(empty_database_url) as (_, client):
        api = Api(client)
        await api.put_ok({**patient_resource(), "id": "p"})
        await api.put_ok({**observation("Patient/p", "F02"), "id": "updated"})
        load = Load(api)
        running_load = asyncio.create_task(load.run())
        await _until(lambda: len(load.times) > 60)
        shutil.copy(_STEPS_OF_TODAY / _MISSING, folder)
        for name, text in _STEPS.items():
            (folder / name).write_text(text)
        # Somebody writes for long, or reads for long: a step must not queue behind them, with all others behind it.
        with psycopg.connect(empty_database_url) as other:
            other.execute("UPDATE fhir.resource SET version = version WHERE type = 'Patient'")
            migrating = asyncio.create_task(asyncio.to_thread(schema.migrate, empty_database_url))
            before = len(load.times)
            await asyncio.sleep(2.5)
            assert len(load.times) > before + 30
            assert not migrating.done()
            other.rollback()
        await migrating
        after = len(load.times)
        await _until(lambda: len(load.times) > after + 60)
        load.stop()
        await running_load
    steps = _numbers(folder)
    assert load.faults == []
    assert max(load.times) < LONGEST_S
    with psycopg.connect(empty_database_url) as connection:
        numbers = {row[0] for row in connection.execute("SELECT number FROM fhir.migration")}
        assert numbers == steps
        valid = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'fhir.resource_extra'::regclass")
        assert valid.fetchone() == (True,)


def _numbers(folder: Path) -> set[int]:
    return {int(path.name[:4]) for path in folder.glob("*.sql")}


def test_processes_that_start_at_once_build_an_index_once(empty_database_url: str, folder: Path) -> None:
    """Who waits for its turn holds nothing that an index build would have to wait for."""
    schema.migrate(empty_database_url)
    for name, text in _STEPS.items():
        (folder / name).write_text(text)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(schema.migrate, [empty_database_url] * 4))
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM fhir.migration WHERE number > 9000").fetchone() == (2,)


def test_an_index_whose_build_was_killed_is_built_again(empty_database_url: str, folder: Path) -> None:
    schema.migrate(empty_database_url)
    (folder / "9001_column.sql").write_text(_STEPS["9001_column.sql"])
    schema.migrate(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO fhir.setting VALUES ('a', '1'), ('b', '1')")
        # What a killed build leaves behind: an index of that name that is not valid.
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY resource_extra ON fhir.setting (value)")
    (folder / "9002_index.sql").write_text(_STEPS["9002_index.sql"])
    schema.migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute(
            "SELECT indisvalid, indrelid::regclass::text FROM pg_index"
            " WHERE indexrelid = 'fhir.resource_extra'::regclass"
        )
        assert found.fetchone() == (True, "fhir.resource")


def test_a_step_that_never_gets_its_lock_is_told_and_leaves_nothing(
    empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.migrate(empty_database_url)
    (folder / "9001_column.sql").write_text(_STEPS["9001_column.sql"])
    monkeypatch.setattr(schema, "PATIENCE_S", 0.5)
    with psycopg.connect(empty_database_url) as other:
        other.execute("LOCK TABLE fhir.history IN ACCESS SHARE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            schema.migrate(empty_database_url)
        assert other.execute("SELECT count(*) FROM fhir.migration WHERE number > 9000").fetchone() == (0,)
        found = other.execute(
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'fhir' AND column_name = 'extra'"
        )
        assert found.fetchone() == (0,)
    schema.migrate(empty_database_url)
