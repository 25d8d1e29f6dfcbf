"""An erasure that is killed in the middle goes on, and ends as if nothing had been. All data SYNTHETIC."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import psycopg
import pytest

from tests.contract.fhir.api import Api, observation, running
from tests.contract.fhir.subject_world import HIDDEN, admin, approved, asked, finished, record, traces

ROOT = Path(__file__).parents[3]
COUNT = 900


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


async def test_an_erasure_survives_kill_9(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[subprocess.Popen[bytes]]
):
    for name, value in (("JOB_POLL_S", "0.1"), ("JOB_LEASE_S", "1.5")):
        monkeypatch.setenv(f"FORAMEN_FHIR_{name}", value)
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    async with running(database_url) as (_, client):
        world = Api(client)
        await record(world, "kill")
        entries = [
            {
                "request": {"method": "PUT", "url": f"Observation/kill-{n}"},
                "resource": {
                    **observation("Patient/kill", date="1970-03-01T08:00:00Z"),
                    "id": f"kill-{n}",
                    "note": [{"text": HIDDEN}],
                },
            }
            for n in range(COUNT)
        ]
        assert (await world.transaction(*entries)).status_code == 200
    await _killed_in_the_middle(database_url, processes)
    async with running(database_url) as (_, client):
        world = Api(client)
        request = orjson.loads(await _job_request(database_url))["erasure"]
        outcome = await finished(admin(world, "chief"), "kill", request)
        assert outcome["status"] == "erased"
        assert int(outcome["removedVersions"]) >= COUNT
        assert await traces(database_url, tmp_path) == {}
        assert await world.ids("Patient?_id=kill-other") == ["kill-other"]


async def _killed_in_the_middle(url: str, started: list[subprocess.Popen[bytes]]) -> None:
    async with running(url) as (service, client):
        del service._jobs._kinds["erasure"]  # Another process carries it out.
        world = Api(client)
        request = await asked(admin(world, "chief"), "kill")
        command = [sys.executable, "-m", "tests.contract.fhir.bulk_process", url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=dict(os.environ))  # noqa: ASYNC220
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert (await approved(admin(world, "lawyer"), "kill", request)).status_code == 202
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(4000):
            row = connection.execute("SELECT state, status FROM fhir.job WHERE kind = 'erasure'").fetchone()
            assert row is not None
            assert row[1] in ("queued", "running"), "it was too fast to be killed"
            if orjson.loads(bytes(row[0])).get("removed", 0) > 0:
                break
            await asyncio.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (left,) = connection.execute("SELECT count(*) FROM fhir.resource WHERE id ~ '^kill-[0-9]'").fetchone() or (0,)
        assert 0 < left < COUNT, left
        assert connection.execute("SELECT status FROM fhir.erasure").fetchone() == ("approved",)


async def _job_request(url: str) -> bytes:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT request FROM fhir.job WHERE kind = 'erasure'").fetchone()
        assert row is not None
        return bytes(row[0])
