"""kill -9 during writes: what was acknowledged is there with its index entries, and nothing is half. SYNTHETIC data.

https://hl7.org/fhir/R4/http.html#transaction ("all or nothing")
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from tests.builders.patience import patience
from tests.contract.fhir.server_process import ServerProcess, authorization, free_port, start

_WRITERS = 4
_GROUP = 5
_ROUNDS = 2
_WARM_S = (0.3, 1.2)


class Load:
    """Writers that note what was acknowledged: single updates of one resource each, and transactions."""

    def __init__(self, server: ServerProcess, run: str) -> None:
        self.base = server.base
        self.run = run
        self.acknowledged: dict[str, int] = {}
        self.groups: list[str] = []
        self.asked: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(_WRITERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def wait_until_something_is_acknowledged(self) -> None:
        """A kill before the first write would prove nothing; how soon that comes is the machine's affair."""
        deadline = time.monotonic() + patience(30)
        while not self.acknowledged:
            assert time.monotonic() < deadline, "no write was acknowledged"
            time.sleep(0.02)

    def _write(self, number: int) -> None:
        headers = {"Authorization": authorization(), "Content-Type": "application/fhir+json"}
        with httpx.Client(headers=headers, timeout=10) as http:
            turn = 0
            while not self._stop.is_set():
                turn += 1
                with contextlib.suppress(httpx.HTTPError):
                    if turn % 3:
                        self._single(http, f"{self.run}-{number}", turn)
                    else:
                        self._transaction(http, f"{self.run}-{number}-{turn}")

    def _single(self, http: httpx.Client, name: str, turn: int) -> None:
        resource = _observation(name, f"T{turn}")
        answer = http.put(f"{self.base}/Observation/{name}", json=resource)
        if answer.status_code in (200, 201):
            self.acknowledged[name] = turn

    def _transaction(self, http: httpx.Client, group: str) -> None:
        self.asked.append(group)
        entries = [
            {
                "resource": _observation(f"{group}-{place}", "GROUP", group),
                "request": {"method": "PUT", "url": f"Observation/{group}-{place}"},
            }
            for place in range(_GROUP)
        ]
        answer = http.post(self.base, json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
        if answer.status_code == 200:
            self.groups.append(group)


def _observation(logical_id: str, code: str, group: str = "") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": logical_id,
        "status": "preliminary",
        "code": {"coding": [{"system": "https://foramen.example/fhir/CodeSystem/crash", "code": code}]},
        "identifier": [{"system": "urn:group", "value": group or logical_id}],
        "subject": {"reference": f"Patient/{logical_id}"},
        "effectiveDateTime": "2026-01-05T10:00:00Z",
        "valueQuantity": {"value": 1, "unit": "mm"},
    }


def _check(base: str, load: Load) -> None:
    headers = {"Authorization": authorization()}
    with httpx.Client(base_url=base, headers=headers, timeout=30) as http:
        for name, turn in load.acknowledged.items():
            answer = http.get(f"/Observation/{name}")
            assert answer.status_code == 200, name
            code = answer.json()["code"]["coding"][0]["code"]
            assert int(code[1:]) >= turn, "an acknowledged write is lost"
            # The index speaks of the version that stands, and of no other.
            assert _found(http, {"_id": name, "code": code}) == [name]
            assert _found(http, {"patient": name, "code": code}) == [name]
            last = int(answer.json()["meta"]["versionId"])
            history = http.get(f"/Observation/{name}/_history", params={"_count": 1000}).json()["entry"]
            assert [int(item["resource"]["meta"]["versionId"]) for item in history] == list(range(last, 0, -1))
            older = history[-1]["resource"]["code"]["coding"][0]["code"]
            assert (_found(http, {"_id": name, "code": older}) == [name]) == (older == code)
        for group in load.asked:
            found = _found(http, {"identifier": f"urn:group|{group}", "_count": "100"})
            assert len(found) in ((_GROUP,) if group in load.groups else (0, _GROUP)), "half a transaction"
            read = [http.get(f"/Observation/{group}-{place}").status_code for place in range(_GROUP)]
            assert read == [200 if found else 404] * _GROUP


def _found(http: httpx.Client, query: dict[str, str]) -> list[str]:
    answer = http.get("/Observation", params=query)
    assert answer.status_code == 200, answer.text
    return [item["resource"]["id"] for item in answer.json().get("entry", [])]


def _index_is_whole(database_url: str) -> None:
    """No entry of a resource that is not there, and no current resource without its entries."""
    with psycopg.connect(database_url) as connection:
        orphans = connection.execute(
            "SELECT count(*) FROM fhir.posting p WHERE NOT EXISTS (SELECT FROM fhir.resource r WHERE r.row = p.row)"
        ).fetchone()
        bare = connection.execute(
            "SELECT count(*) FROM fhir.resource r WHERE r.type = 'Observation' AND r.content IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM fhir.posting p WHERE p.row = r.row)"
        ).fetchone()
        gaps = connection.execute(
            "SELECT count(*) FROM fhir.resource r WHERE r.version > 1 AND r.version - 1 <>"
            " (SELECT count(*) FROM fhir.history h WHERE h.row = r.row)"
        ).fetchone()
    assert (orphans, bare, gaps) == ((0,), (0,), (0,))


def test_the_web_process_is_killed(database_url: str, tmp_path: Path):
    chance, port = random.Random(6), free_port()
    server = start(database_url, tmp_path, port)
    try:
        for number in range(_ROUNDS):
            with Load(server, f"web{number}") as load:
                load.wait_until_something_is_acknowledged()
                time.sleep(chance.uniform(*_WARM_S))
                server.kill()
            server = start(database_url, tmp_path, port)
            _check(server.base, load)
    finally:
        server.stop()
    _index_is_whole(database_url)


@pytest.fixture
def own_postgres() -> Iterator[tuple[str, Path]]:
    """A database server that may be killed."""
    folder = Path(tempfile.mkdtemp(prefix="foramen-test-crash-"))
    folder.chmod(0o755)
    yield start_postgres(folder / "data"), folder / "data"
    stop_postgres(folder / "data")
    shutil.rmtree(folder, ignore_errors=True)


def test_the_database_is_killed(own_postgres: tuple[str, Path], tmp_path: Path):
    database_url, data = own_postgres
    server = start(database_url, tmp_path)
    try:
        with Load(server, "database") as load:
            load.wait_until_something_is_acknowledged()
            time.sleep(0.8)
            main = int((data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(main, signal.SIGKILL)
            time.sleep(0.5)
            answer = httpx.get(f"{server.base}/Observation/x", headers={"Authorization": authorization()}, timeout=20)
            assert answer.status_code == 503
        assert server.process.poll() is None, "the web process lives through it"
        _start_again(data)
        deadline = time.monotonic() + patience(30)
        while time.monotonic() < deadline:
            answer = httpx.get(f"{server.base}/Observation/x", headers={"Authorization": authorization()}, timeout=20)
            if answer.status_code == 404:
                break
            time.sleep(0.2)
        _check(server.base, load)
        _index_is_whole(database_url)
    finally:
        server.stop()


def _start_again(data: Path) -> None:
    """Start the killed server once the processes that it left have ended, as its shared memory is theirs until then."""
    deadline = time.monotonic() + patience(30)
    while True:
        try:
            start_postgres(data)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return
