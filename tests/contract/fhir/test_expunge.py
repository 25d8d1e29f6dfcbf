"""`$expunge`: gone from every table, but for the AuditEvents that tell of it. All data SYNTHETIC."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from fhir_server.search.hashing import resource_key
from tests.contract.fhir.api import EVERYTHING, Api, observation, patient_resource, refused

_ADMIN = f"{EVERYTHING} foramen/admin"


def _body(**values: Any) -> dict[str, Any]:
    kinds = {bool: "valueBoolean", int: "valueInteger"}
    parameters = [{"name": name, kinds[type(value)]: value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": parameters}


async def _count(response: Any) -> int:
    assert response.status_code == 200, response.text
    (only,) = response.json()["parameter"]
    assert only["name"] == "count"
    return only["valueInteger"]


async def _traces(database_url: str, row: int) -> dict[str, int]:
    """How many entries each table of the schema has for a row number."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = 'fhir' AND column_name = 'row'"
        )
        return {
            name: count
            for (name,) in tables
            if (count := await connection.fetchval(f'SELECT count(*) FROM fhir."{name}" WHERE row = $1', row))  # noqa: S608
        }
    finally:
        await connection.close()


async def _row(database_url: str, reference: str) -> int:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval(
            "SELECT row FROM fhir.resource WHERE key = $1", resource_key(*reference.split("/"))
        )
    finally:
        await connection.close()


async def test_a_deleted_resource_leaves_nothing(api: Api, database_url: str):
    admin = api.as_(_ADMIN)
    await api.put_ok({**observation("Patient/p"), "id": "ex1", "valueQuantity": {"value": 4, "unit": "mm"}})
    await api.put_ok({**observation("Patient/p", "F02"), "id": "ex1", "note": [{"text": "SYNTHETIC"}]})
    row = await _row(database_url, "Observation/ex1")
    path = "/fhir/Observation/ex1/$expunge"
    assert await _count(await admin.post(path, _body(expungeDeletedResources=True))) == 0  # It is not deleted.
    assert (await api.get("/fhir/Observation/ex1")).status_code == 200
    await api.delete("/fhir/Observation/ex1")
    assert await _count(await admin.post(path, _body(expungeDeletedResources=True))) == 3
    assert await _traces(database_url, row) == {}
    refused(await api.get("/fhir/Observation/ex1"), 404, "not-found")
    refused(await api.get("/fhir/Observation/ex1/_history"), 404, "not-found")
    refused(await admin.post(path, _body(expungeDeletedResources=True)), 404, "not-found")
    created = await api.put("/fhir/Observation/ex1", {**observation("Patient/p"), "id": "ex1"})
    assert created.status_code == 201
    assert created.json()["meta"]["versionId"] == "1"


async def test_previous_versions(api: Api):
    admin = api.as_(_ADMIN)
    for family in ("SYNTHETIC-A", "SYNTHETIC-B", "SYNTHETIC-C"):
        await api.put_ok({**patient_resource(), "id": "ex2", "name": [{"family": family}]})
    path = "/fhir/Patient/ex2/$expunge"
    assert await _count(await admin.post(path, _body(expungePreviousVersions=True, limit=1))) == 1
    assert await _count(await admin.post(path, _body(expungePreviousVersions=True))) == 1
    refused(await api.get("/fhir/Patient/ex2/_history/1"), 404, "not-found")
    history = (await api.get("/fhir/Patient/ex2/_history")).json()
    assert [item["resource"]["meta"]["versionId"] for item in history["entry"]] == ["3"]
    assert await api.ids("Patient?family=SYNTHETIC-C") == ["ex2"]


async def test_a_whole_type_and_its_audit(api: Api):
    admin = api.as_(_ADMIN)
    for number in range(3):
        await api.put_ok({**patient_resource(), "id": f"ex3{number}"})
    await api.put_ok({**observation("Patient/ex30"), "id": "ex3"})
    for reference in ("Patient/ex30", "Patient/ex31", "Observation/ex3"):
        await api.delete(f"/fhir/{reference}")
    body = _body(expungeDeletedResources=True, expungePreviousVersions=True)
    response = await admin.post("/fhir/Patient/$expunge", body, traceparent=f"00-{'e' * 32}-{'1' * 16}-01")
    assert await _count(response) == 4
    assert (await api.get("/fhir/Patient/ex32")).status_code == 200
    refused(await api.get("/fhir/Observation/ex3"), 410, "deleted")
    events = [
        item["resource"]
        for item in (await api.get("/fhir/AuditEvent?_count=200")).json()["entry"]
        if any(entity.get("description") == "e" * 32 for entity in item["resource"]["entity"])
    ]
    assert len(events) == 1
    named = {entity["what"]["reference"] for entity in events[0]["entity"] if "what" in entity}
    assert {"Patient/ex30", "Patient/ex31"} <= named


@pytest.mark.parametrize("path", ["/fhir/AuditEvent/$expunge", "/fhir/AuditEvent/x/$expunge"])
async def test_audit_events_are_kept(module_api: Api, path: str):
    refused(await module_api.as_(_ADMIN).post(path, _body(expungeDeletedResources=True)), 405, "not-supported")


async def test_refusals(module_api: Api):
    admin = module_api.as_(_ADMIN)
    path = "/fhir/Patient/$expunge"
    refused(await module_api.post(path, _body(expungeDeletedResources=True)), 403, "forbidden")
    refused(await admin.post(path, _body(limit=5)), 400, "required")
    refused(await admin.post(path, _body(expungeDeletedResources=True, limit=0)), 400, "value")
    refused(await admin.post(path, _body(expungeEverything=True)), 400, "not-supported")
    refused(await admin.post("/fhir/Patient/none/$expunge", _body(expungeDeletedResources=True)), 404, "not-found")
