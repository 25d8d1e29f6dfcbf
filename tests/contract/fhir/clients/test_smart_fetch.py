"""`smart-fetch` (PyPI), unmodified, against a real server: a crawl by REST searches, and a bulk export.

https://docs.smarthealthit.org/cumulus/fetch/. All data SYNTHETIC.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.builders.databases import new_database
from tests.contract.fhir.server_process import ServerProcess, authorization, serving

_TOOL = Path(sys.executable).with_name("smart-fetch")
_PATIENTS = 4
_OBSERVATIONS = 7


@pytest.fixture(scope="module")
def record(postgres_url: str) -> Iterator[ServerProcess]:
    """A server of its own, as the tool takes everything there is."""
    with serving(new_database(postgres_url)) as process:
        entries = []
        category = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}
        for patient in range(_PATIENTS):
            entries.append({"resourceType": "Patient", "id": f"sf{patient}", "birthDate": "1970-01-01"})
            entries.append(
                {
                    "resourceType": "Condition",
                    "id": f"sf{patient}",
                    "subject": {"reference": f"Patient/sf{patient}"},
                    "code": {"text": "SYNTHETIC"},
                    "recordedDate": "2026-01-02",
                }
            )
            entries += [
                {
                    "resourceType": "Observation",
                    "id": f"sf{patient}-{place}",
                    "status": "preliminary",
                    "category": [{"coding": [category]}],
                    "code": {"text": "SYNTHETIC"},
                    "subject": {"reference": f"Patient/sf{patient}"},
                    "effectiveDateTime": "2026-01-02",
                }
                for place in range(_OBSERVATIONS)
            ]
        entries.append(
            {
                "resourceType": "Group",
                "id": "sf",
                "type": "person",
                "actual": True,
                "member": [{"entity": {"reference": f"Patient/sf{patient}"}} for patient in range(_PATIENTS - 1)],
            }
        )
        bundle = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}} for r in entries
            ],
        }
        headers = {"Authorization": authorization(), "Content-Type": "application/fhir+json"}
        answer = httpx.post(process.base, json=bundle, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        yield process


def _fetch(record: ServerProcess, folder: Path, mode: str, *more: str) -> dict[str, list[str]]:
    """Run the tool; returns the ids of each type that it wrote."""
    token = folder / "token"
    token.write_text(authorization().removeprefix("Bearer "))
    out = folder / "out"
    command = [str(_TOOL), mode, str(out), "--fhir-url", record.base, "--bearer-token", str(token), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, list[str]] = {}
    for path in sorted(out.rglob("*.ndjson*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in content.splitlines():
            resource = json.loads(line)
            found.setdefault(resource.get("resourceType", "log"), []).append(resource.get("id", ""))
    return {name: sorted(ids) for name, ids in found.items() if name != "log"}


def test_crawl(record: ServerProcess, tmp_path: Path):
    found = _fetch(record, tmp_path, "crawl", "--type", "Patient,Condition,Observation")
    assert found["Patient"] == [f"sf{patient}" for patient in range(_PATIENTS)]
    assert found["Condition"] == [f"sf{patient}" for patient in range(_PATIENTS)]
    assert found["Observation"] == [f"sf{p}-{n}" for p in range(_PATIENTS) for n in range(_OBSERVATIONS)]


def test_crawl_of_a_group(record: ServerProcess, tmp_path: Path):
    found = _fetch(record, tmp_path, "crawl", "--type", "Patient,Condition", "--group", "sf")
    assert found["Patient"] == [f"sf{patient}" for patient in range(_PATIENTS - 1)]
    assert found["Condition"] == [f"sf{patient}" for patient in range(_PATIENTS - 1)]


def test_bulk_export(record: ServerProcess, tmp_path: Path):
    found = _fetch(record, tmp_path, "bulk", "--type", "Patient,Condition,Observation", "--no-default-filters")
    assert found["Patient"] == [f"sf{patient}" for patient in range(_PATIENTS)]
    assert len(found["Observation"]) == _PATIENTS * _OBSERVATIONS


def test_bulk_export_of_a_group(record: ServerProcess, tmp_path: Path):
    found = _fetch(record, tmp_path, "bulk", "--type", "Patient,Condition", "--group", "sf")
    assert found["Condition"] == [f"sf{patient}" for patient in range(_PATIENTS - 1)]
