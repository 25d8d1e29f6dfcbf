"""Migrations, the rebuilt index, and what start-up costs."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg

from fhir_server.app import migrate
from fhir_server.store.schema import FOLDER as MIGRATIONS
from tests.contract.fhir.api import Api, observation, running


def test_migrations_are_harmless_to_repeat_and_to_race(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [empty_database_url] * 4))
    with psycopg.connect(empty_database_url) as connection:
        numbers = [row[0] for row in connection.execute("SELECT number FROM fhir.migration ORDER BY number")]
        assert numbers == sorted(int(path.name[:4]) for path in MIGRATIONS.glob("*.sql"))


async def test_index_is_rebuilt_when_it_was_made_by_another_version(database_url: str) -> None:
    queries = (
        "Observation?patient=p&code=F01",
        "Observation?value-quantity=5",
        "Patient?name=an",
        "Observation?date=2026",
    )
    async with running(database_url) as (_, client):
        api = Api(client)
        await api.put_ok({"resourceType": "Patient", "id": "p", "name": [{"family": "An"}]})
        await api.put_ok({**observation("Patient/p"), "id": "o", "valueQuantity": {"value": 5}})
        await api.put_ok({**observation("Patient/p"), "id": "gone"})
        await api.delete("/fhir/Observation/gone")
        before = [await api.ids(query) for query in queries]
    tables = ("posting", "date_value", "string_value", "number_value")
    with psycopg.connect(database_url) as connection:
        contents = [set(connection.execute(f"SELECT * FROM fhir.{t}").fetchall()) for t in tables]  # noqa: S608
        connection.execute("TRUNCATE fhir.posting, fhir.string_value")
        connection.execute("UPDATE fhir.resource SET low = 0, patients = '{}', present = 0")
        connection.execute("UPDATE fhir.setting SET value = 'older'")
    async with running(database_url) as (_, client):
        with psycopg.connect(database_url) as connection:
            rebuilt = [set(connection.execute(f"SELECT * FROM fhir.{t}").fetchall()) for t in tables]  # noqa: S608
        # The events of the questions before are indexed too, so nothing may be missing and nothing be different.
        assert rebuilt == contents
        api = Api(client)
        assert [await api.ids(query) for query in queries] == before == [["o"], ["o"], ["p"], ["o"]]
        assert await api.as_("patient/*.rs", patient="p").ids("Observation") == ["o"]


async def test_content_is_stored_once_and_old_versions_move(database_url: str) -> None:
    async with running(database_url) as (_, client):
        api = Api(client)
        for text in ("a", "b", "c"):
            await api.put_ok({"resourceType": "Basic", "id": "x", "code": {"text": text}})
    with psycopg.connect(database_url) as connection:
        current = connection.execute("SELECT version FROM fhir.resource WHERE id = 'x'").fetchall()
        older = connection.execute("SELECT version FROM fhir.history WHERE id = 'x' ORDER BY version").fetchall()
    assert (current, older) == ([(3,)], [(1,), (2,)])


def test_importing_the_service_is_light() -> None:
    code = (
        "import sys, psutil\n"
        "import fhir_server.app\n"
        "heavy = [m for m in ('fhir.resources', 'sqlalchemy', 'numpy', 'fastapi') if m in sys.modules]\n"
        "print(heavy, psutil.Process().memory_info().rss // 1_000_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, _, megabytes = done.stdout.strip().rpartition(" ")
    assert heavy == "[]"
    assert int(megabytes) < 120
