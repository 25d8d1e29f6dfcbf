"""Keys of sealed identifiers: rotation beside a server, older records sealed by a job, lost keys; all SYNTHETIC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from fhir_server.bulk.projects import add_project
from fhir_server.store import sealing_jobs
from fhir_server.store.sealed_content import MARKER
from foramen.commands import audit as audit_command
from foramen.commands import keys as keys_command
from foramen.identity import tables
from foramen.identity.database import transaction
from foramen.kernel.audit_event import audit_event
from foramen.kernel.errors import InteropError
from foramen.kernel.settings import get_settings
from tests.contract.fhir.api import Api, entry, running
from tests.contract.fhir.bulk_exports import exported, lines
from tests.contract.fhir.test_sealed_identifiers import ADMIN, ID_CARD, NUMBER, copies, everything_stored, person, use
from tests.contract.fhir.test_sealed_ways_out import numbers
from tests.contract.fhir.test_subject_rights_crash import ROOT, processes  # noqa: F401  a fixture
from tests.contract.fhir.test_subject_rights_export import copied, rows
from tests.contract.fhir.test_subject_rights_export import myself as subject_self

Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home of its own, jobs at once, small segments."""
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
    monkeypatch.setenv("FORAMEN_FHIR_SEALING_BATCH", "3")
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
    monkeypatch.setattr(sealing_jobs, "_GRACE_S", 0.2)


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run `foramen keys …` and `foramen audit …` as an operator does, beside the server."""
    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    with transaction(database_url) as connection:
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS identity")
        tables.metadata.create_all(connection)

    def run(app: str, *arguments: str) -> Result:
        get_settings.cache_clear()
        which = {"keys": keys_command.app, "audit": audit_command.app}[app]
        return CliRunner().invoke(which, list(arguments))

    yield run
    get_settings.cache_clear()


def heads(url: str) -> set[bytes]:
    """Which cipher and key sealed what the tables hold."""
    found = set()
    for _, row in everything_stored(url):
        for part in row.split(b"v2:")[1:]:
            found.add(b":".join(part.split(b":")[:2]))
    return found


async def test_rotation_beside_a_server(command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(database_url) as (_, client):
        api = Api(client, ADMIN)
        await use(api)
        before = heads(database_url)
        assert len(before) == 1
        done = await asyncio.to_thread(command, "keys", "rotate-data")
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        assert report["resealed"]["fhir.resource"] >= 4
        assert {"fhir.history", "fhir.job", "fhir.identifier_key"} <= set(report["resealed"])
        await api.put_ok(person("later"))
        after = heads(database_url)
        assert len(after) == 1
        assert before.isdisjoint(after)
        assert {"p", "q", "later"} <= set(await api.ids(f"Patient?identifier={ID_CARD}|{NUMBER}"))
        assert numbers((await api.get("/fhir/Patient/p/_history/1")).json()) == {NUMBER}
        monkeypatch.setenv("FORAMEN_CIPHER", "SM4-GCM")
        done = await asyncio.to_thread(command, "keys", "rotate-data", "--reseal-only")
        assert done.exit_code == 0, done.output
        assert {head.partition(b":")[0] for head in heads(database_url)} == {b"SM4-GCM"}
        assert numbers((await api.get("/fhir/Patient/p")).json()) == {NUMBER}
        status = json.loads((await asyncio.to_thread(command, "keys", "status")).stdout)
        assert {item["complete"] for item in status["systems"]} == {True}
    monkeypatch.undo()


async def test_the_audit_chain_is_over_what_was_said(command: Command, database_url: str) -> None:
    async with running(database_url) as (service, client):
        await use(Api(client, ADMIN))
        await service._server.audit_indexer.settle()
        await service._sealer.seal()
        assert (await asyncio.to_thread(command, "audit", "verify")).exit_code == 0
        assert (await asyncio.to_thread(command, "keys", "rotate-data")).exit_code == 0
        verified = await asyncio.to_thread(command, "audit", "verify")
        assert verified.exit_code == 0, verified.output
    with psycopg.connect(database_url) as connection:
        connection.execute("SET foramen.audit_removal = 'on'")
        changed = connection.execute(
            "UPDATE fhir.resource SET content = overlay(content placing '\\x41' from position(%s in content) + 70)"
            " WHERE type = 'AuditEvent' AND position(%s in content) > 0",
            (MARKER, MARKER),
        )
        assert changed.rowcount == 1
    assert command("audit", "verify").exit_code == 1


async def test_what_was_there_before_is_sealed_by_a_job(
    command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = f"Patient?identifier={ID_CARD}|{NUMBER}"
    with monkeypatch.context() as patch:
        patch.setenv("FORAMEN_FHIR_NATIONAL_IDENTIFIERS", "")
        patch.setenv("FORAMEN_FHIR_FULL_TEXT", "true")
        async with running(database_url) as (_, client):
            await use(Api(client, ADMIN))
            for number in range(10):
                await Api(client).put_ok(person(f"old{number}"))
    assert len(copies(database_url)) > 20
    monkeypatch.setenv("FORAMEN_FHIR_FULL_TEXT", "true")
    async with running(database_url) as (_, client):
        api = Api(client, ADMIN)
        found = set(await api.ids(wanted))
        assert {"p", "q", *(f"old{n}" for n in range(10))} <= found, "until it is sealed it is found as it lies there"
        await api.put_ok(person("old3", active=True))
        await api.delete("/fhir/Patient/old4")
        for _ in range(200):
            status = json.loads((await asyncio.to_thread(command, "keys", "status")).stdout)
            if all(job["status"] == "completed" for job in status["jobs"]):
                break
            await asyncio.sleep(0.1)
        assert {item["complete"] for item in status["systems"]} == {True}, status
        assert [job["status"] for job in status["jobs"]] == ["completed"], status
        assert "sealed" in status["jobs"][0]["progress"]
        assert set(await api.ids(wanted)) == found - {"old4"}
        assert await api.ids(f"Patient?_content={NUMBER}") == []
    # Jobs of before end with their own lifetime: they alone are not looked at again.
    assert set(copies(database_url)) <= {"job"}
    with psycopg.connect(database_url) as connection:
        twice = connection.execute(
            "SELECT row, hash FROM fhir.posting GROUP BY row, hash HAVING count(*) > 1"
        ).fetchall()
        assert twice == []


async def test_the_job_that_seals_goes_on_after_kill_9(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    processes: list[subprocess.Popen[bytes]],  # noqa: F811
) -> None:
    monkeypatch.setenv("FORAMEN_FHIR_JOB_LEASE_S", "1.5")
    monkeypatch.setenv("FORAMEN_FHIR_SEALING_BATCH", "1")
    with monkeypatch.context() as patch:
        patch.setenv("FORAMEN_FHIR_NATIONAL_IDENTIFIERS", "")
        async with running(database_url) as (_, client):
            put = [entry("PUT", f"Patient/many{number}", person(f"many{number}")) for number in range(300)]
            assert (await Api(client).transaction(*put)).status_code == 200
    command = [sys.executable, "-m", "tests.contract.fhir.bulk_process", database_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=dict(os.environ))  # noqa: ASYNC220
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(4000):
            row = connection.execute(
                "SELECT state, status FROM fhir.job WHERE kind = %s", (sealing_jobs.KIND,)
            ).fetchone()
            assert row is None or row[1] in ("queued", "running"), "it was too fast to be killed"
            if row is not None and json.loads(bytes(row[0])).get("sealed", 0) > 0:
                break
            await asyncio.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = connection.execute("SELECT count(*) FROM fhir.resource WHERE position(%s in content) > 0", (MARKER,))
        assert 0 < done.fetchone()[0] < 300
        monkeypatch.setenv("FORAMEN_FHIR_SEALING_BATCH", "100")
        async with running(database_url) as (_, client):
            for _ in range(400):
                (status,) = connection.execute(
                    "SELECT status FROM fhir.job WHERE kind = %s", (sealing_jobs.KIND,)
                ).fetchone()
                if status == "completed":
                    break
                await asyncio.sleep(0.1)
            assert len(await Api(client).ids(f"Patient?identifier={ID_CARD}|{NUMBER}&_count=500")) == 300
        (jobs,) = connection.execute("SELECT count(*) FROM fhir.job WHERE kind = %s", (sealing_jobs.KIND,)).fetchone()
    assert (status, jobs) == ("completed", 1)
    assert set(copies(database_url)) <= {"job"}


async def test_a_server_without_the_keys_does_not_start(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with running(database_url) as (_, client):
        await Api(client).put_ok(person("p"))
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path / "another"))
    with pytest.raises(InteropError, match="data keys cannot open the identifiers"):
        async with running(database_url):
            pass


async def test_exports_open_what_is_sealed(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with running(database_url) as (_, client):
        api = Api(client, ADMIN)
        many = {f"e{n}" for n in range(60)}
        body = "\n".join(
            json.dumps(
                {
                    **person(name),
                    "text": {
                        "status": "empty",
                        "div": '<div xmlns="http://www.w3.org/1999/xhtml">' + "x" * 3000 + "</div>",
                    },
                }
            )
            for name in sorted(many)
        )
        for line in body.splitlines():
            await api.put_ok(json.loads(line))
        await api.put("/fhir/Patient/raw", json.dumps(person("raw"), indent=1).encode())
        rows = await lines(api, await exported(api, "$export?_type=Patient"))
        assert {row["id"] for row in rows["Patient"]} == many | {"raw"}
        assert all(numbers(row) == {NUMBER} for row in rows["Patient"])
        found = await lines(
            api, await exported(api, f"$export?_type=Patient&_typeFilter=Patient%3Fidentifier%3D{NUMBER}")
        )
        assert len(found["Patient"]) == 61
        await _other_ways_out(api, tmp_path)


async def _other_ways_out(api: Api, home: Path) -> None:
    """The person's own copy has the number, a researcher's has neither that nor what seals it, nor has the log."""
    copy = await copied(subject_self(api, name="raw"), "raw")
    mine = [
        row for row in await rows(subject_self(api, name="raw"), copy["output"]) if row["resourceType"] == "Patient"
    ]
    assert [numbers(row) for row in mine] == [{NUMBER}]

    add_project(home, "sealed")
    manifest = await exported(api, "$export?_pseudonymise=sealed&_type=Patient")
    theirs = await lines(api, manifest)
    assert len(theirs["Patient"]) == 61
    assert not [form for form in (NUMBER, MARKER.decode(), "v2:") if form in json.dumps([theirs, manifest])]

    who = {"reference": "Patient/raw", "identifier": {"system": ID_CARD, "value": NUMBER}}
    event = audit_event(
        interaction="read", source="fhir", status=200, recorded=datetime.now(UTC), trace_id="t", context=None
    )
    posted = await api.post("/fhir/AuditEvent", {**event, "entity": [{"what": who}]})
    assert posted.status_code == 201, posted.text
    told = await subject_self(api, "patient/*.rs", "raw").get("/fhir/Patient/raw/$access-log")
    assert told.status_code == 200, told.text
    assert posted.json()["id"] in told.text
    assert not [form for form in (MARKER.decode(), "v2:") if form in told.text]
