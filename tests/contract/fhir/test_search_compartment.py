"""Compartment search: what belongs to a patient, an encounter, a practitioner; under access."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fhir_server.access.compartments import compartment
from tests.contract.fhir.api import Api, observation, refused

E1 = {"encounter": {"reference": "Encounter/e1"}}
ENCOUNTER = {"resourceType": "Encounter", "status": "planned", "class": {"code": "AMB"}}
RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "Patient", "id": "p1"},
    {"resourceType": "Patient", "id": "p2"},
    {"resourceType": "Practitioner", "id": "d1"},
    {**ENCOUNTER, "id": "e1", "subject": {"reference": "Patient/p1"}},
    {**ENCOUNTER, "id": "e2", "partOf": {"reference": "Encounter/e1"}},
    {**observation("Patient/p1"), "id": "o1", **E1, "performer": [{"reference": "Practitioner/d1"}]},
    {**observation("Patient/p1", code="F02", date="2026-02-01"), "id": "o2"},
    {**observation("Patient/p2"), "id": "o3", **E1},
    {"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/p1"}, **E1},
    {"resourceType": "Organization", "id": "org", "name": "SYNTHETIC"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def record(module_api: Api) -> AsyncIterator[Api]:
    for resource in RESOURCES:
        await module_api.put_ok(resource)
    yield module_api


def names(bundle: dict[str, Any]) -> set[str]:
    """The matches; a patient's compartment also holds the AuditEvents about them, which grow with every call."""
    found = {f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in bundle.get("entry", [])}
    return {name for name in found if not name.startswith("AuditEvent/")}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Patient/p1/Observation", {"Observation/o1", "Observation/o2"}),
        ("Patient/p1/Observation?code=F01", {"Observation/o1"}),
        ("Patient/p1/Observation?encounter.class=AMB", {"Observation/o1"}),
        ("Patient/p2/Observation", {"Observation/o3"}),
        ("Patient/p1/Patient", {"Patient/p1"}),
        ("Patient/none/Observation", set()),
        ("Patient/p1/*", {"Patient/p1", "Encounter/e1", "Observation/o1", "Observation/o2", "Condition/c1"}),
        ("Patient/p1/*?_type=Condition,Encounter", {"Encounter/e1", "Condition/c1"}),
        ("Patient/p1/*?_id=o2", {"Observation/o2"}),
        ("Encounter/e1/Observation", {"Observation/o1", "Observation/o3"}),
        ("Encounter/e1/Encounter", {"Encounter/e1"}),
        ("Encounter/e1/*", {"Encounter/e1", "Observation/o1", "Observation/o3", "Condition/c1"}),
        ("Practitioner/d1/Observation", {"Observation/o1"}),
    ],
)
async def test_members(record: Api, path: str, expected: set[str]) -> None:
    response = await record.get(f"/fhir/{path}")
    assert response.status_code == 200, response.text
    bundle = response.json()
    assert names(bundle) == expected
    assert next(link["url"] for link in bundle["link"] if link["relation"] == "self").startswith(
        f"http://127.0.0.1:8000/fhir/{path.partition('?')[0]}"
    )


async def test_post_says_the_same(record: Api) -> None:
    sent = await record.send(
        "POST", "/fhir/Patient/p1/Observation/_search", b"code=F02", content_type="application/x-www-form-urlencoded"
    )
    assert names(sent.json()) == {"Observation/o2"}


async def test_pages_of_a_compartment_can_be_followed(record: Api) -> None:
    found: list[str] = []
    url: str | None = "/fhir/Patient/p1/*?_count=2"
    while url is not None:
        bundle = (await record.get(url)).json()
        found += sorted(names(bundle))
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
    assert sorted(found) == ["Condition/c1", "Encounter/e1", "Observation/o1", "Observation/o2", "Patient/p1"]


async def test_access_bounds_the_compartment(record: Api) -> None:
    own = record.as_("patient/*.rs", patient="p2")
    assert names((await own.get("/fhir/Encounter/e1/Observation")).json()) == {"Observation/o3"}
    assert names((await own.get("/fhir/Patient/p1/*")).json()) == set()
    assert names((await own.get("/fhir/Patient/p1/Observation")).json()) == set()
    some = record.as_("system/Observation.rs")
    refused(await some.get("/fhir/Patient/p1/Condition"), 403, "forbidden")
    assert names((await some.get("/fhir/Patient/p1/*")).json()) == {"Observation/o1", "Observation/o2"}
    refused(await some.get("/fhir/Patient/p1/*?_type=Condition"), 403, "forbidden")
    refused(await record.as_("openid").get("/fhir/Patient/p1/*"), 403, "forbidden")
    assert (await record.http.get("/fhir/Patient/p1/*")).status_code == 401


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("Patient/p1/Organization", 404, "not-found"),
        ("Organization/org/Observation", 404, "not-found"),
        ("Patient/p1/Nonsense", 404, "not-found"),
        ("Patient/p1/*?code=F01", 400, "not-supported"),
        ("Patient/p1/Observation?date=nonsense", 400, "value"),
        ("Patient/p1/*?_type=Nonsense", 400, "value"),
    ],
)
async def test_refusals(record: Api, path: str, status: int, code: str) -> None:
    refused(await record.get(f"/fhir/{path}", prefer="handling=strict"), status, code)


async def test_a_write_is_not_a_search(record: Api) -> None:
    response = await record.delete("/fhir/Patient/p1/Observation")
    refused(response, 405, "not-supported")


def test_patient_compartment_has_the_patient_alone() -> None:
    assert compartment("Patient")["Patient"] == ["{def}"]
    assert set(compartment("Patient")["Observation"]) == {"performer", "subject"}
