"""`fhir-pyrate` (PyPI), unmodified, against a real server: searches to data frames, pages, parallel requests.

It needs an `Ahoy`-like session; a `requests.Session` with the bearer token is what it accepts of others.
All data SYNTHETIC.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pandas as pd
import pytest
import requests
from fhir_pyrate import Pirate

from tests.contract.fhir.server_process import ServerProcess, authorization

_OURS = {"code": "PY-0,PY-1,PY-2,PY-3,PY-4"}


@pytest.fixture(scope="module")
def record(server: ServerProcess) -> ServerProcess:
    entries = []
    for patient in range(6):
        resource = {"resourceType": "Patient", "id": f"py{patient}", "birthDate": f"19{60 + patient}-01-01"}
        entries.append({"resource": resource, "request": {"method": "PUT", "url": f"Patient/py{patient}"}})
        for place in range(5):
            observation = {
                "resourceType": "Observation",
                "id": f"py{patient}-{place}",
                "status": "preliminary",
                "code": {"coding": [{"system": "http://loinc.org", "code": f"PY-{place}"}], "text": "SYNTHETIC"},
                "subject": {"reference": f"Patient/py{patient}"},
                "effectiveDateTime": f"2026-0{patient + 1}-1{place}T08:00:00Z",
                "valueQuantity": {"value": place * 1.5, "unit": "mm"},
            }
            url = f"Observation/py{patient}-{place}"
            entries.append({"resource": observation, "request": {"method": "PUT", "url": url}})
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    headers = {"Authorization": authorization(), "Content-Type": "application/fhir+json"}
    assert httpx.post(server.base, json=bundle, headers=headers).status_code == 200
    return server


@pytest.fixture(params=[1, 3], ids=["one-process", "three-processes"])
def pirate(record: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Pirate]:
    session = requests.Session()
    session.headers["Authorization"] = authorization()
    with Pirate(record.base, session, num_processes=request.param) as pirate:
        yield pirate


def test_pages_to_a_data_frame(pirate: Pirate):
    frame = pirate.steal_bundles_to_dataframe("Observation", {"_count": 7, "code": "PY-1,PY-2"})
    assert isinstance(frame, pd.DataFrame)
    assert sorted(frame["id"]) == sorted(f"py{patient}-{place}" for patient in range(6) for place in (1, 2))
    assert set(frame["valueQuantity_value"]) == {1.5, 3.0}


def test_fhirpath_columns(pirate: Pirate):
    paths = [("patient", "Observation.subject.reference"), ("value", "Observation.valueQuantity.value")]
    frame = pirate.steal_bundles_to_dataframe("Observation", {"patient": "py2", "_sort": "date"}, fhir_paths=paths)
    assert list(frame["patient"]) == ["Patient/py2"] * 5
    assert list(frame["value"]) == [0, 1.5, 3, 4.5, 6]


def test_rows_become_searches(pirate: Pirate):
    rows = pd.DataFrame({"who": [f"py{patient}" for patient in range(6)]})
    frame = pirate.trade_rows_for_dataframe(rows, "Observation", df_constraints={"patient": "who"}, with_ref=True)
    assert len(frame) == 30
    assert frame.groupby("subject_reference").size().to_dict() == {f"Patient/py{p}": 5 for p in range(6)}


def test_time_spans_in_parallel(pirate: Pirate):
    frame = pirate.sail_through_search_space_to_dataframe(
        "Observation", time_attribute_name="date", date_init="2026-01-01", date_end="2026-12-31", request_params=_OURS
    )
    assert sorted(frame["id"]) == sorted(f"py{patient}-{place}" for patient in range(6) for place in range(5))


def test_totals(pirate: Pirate):
    assert pirate.get_bundle_total("Observation", {**_OURS, "_total": "accurate", "_count": 1}) == 30
