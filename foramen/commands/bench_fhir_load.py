"""Own load generator of `foramen bench fhir`: transactions, bulk import and export, the record they work on.

All data are SYNTHETIC: findings of patients that never were.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson

from terminology.systems import FINDING, OBSERVATION_CATEGORY, UCUM

OBSERVATIONS_PER_PATIENT = 100
PATIENTS_PER_ORGANIZATION = 20
_BUNDLE = 100
_CODES = [f"F{number:02d}" for number in range(1, 22)]
_JSON = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}


class Client:
    """One keep-alive connection to the server under test."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=600)
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
        """Send one request; returns status, headers and body."""
        sent = {**self._headers, **_JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self._connection.request(method, path, body, sent)
        answer = self._connection.getresponse()
        return answer.status, answer.headers, answer.read()


def expect(answer: tuple[int, Any, bytes], *statuses: int) -> tuple[Any, bytes]:
    """Return headers and body of an answer, or stop: a benchmark of errors says nothing."""
    if answer[0] not in statuses:
        raise RuntimeError(f"the server answered {answer[0]}: {answer[2][:300]!r}")
    return answer[1], answer[2]


def organization(number: int) -> dict[str, Any]:
    """One SYNTHETIC Organization."""
    identifier = [{"system": "urn:bench", "value": str(number)}]
    return {"resourceType": "Organization", "id": f"b{number}", "identifier": identifier, "name": "SYNTHETIC"}


def patient(number: int) -> dict[str, Any]:
    """One SYNTHETIC Patient of an organization."""
    return {
        "resourceType": "Patient",
        "id": f"b{number}",
        "identifier": [{"system": "urn:bench", "value": str(number)}],
        "managingOrganization": {"reference": f"Organization/b{number // PATIENTS_PER_ORGANIZATION}"},
    }


def observation(chooser: random.Random, patients: int) -> dict[str, Any]:
    """One SYNTHETIC Observation as the AI writes them."""
    day = f"{chooser.randint(2020, 2026)}-{chooser.randint(1, 12):02d}-{chooser.randint(1, 28):02d}"
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [{"coding": [{"system": OBSERVATION_CATEGORY, "code": "imaging"}]}],
        "code": {"coding": [{"system": FINDING, "code": chooser.choice(_CODES), "display": "SYNTHETIC"}]},
        "subject": {"reference": f"Patient/b{chooser.randrange(patients)}"},
        "effectiveDateTime": f"{day}T10:00:00Z",
        "valueQuantity": {"value": round(chooser.uniform(1, 20), 2), "unit": "mm", "system": UCUM, "code": "mm"},
    }


def _bundle(entries: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def bundles(count: int, patients: int, seed: int) -> list[bytes]:
    """Transactions of 100 Observations each."""
    chooser = random.Random(seed)  # noqa: S311 - test data
    return [
        _bundle(
            [
                {"resource": observation(chooser, patients), "request": {"method": "POST", "url": "Observation"}}
                for _ in range(_BUNDLE)
            ]
        )
        for _ in range(count)
    ]


def context_bundles(first: int, patients: int) -> Iterator[bytes]:
    """Transactions that write the organizations and patients from number `first` on."""
    resources = [
        organization(n) for n in range(first // PATIENTS_PER_ORGANIZATION, patients // PATIENTS_PER_ORGANIZATION + 1)
    ]
    resources += [patient(n) for n in range(first, patients)]
    for start in range(0, len(resources), _BUNDLE):
        yield _bundle(
            [
                {"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}}
                for r in resources[start : start + _BUNDLE]
            ]
        )


def transactions(port: int, token: str, bodies: list[bytes], connections: int = 4) -> tuple[float, list[str]]:
    """Send transactions over several connections; returns resources per second and the new ids."""
    ids: list[str] = []
    waiting = iter(bodies)

    def work(_: int) -> None:
        client = Client(port, token)
        for body in waiting:
            _, content = expect(client.ask("POST", "/fhir/", body), 200)
            locations = [entry["response"]["location"].split("/") for entry in orjson.loads(content)["entry"]]
            ids.extend(parts[1] for parts in locations if parts[0] == "Observation")

    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, range(connections)))
    return len(bodies) * _BUNDLE / (time.perf_counter() - began), ids


def _wait(client: Client, location: str) -> dict[str, Any]:
    """Poll a job until it is done; returns its manifest."""
    path = "/fhir/" + location.partition("/fhir/")[2]
    while True:
        status, _, content = client.ask("GET", path)
        if status == 200:
            found: dict[str, Any] = orjson.loads(content)
            return found
        if status not in (202, 429):
            raise RuntimeError(f"the job answered {status}: {content[:300]!r}")
        time.sleep(0.05)


def bulk_export(port: int, token: str) -> tuple[float, int]:
    """Export all Observations; returns resources per second until the manifest is there, and their number."""
    client = Client(port, token)
    began = time.perf_counter()
    headers, _ = expect(client.ask("GET", "/fhir/$export?_type=Observation", Prefer="respond-async"), 202)
    manifest = _wait(client, headers["Content-Location"])
    took = time.perf_counter() - began
    count = sum(item["count"] for item in manifest["output"])
    return count / took, count


def bulk_import(port: int, token: str, count: int, patients: int, seed: int) -> float:
    """Import Observations as NDJSON; returns resources per second until the job is done."""
    chooser = random.Random(seed)  # noqa: S311 - test data
    lines = []
    for number in range(count):
        resource = {**observation(chooser, patients), "id": f"i{seed}-{number}"}
        lines.append(orjson.dumps(resource))
    client = Client(port, token)
    began = time.perf_counter()
    answer = client.ask("POST", "/fhir/$import", b"\n".join(lines) + b"\n", Content_Type="application/fhir+ndjson",
                        Prefer="respond-async")  # fmt: skip
    headers, _ = expect(answer, 202)
    manifest = _wait(client, headers["Content-Location"])
    if manifest.get("error"):
        raise RuntimeError(f"the import refused lines: {manifest['error']}")
    return count / (time.perf_counter() - began)


def write_ids(folder: Path, ids: list[str]) -> None:
    """Leave ids for wrk's script."""
    (folder / "ids").write_text("\n".join(ids), encoding="utf-8")
