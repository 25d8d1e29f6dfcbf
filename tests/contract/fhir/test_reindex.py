"""The index is rebuilt while the server serves: nothing is gone for a moment, kill -9 costs one batch."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fhir_server.store import indexing
from tests.contract.fhir.api import EVERYTHING, Api, observation, refused, running

ADMIN = f"{EVERYTHING} foramen/admin"
TABLES = ("posting", "date_value", "string_value", "number_value")


@pytest.fixture
def by_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any record is large here: what is stale is rebuilt by a job, in batches of five."""
    monkeypatch.setenv("FORAMEN_FHIR_REINDEX_AT_START", "0")
    monkeypatch.setenv("FORAMEN_FHIR_REINDEX_BATCH", "5")


async def fill(api: Api, number: int) -> None:
    await api.put_ok({"resourceType": "Patient", "id": "p", "name": [{"family": "Synthetic"}]})
    for item in range(number):
        await api.put_ok({**observation("Patient/p"), "id": f"o{item}", "valueQuantity": {"value": item}})
    await api.delete("/fhir/Observation/o0")


def index_of(url: str) -> list[set[Any]]:
    """The index without that of AuditEvents, which grows with every call."""
    with psycopg.connect(url) as connection:
        return [
            set(
                connection.execute(
                    f"SELECT v.* FROM fhir.{table} v JOIN fhir.resource r USING (row) WHERE r.type <> 'AuditEvent'"  # noqa: S608
                ).fetchall()
            )
            for table in TABLES
        ]


def spoil(url: str) -> None:
    """Make the index one of another version: some entries are missing, some wrong, and dates are others."""
    with psycopg.connect(url) as connection:
        own = "row IN (SELECT row FROM fhir.resource WHERE type = 'Observation' AND id LIKE 'o1%')"
        connection.execute(f"DELETE FROM fhir.posting WHERE {own}")  # noqa: S608
        connection.execute(f"DELETE FROM fhir.number_value WHERE {own}")  # noqa: S608
        connection.execute(
            f"INSERT INTO fhir.posting (hash, low, row, high) SELECT 42, 7, row, 8 FROM fhir.resource WHERE {own}"  # noqa: S608
        )
        connection.execute(f"UPDATE fhir.resource SET low = 7, high = 8, present = 0, patients = '{{}}' WHERE {own}")  # noqa: S608
        connection.execute("UPDATE fhir.setting SET value = '{}' WHERE name = 'index'")


def stale(url: str) -> None:
    """Make the index one of another version, of observations written long ago: a job rests between batches of them."""
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE fhir.setting SET value = '{}' WHERE name = 'index'")
        connection.execute(
            "UPDATE fhir.resource SET updated = updated - interval '1 minute' WHERE type = 'Observation'"
        )


async def wait_for(api: Api, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        body = (await api.get(f"/fhir/$reindex-status/{job}")).json()
        state = {p["name"]: next(v for k, v in p.items() if k != "name") for p in body["parameter"]}
        if state["status"] not in ("queued", "running"):
            return state
        assert time.monotonic() < deadline, state
        await asyncio.sleep(0.1)


async def wait_until_built(api: Api) -> None:
    deadline = time.monotonic() + 30
    while "parameter" in (await api.get("/fhir/$reindex")).json():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_operation_repairs_and_tells_its_progress(api: Api, database_url: str) -> None:
    admin = api.as_(ADMIN)
    await fill(admin, 12)
    before = index_of(database_url)
    spoil(database_url)
    started = await admin.post("/fhir/$reindex", {"resourceType": "Parameters"})
    assert started.status_code == 202
    job = started.json()["parameter"][0]["valueString"]
    assert started.headers["content-location"] == f"http://127.0.0.1:8000/fhir/$reindex-status/{job}"
    state = await wait_for(admin, job)
    assert state["status"] == "completed"
    assert state["changed"] == 3  # o1, o10, o11; what was right was left alone.
    assert index_of(database_url) == before
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('fhir.posting_row')").fetchone() == (None,)


async def test_one_type_alone(api: Api, database_url: str) -> None:
    admin = api.as_(ADMIN)
    await fill(admin, 3)
    before = index_of(database_url)
    spoil(database_url)
    body = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "Patient"}]}
    job = (await admin.post("/fhir/$reindex", body)).json()["parameter"][0]["valueString"]
    state = await wait_for(admin, job)
    assert (state["total"], state["changed"]) == (1, 0)
    assert index_of(database_url) != before


async def test_who_may_and_what_may_be_asked(api: Api) -> None:
    refused(await api.post("/fhir/$reindex", {"resourceType": "Parameters"}), 403, "forbidden")
    refused(await api.get("/fhir/$reindex-status/x"), 403, "forbidden")
    refused(await api.get("/fhir/$reindex"), 403, "forbidden")
    admin = api.as_(ADMIN)
    refused(await admin.get("/fhir/$reindex-status/x"), 404, "not-found")
    bad = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "Nonsense"}]}
    refused(await admin.post("/fhir/$reindex", bad), 400, "value")
    with_more = {"resourceType": "Parameters", "parameter": [{"name": "other", "valueCode": "x"}]}
    refused(await admin.post("/fhir/$reindex", with_more), 400, "not-supported")


