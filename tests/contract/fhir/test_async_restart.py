"""A transaction that is answered later survives kill -9 and is carried out exactly once."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.contract.fhir.api import entry
from tests.contract.fhir.server_process import ServerProcess, authorization, start

ENTRIES = 60
HEADERS = {"accept": "application/fhir+json", "content-type": "application/fhir+json"}
QUICK = {"FORAMEN_FHIR_JOB_LEASE_S": "1.5", "FORAMEN_FHIR_JOB_POLL_S": "0.1"}


def transaction(run: int) -> dict[str, object]:
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:run", "value": str(run)}]}
    entries = [entry("POST", "Patient", patient) for _ in range(ENTRIES)]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def client(server: ServerProcess, authorized: str) -> httpx.Client:
    return httpx.Client(base_url=f"{server.base}/", headers={**HEADERS, "authorization": authorized}, timeout=30)


@pytest.mark.parametrize("pause_s", [0.0, 0.1])
def test_killed_and_begun_again(database_url: str, tmp_path: Path, pause_s: float) -> None:
    authorized = authorization()
    server = start(database_url, tmp_path, **QUICK)
    with client(server, authorized) as http:
        kicked = http.post("", json=transaction(1), headers={"prefer": "respond-async"})
        assert kicked.status_code == 202, kicked.text
        path = "$async-status/" + kicked.headers["content-location"].rpartition("/")[2]
    time.sleep(pause_s)
    server.kill()
    server = start(database_url, tmp_path, server.port, **QUICK)
    try:
        with client(server, authorized) as http:
            deadline = time.monotonic() + 60
            while (answer := http.get(path)).status_code == 202:
                assert time.monotonic() < deadline, "the job does not end"
                time.sleep(0.1)
            assert answer.status_code == 200, answer.text
            (item,) = answer.json()["entry"]
            assert item["response"]["status"] == "200 OK"
            told = {made["response"]["location"].split("/")[1] for made in item["resource"]["entry"]}
            found = http.get("Patient", params={"identifier": "urn:run|1", "_count": 500}).json()
            assert {made["resource"]["id"] for made in found["entry"]} == told
            assert len(told) == ENTRIES
    finally:
        server.stop()
