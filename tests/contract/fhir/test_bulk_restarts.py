"""Exports and imports that are killed in the middle: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from fhir_server.bulk.request import ExportRequest
from fhir_server.bulk.service import EXPORT, IMPORT
from fhir_server.jobs.runner import JobRunner
from fhir_server.settings import FhirSettings
from foramen.kernel.access_context import AccessContext, parse_scopes
from tests.contract.fhir.api import Api, observation, patient_resource, running

ROOT = Path(__file__).parents[3]
SCOPE = "system/*.cruds foramen/admin"
OWNER = AccessContext("tester", "test-client", parse_scopes(SCOPE), SCOPE)
COUNT = 1500


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = {
        "FORAMEN_HOME": str(tmp_path),
        "FORAMEN_FHIR_JOB_POLL_S": "0.1",
        "FORAMEN_FHIR_JOB_LEASE_S": "1.5",
        "FORAMEN_FHIR_EXPORT_SETTLE_S": "0.1",
        "FORAMEN_FHIR_EXPORT_SEGMENT": "20",
        "FORAMEN_FHIR_IMPORT_BATCH": "20",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(url: str, started: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.contract.fhir.bulk_process", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=dict(os.environ))
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def ndjson(count: int) -> bytes:
    rows = [{**patient_resource(), "id": "kill-0"}]
    rows += [{**observation("Patient/kill-0", code=f"C{n % 7}"), "id": f"kill-{n}"} for n in range(1, count)]
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


async def killed_in_the_middle(
    url: str, kind: str, request: dict[str, Any], started: list[subprocess.Popen[bytes]]
) -> tuple[str, dict[str, Any]]:
    """Start a job in a process of its own and kill that between two checkpoints."""
    process = start(url, started)
    asking = JobRunner(url, FhirSettings())
    await asking.start()
    try:
        job_id = await asking.submit(kind, request, owner=OWNER)
    finally:
        await asking.stop()
    with psycopg.connect(url, autocommit=True) as connection:
        changes, last = 0, b""
        for _ in range(3000):
            row = connection.execute("SELECT state, status FROM fhir.job WHERE id = %s", [job_id]).fetchone()
            assert row is not None
            assert row[1] in ("queued", "running"), "it was too fast to be killed"
            if bytes(row[0]) != last:
                changes, last = changes + 1, bytes(row[0])
            if changes > 5:
                break
            await asyncio.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        process.wait()
        row = connection.execute("SELECT state FROM fhir.job WHERE id = %s", [job_id]).fetchone()
        assert row is not None
        return job_id, orjson.loads(bytes(row[0]))


async def completed(api: Api, job_id: str) -> dict[str, Any]:
    for _ in range(1200):
        response = await api.get(f"/fhir/$bulk-status/{job_id}")
        if response.status_code == 200:
            manifest: dict[str, Any] = response.json()
            return manifest
        assert response.status_code in (202, 429), response.text
        await asyncio.sleep(0.1)
    raise AssertionError("the job does not end")


async def test_import_and_export_survive_kill_9(
    database_url: str, tmp_path: Path, environment: dict[str, str], processes: list[subprocess.Popen[bytes]]
) -> None:
    source = tmp_path / "input.ndjson"
    bad = orjson.dumps({"resourceType": "Observation", "id": "bad"})
    source.write_bytes(ndjson(COUNT) + bad + b"\n")
    async with running(database_url):
        pass  # Migrations and the first index.
    request = {"inputs": [{"path": str(source), "name": "input.ndjson", "type": ""}], "trace_id": "0" * 32, "url": ""}
    job_id, state = await killed_in_the_middle(database_url, IMPORT, request, processes)
    assert 0 < sum(state["created"].values()) < COUNT
    async with running(database_url) as (_, client):
        api = Api(client, SCOPE)
        manifest = await completed(api, job_id)
        assert {item["type"]: item["created"] for item in manifest["output"]} == {
            "Observation": COUNT - 1,
            "Patient": 1,
        }
        assert all(item["updated"] == 0 for item in manifest["output"])
        assert manifest["refused"] == 1
        errors = (await api.get(manifest["error"][0]["url"])).content.splitlines()
        assert len(errors) == 1
        assert f"input.ndjson line {COUNT + 1}:" in errors[0].decode()
    with psycopg.connect(database_url) as connection:
        versions = connection.execute("SELECT max(version), count(*) FROM fhir.resource WHERE id ~ 'kill-'").fetchone()
        assert versions == (1, COUNT)
        assert connection.execute("SELECT count(*) FROM fhir.history WHERE id ~ 'kill-'").fetchone() == (0,)

    export = ExportRequest("system", "http://127.0.0.1:8000/fhir/$export", types=("Patient", "Observation"))
    asked = {"export": export.to_json(), "members": None}
    job_id, state = await killed_in_the_middle(database_url, EXPORT, asked, processes)
    assert 0 < sum(item["count"] for item in state["files"]) < COUNT
    # As after a power cut in the middle of a write: what lies behind the checkpoint is garbage.
    name = state["files"][-1]["name"]
    with (tmp_path / "bulk" / job_id / name).open("ab") as file:
        file.write(b'{"resourceType":"Observa')
    async with running(database_url) as (_, client):
        api = Api(client, SCOPE)
        manifest = await completed(api, job_id)
        found: Counter[str] = Counter()
        for item in manifest["output"]:
            rows = (await api.get(item["url"])).content.splitlines()
            assert len(rows) == item["count"]
            found.update(orjson.loads(row)["id"] for row in rows)
        assert found == {f"kill-{n}": 1 for n in range(COUNT)}
