"""`fhirpy` (PyPI), unmodified, against a real server: CRUD, search, chains, paging, patch, conditions.

All data SYNTHETIC.
"""

from __future__ import annotations

import asyncio

import pytest
from fhirpy import AsyncFHIRClient, SyncFHIRClient
from fhirpy.base.exceptions import MultipleResourcesFound, OperationOutcome, ResourceNotFound

from tests.contract.fhir.server_process import ServerProcess, authorization

_SYSTEM = "https://foramen.example/fhir/identifier/patient/TEST"


@pytest.fixture
def client(server: ServerProcess) -> SyncFHIRClient:
    return SyncFHIRClient(server.base, authorization=authorization())


def _patient(client: SyncFHIRClient, value: str, **more: object) -> object:
    name = [{"family": f"Synthetic{value}", "given": ["Anna"]}]
    return client.resource("Patient", identifier=[{"system": _SYSTEM, "value": value}], name=name, **more)


def test_create_read_update_delete(client: SyncFHIRClient):
    patient = _patient(client, "crud")
    patient.save()
    assert patient.id
    assert patient.meta.versionId == "1"
    read = client.reference("Patient", patient.id).to_resource()
    assert read.serialize() == patient.serialize()
    patient["birthDate"] = "1980-02-29"
    patient.save()
    assert patient.meta.versionId == "2"
    patient.refresh()
    assert patient.birthDate == "1980-02-29"
    patient.delete()
    with pytest.raises(ResourceNotFound):
        client.reference("Patient", patient.id).to_resource()


def test_patch(client: SyncFHIRClient):
    patient = _patient(client, "patch", gender="female")
    patient.save()
    changed = client.patch("Patient", patient.id, gender="other", name=None)
    assert changed["gender"] == "other"
    assert "name" not in changed
    assert changed["identifier"][0]["value"] == "patch"
    patient.patch(birthDate="1990-01-01")
    assert patient.birthDate == "1990-01-01"
    conditional = client.resources("Patient").search(identifier=f"{_SYSTEM}|patch").patch(active=True)
    assert conditional.active is True


def test_search_chain_include_and_pages(client: SyncFHIRClient):
    patients = [_patient(client, f"search{number}") for number in range(3)]
    for patient in patients:
        patient.save()
        for place in range(4):
            observation = client.resource(
                "Observation",
                status="preliminary",
                code={"coding": [{"system": "http://loinc.org", "code": f"SYN-{place}"}]},
                subject=patient.to_reference(),
                effectiveDateTime=f"2026-01-0{place + 1}",
            )
            observation.save()
    found = client.resources("Observation").search(subject=patients[0].to_reference()).sort("-date").fetch()
    assert [item.effectiveDateTime for item in found] == [f"2026-01-0{day}" for day in (4, 3, 2, 1)]
    chained = client.resources("Observation").search(subject__Patient__name="Syntheticsearch1", code="SYN-2")
    assert [item.subject.reference for item in chained] == [f"Patient/{patients[1].id}"]
    paged = client.resources("Observation").search(code="SYN-0,SYN-1,SYN-2,SYN-3").limit(2).fetch_all()
    assert len(paged) == len({item.id for item in paged}) == 12
    assert client.resources("Observation").search(code="SYN-0").count() == 3
    included = client.resources("Observation").search(code="SYN-0").include("Observation", "subject").fetch_raw()
    assert {item.resource.resourceType for item in included.entry} == {"Observation", "Patient"}
    having = client.resources("Patient").has("Observation", "patient", code="SYN-3").fetch()
    assert {item.id for item in having} == {patient.id for patient in patients}
    dated = client.resources("Observation").search(date__ge="2026-01-04", code="SYN-3").fetch()
    assert len(dated) == 3
    assert client.resources("Patient").search(family__exact="Syntheticsearch2").get().id == patients[2].id
    with pytest.raises(MultipleResourcesFound):
        client.resources("Observation").search(code="SYN-0").get()


def test_conditions(client: SyncFHIRClient):
    query = client.resources("Patient").search(identifier=f"{_SYSTEM}|once")
    first, created = query.get_or_create(_patient(client, "once"))
    second, again = query.get_or_create(_patient(client, "once"))
    assert (created, again) == (True, False)
    assert first.id == second.id
    updated, created = query.update(_patient(client, "once", gender="male"))
    assert not created
    assert (updated.id, updated.gender) == (first.id, "male")
    _, status = query.delete()
    assert status == 204
    assert query.fetch() == []


def test_faults_come_as_outcomes(client: SyncFHIRClient):
    with pytest.raises(OperationOutcome) as caught:
        client.resource("Patient", gender="purple").save()
    assert caught.value.resource["issue"][0]["expression"] == ["Patient.gender"]
    with pytest.raises(OperationOutcome):
        client.resources("Patient").search(birthdate="yesterday").fetch()


def test_operations_and_validation(client: SyncFHIRClient):
    patient = _patient(client, "operation")
    patient.save()
    everything = patient.execute("$everything", method="get")
    assert [item.resource.id for item in everything.entry] == [patient.id]
    meta = client.execute(f"Patient/{patient.id}/$meta", method="get")
    assert meta["parameter"][0]["valueMeta"]["versionId"] == "1"


def test_the_asynchronous_client_runs_in_parallel(server: ServerProcess):
    async def work() -> list[str]:
        client = AsyncFHIRClient(server.base, authorization=authorization())
        resources = [client.resource("Basic", code={"text": f"SYNTHETIC {number}"}) for number in range(20)]
        await asyncio.gather(*(resource.save() for resource in resources))
        return [item.id async for item in client.resources("Basic").limit(7)]

    assert len(set(asyncio.run(work()))) == 20
