"""`foramen audit`, as an operator runs it beside a running server; and no PHI in what that server logs. SYNTHETIC data.

docs/how-to/audit.md
"""
# ruff: noqa: S608 - the statements are written here

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from typer.testing import CliRunner

from foramen import cli
from foramen.identity.oauth.operator_token import operator_token
from foramen.identity.people.accounts import ensure_user
from foramen.identity.rights.institutions import ensure_institution
from foramen.kernel.settings import Settings, get_settings
from tests.contract.fhir.server_process import free_port

_SECRETS = ("Geheimname", "SYNTHETIC-Vorname", "1951-03-17", "SYN-110101195103170011", "13800001111", "Geheimstrasse")
_PATIENT = {
    "resourceType": "Patient",
    "id": "phi",
    "name": [{"family": _SECRETS[0], "given": [_SECRETS[1]]}],
    "birthDate": _SECRETS[2],
    "identifier": [{"system": "https://foramen.example/fhir/identifier/patient/TEST", "value": _SECRETS[3]}],
    "telecom": [{"system": "phone", "value": _SECRETS[4]}],
    "address": [{"line": [_SECRETS[5]]}],
}


@dataclass
class Installation:
    """A server started by `foramen serve`, with all that belongs to it."""

    home: Path
    database_url: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return _environment(self.home, self.database_url, self.port)

    def client(self, scopes: str, user: str | None = None) -> httpx.Client:
        settings = Settings(home=self.home, port=self.port)
        token = operator_token(settings, self.database_url, scopes, user=user)
        base = f"http://127.0.0.1:{self.port}/fhir"
        return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def report(self, *arguments: str) -> str:
        """What `foramen audit report` prints, without the seconds a process needs to start."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            get_settings.cache_clear()
            try:
                done = CliRunner().invoke(cli.app, ["audit", "report", *arguments])
            finally:
                get_settings.cache_clear()
        assert done.exit_code == 0, done.output
        return done.stdout

    def audit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "foramen", "audit", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)


def _environment(home: Path, database_url: str, port: int) -> dict[str, str]:
    own = {"HOME": str(home), "DATABASE_URL": database_url, "PORT": str(port), "LOG_LEVEL": "DEBUG"}
    return {**os.environ, **{f"FORAMEN_{name}": value for name, value in own.items()}}


@pytest.fixture(scope="module")
def installation(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A physician and a service have worked with the record of one patient."""
    home, port = tmp_path_factory.mktemp("installation"), free_port()
    log = home / "logs" / "web.log"
    log.parent.mkdir()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "foramen", "serve", "--only", "fhir", "--migrate"],
            env=_environment(home, module_database_url, port),
            stdout=output,
            stderr=output,
        )
    made = Installation(home, module_database_url, port, log, process)
    try:
        _wait(made)
        ensure_institution(module_database_url, "north")
        ensure_user(module_database_url, "dr-chen", "a long SYNTHETIC password 7", "physician", "chen", "north")
        _work(made)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def _wait(made: Installation) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and made.process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{made.port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(made.log.read_text()[-3000:])


def _work(made: Installation) -> None:
    """Use names in every place a client can put them: bodies, queries, paths, conditions, and in what is refused."""
    with made.client("system/*.cruds") as service, made.client("user/*.rs", "dr-chen") as physician:
        assert service.put("/Patient/phi", json=_PATIENT).status_code == 201
        for query in (
            "family=Geheimname",
            f"birthdate={_SECRETS[2]}",
            f"identifier={_SECRETS[3]}",
            "phone=13800001111",
        ):
            answer = physician.get(f"/Patient?{query}")
            assert answer.json()["entry"][0]["resource"]["id"] == "phi", query
        statuses = [
            physician.get("/Patient?family:unknown=Geheimname").status_code,
            physician.get("/Patient?birthdate=1951-03-17x&_filter=name eq Geheimname(").status_code,
            physician.get("/Patient/Geheimname$").status_code,
            physician.get("/Geheimname/SYNTHETIC-Vorname").status_code,
            service.put("/Patient/phi", json={**_PATIENT, "gender": "Geheimname"}).status_code,
            service.put("/Patient/phi", json={**_PATIENT, "Geheimname": "Geheimstrasse"}).status_code,
            service.put("/Patient/phi", content=b'{"resourceType":"Patient","name":"Geheimname').status_code,
            service.post("/Patient", json=_PATIENT, headers={"If-None-Exist": "family=Geheimname&x=1"}).status_code,
            service.patch("/Patient/phi", json=[{"op": "test", "path": "/name", "value": "Geheimname"}]).status_code,
            physician.post("/Patient", json=_PATIENT).status_code,
            httpx.get(f"{physician.base_url}Patient?family=Geheimname").status_code,
            httpx.get(f"{physician.base_url}Patient", headers={"Authorization": "Bearer Geheimname"}).status_code,
        ]
        assert all(400 <= status < 500 for status in statuses), statuses
        # A fault in the middle: the database goes away under a search with a name in it.
        with psycopg.connect(made.database_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE fhir.string_value RENAME TO string_value_away")
            try:
                assert physician.get("/Patient?family=Geheimname&given=SYNTHETIC-Vorname").status_code == 500
            finally:
                connection.execute("ALTER TABLE fhir.string_value_away RENAME TO string_value")
        assert service.get("/AuditEvent?_summary=count").json()["total"] > len(statuses)


def test_nothing_of_the_patient_is_in_logs_audit_or_files(installation: Installation):
    """Logs, file names and contents of the home folder, audit events and the audit log; the record alone may know."""
    assert "unexpected error" in installation.log.read_text(), "the fault left a line to look at"
    for path in installation.home.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in _SECRETS:
            assert secret not in path.name
            assert secret.encode() not in content, path.name
    with psycopg.connect(installation.database_url) as connection:
        tables = ("SELECT records FROM fhir.audit_log", "SELECT content FROM fhir.resource WHERE type = 'AuditEvent'")
        for query in tables:
            for (content,) in connection.execute(query):
                for secret in _SECRETS:
                    assert secret.encode() not in bytes(content)


def test_verify_checkpoint_and_what_they_say_after_tampering(installation: Installation, tmp_path: Path):
    good = installation.audit("verify")
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("good: ")
    signed = installation.audit("checkpoint")
    assert signed.returncode == 0, signed.stderr
    kept = tmp_path / "kept.jws"
    kept.write_text(Path(signed.stdout.strip()).read_text())
    key = tmp_path / "key.json"
    key.write_text((installation.home / "audit" / "checkpoint-key.jwk.json").read_text())
    with installation.client("user/*.rs", "dr-chen") as physician:
        physician.get("/Patient/phi")
    good = installation.audit("verify", "--checkpoint", str(kept), "--key", str(key))
    assert good.returncode == 0, good.stderr
    kept.write_text(kept.read_text().replace(".", ".A", 1))
    bad = installation.audit("verify", "--checkpoint", str(kept))
    assert bad.returncode == 1
    assert "kept.jws" in bad.stderr
    with psycopg.connect(installation.database_url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        (row, updated), *_ = connection.execute(
            "SELECT row, updated FROM fhir.resource WHERE type = 'AuditEvent' ORDER BY updated LIMIT 1"
        ).fetchall()
        content = "overlay(content placing 'X'::bytea from 60 for 1)"
        old = connection.execute("SELECT content FROM fhir.resource WHERE row = %s", (row,)).fetchall()[0][0]
        connection.execute(f"UPDATE fhir.resource SET content = {content} WHERE row = %s", (row,))
        try:
            bad = installation.audit("verify")
        finally:
            connection.execute("UPDATE fhir.resource SET content = %s WHERE row = %s", (old, row))
    assert bad.returncode == 1
    assert "An event was changed" in bad.stderr
    assert str(row) in bad.stderr
    assert updated.astimezone(UTC).isoformat() in bad.stderr.replace("\n", "")


def test_report_counts_by_institution_role_app_and_action(installation: Installation):
    today = datetime.now(UTC).date().isoformat()
    rows = json.loads(installation.report("--from", today, "--to", today, "--json"))["rows"]
    found = {(r["institution"], r["role"], r["action"], r["outcome"]): r["count"] for r in rows}
    assert found["north", "physician", "search", "success"] >= 4
    assert found["north", "physician", "write", "refused"] == 1
    assert found["", "service", "write", "success"] == 1
    assert found["", "not signed in", "read", "refused"] >= 1
    as_csv = installation.report("--from", today, "--to", today, "--institution", "north", "--csv")
    table = list(csv.DictReader(io.StringIO(as_csv)))
    assert {line["institution"] for line in table} == {"north"}
    assert sum(int(line["count"]) for line in table) == sum(r["count"] for r in rows if r["institution"] == "north")
    before = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    assert json.loads(installation.report("--from", before, "--to", before))["rows"] == []


def test_verify_without_the_secret_says_so(installation: Installation, tmp_path: Path):
    environment = {**installation.environment, "FORAMEN_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "foramen", "audit", "verify"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "audit-seal" in done.stderr
    assert not list(tmp_path.rglob("audit-seal"))