async def test_serves_while_it_is_rebuilt(database_url: str, by_job: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads and searches by what did not change work at every moment; every answer says that more may be missing."""
    async with running(database_url) as (_, client):
        await fill(Api(client), 60)
        before = index_of(database_url)
    stale(database_url)
    monkeypatch.setenv("FORAMEN_FHIR_REINDEX_BATCH", "20")
    monkeypatch.setenv("FORAMEN_FHIR_REINDEX_PAUSE", "2")
    async with running(database_url) as (_, client):
        api = Api(client, ADMIN)
        warned = rounds = 0
        deadline = time.monotonic() + 30
        while True:
            bundle = (await api.get("/fhir/Observation?patient=p&code=F01&_count=1000")).json()
            kinds = [e["search"]["mode"] for e in bundle["entry"]]
            assert kinds.count("match") == 59 + rounds
            assert (await api.get("/fhir/Observation/o5")).status_code == 200
            await api.put_ok({**observation("Patient/p"), "id": f"new{rounds}"})  # Writes go on.
            rounds += 1
            if "outcome" not in kinds:
                break
            warned += 1
            assert bundle["entry"][-1]["resource"]["issue"][0]["expression"] == ["http.Observation"]
            assert time.monotonic() < deadline
        assert warned
        await wait_until_built(api)
        after = index_of(database_url)
        assert all(old <= new for old, new in zip(before, after, strict=True))
        strict = await api.get("/fhir/Observation?code=F01", prefer="handling=strict")
        assert strict.status_code == 200


async def test_strict_searches_are_refused_meanwhile(
    database_url: str, by_job: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(database_url) as (_, client):
        await fill(Api(client), 8)
    stale(database_url)
    monkeypatch.setenv("FORAMEN_FHIR_REINDEX_PAUSE", "100000")
    async with running(database_url) as (_, client):
        api = Api(client, ADMIN)
        response = await api.get("/fhir/Observation?code=F01", prefer="handling=strict")
        refused(response, 503, "incomplete")
        assert response.headers["retry-after"]
        created = await api.post("/fhir/Observation", observation("Patient/p"), if_none_exist="code=F01")
        refused(created, 503, "incomplete")
        refused(await api.post("/fhir/$reindex", {"resourceType": "Parameters"}), 409, "conflict")


_SERVER = """
import asyncio, sys
from fhir_server.app import FhirService
from foramen.kernel.settings import Settings
from tests.builders.tokens import verifier

async def main():
    service = FhirService(Settings(port=8000), sys.argv[1], verifier())
    await service.start()
    print("started", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_goes_on_after_kill_9(database_url: str, by_job: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(database_url) as (_, client):
        await fill(Api(client), 80)
        await Api(client).get("/fhir/AuditEvent?_count=1")  # Audit records are AuditEvents now, not a new type.
        before = index_of(database_url)
    spoil(database_url)
    environment = {**os.environ, "FORAMEN_FHIR_REINDEX_PAUSE": "20", "FORAMEN_FHIR_JOB_LEASE_S": "1"}
    command = [sys.executable, "-c", _SERVER, database_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)  # noqa: ASYNC220
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            deadline = time.monotonic() + 40
            while True:
                state = "convert_from(state, 'UTF8')::jsonb"
                found = connection.execute(f"SELECT {state} -> 'seen' FROM fhir.job").fetchone()  # type: ignore[call-overload]  # noqa: S608
                if found is not None and (found[0] or 0) >= 10:
                    break
                assert time.monotonic() < deadline
                assert process.poll() is None
                await asyncio.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    monkeypatch.setenv("FORAMEN_FHIR_JOB_LEASE_S", "1")
    async with running(database_url) as (_, client):
        await wait_until_built(Api(client, ADMIN))
        assert index_of(database_url) == before
    with psycopg.connect(database_url) as connection:
        attempt, state = connection.execute(
            "SELECT attempt, convert_from(state, 'UTF8')::jsonb FROM fhir.job WHERE kind = 'reindex'"
        ).fetchone()  # type: ignore[misc]
        assert attempt > 1
        # The second attempt did not begin anew; a few AuditEvents came along.
        assert state["total"] <= state["seen"] < state["total"] + 50


async def test_a_small_record_is_up_to_date_before_the_first_request(database_url: str) -> None:
    async with running(database_url) as (_, client):
        await fill(Api(client), 5)
        before = index_of(database_url)
    spoil(database_url)
    async with running(database_url) as (_, client):
        assert index_of(database_url) == before
        assert await Api(client, ADMIN).ids("Observation?value-quantity=1") == ["o1"]


def test_every_type_has_a_fingerprint_of_its_own() -> None:
    found = indexing.fingerprints("https://a.example/fhir")
    assert len(set(found.values())) == len(found) > 140
    assert found != indexing.fingerprints("https://b.example/fhir")


@pytest.mark.parametrize("name", ["remembering.py", "security_context.py", "r4_compartments.json", "compartments.py"])
def test_what_the_index_means_is_part_of_the_fingerprint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own_url = f"https://{name}.example/fhir"
    before = indexing.fingerprints.__wrapped__(own_url)
    read = Path.read_text

    def changed(path: Path, *args: Any, **more: Any) -> str:
        return read(path, *args, **more) + (" " if path.name == name else "")

    monkeypatch.setattr(Path, "read_text", changed)
    after = indexing.fingerprints.__wrapped__(own_url)
    assert all(after[kind] != before[kind] for kind in before)
