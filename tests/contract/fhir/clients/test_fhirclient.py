"""SMART's `fhirclient` (PyPI), unmodified, against a real server: typed resources, search, paging. SYNTHETIC data.

Its launch against our authorization server is in tests/contract/smart/test_foreign_clients.py.
"""

from __future__ import annotations

import pytest
from fhirclient.models.bundle import Bundle
from fhirclient.models.capabilitystatement import CapabilityStatement
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException, FHIRServer

from tests.contract.fhir.server_process import ServerProcess, authorization


@pytest.fixture(scope="module")
def foreign(server: ServerProcess) -> FHIRServer:
    found = FHIRServer(None, server.base)
    found.session.headers["Authorization"] = authorization()
    return found


def _observation(patient: str, day: int) -> Observation:
    return Observation(
        {
            "status": "preliminary",
            "code": {"text": "SYNTHETIC"},
            "subject": {"reference": patient},
            "effectiveDateTime": f"2026-01-{day:02}T08:00:00Z",
            "valueQuantity": {"value": 1.5, "unit": "mm"},
        }
    )


def test_it_accepts_our_capabilities(foreign: FHIRServer):
    statement = CapabilityStatement.read_from("metadata", foreign)
    assert statement.fhirVersion == "4.0.1"
    assert foreign.capabilityStatement.rest[0].mode == "server"


def test_create_read_update_delete(foreign: FHIRServer):
    patient = Patient({"name": [{"family": "Synthetic"}], "birthDate": "1980-02-29"})
    patient = Patient.read(patient.create(foreign)["id"], foreign)
    assert patient.birthDate.isostring == "1980-02-29"
    patient.gender = "female"
    patient.update(foreign)
    assert Patient.read(patient.id, foreign).meta.versionId == "2"
    patient.delete(foreign)
    with pytest.raises(Exception, match=r"410|404"):
        Patient.read(patient.id, foreign)
    with pytest.raises(FHIRNotFoundException):
        Patient.read("none", foreign)


def test_search_and_pages(foreign: FHIRServer):
    patient = Patient({"name": [{"family": "Synthetic"}]})
    patient.id = patient.create(foreign)["id"]
    for day in range(1, 8):
        _observation(f"Patient/{patient.id}", day).create(foreign)
    search = Observation.where({"subject": f"Patient/{patient.id}", "_count": "3", "_sort": "date"})
    days = [item.effectiveDateTime.date.day for item in search.perform_resources_iter(foreign)]
    assert days == list(range(1, 8))
    bundle = search.perform(foreign)
    assert isinstance(bundle, Bundle)
    assert len(bundle.entry) == 3
    chained = Observation.where({"subject:Patient._id": patient.id, "date": "ge2026-01-06"})
    assert len(chained.perform_resources(foreign)) == 2
