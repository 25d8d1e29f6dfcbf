"""`$lastn`: the newest of each code. All data SYNTHETIC. https://hl7.org/fhir/R4/observation-operation-lastn.html"""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.fhir.api import Api, observation, patient_resource, refused

_CATEGORIES = "http://terminology.hl7.org/CodeSystem/observation-category"
_CATEGORY = {"coding": [{"system": _CATEGORIES, "code": "vital-signs"}]}


@pytest.fixture
async def vitals(api: Api) -> Api:
    for patient in ("la1", "la2"):
        await api.put_ok({**patient_resource(), "id": patient})
        for code in ("A", "B", "C"):
            for day in range(1, 6):
                resource = observation(f"Patient/{patient}", code, f"2026-02-{day:02}T08:00:00Z")
                resource |= {"id": f"{patient}-{code}{day}", "category": [_CATEGORY] if code != "C" else []}
                await api.put_ok({key: value for key, value in resource.items() if value})
    await api.put_ok({**_text("la1", "2026-03-01"), "id": "la1-t1"})
    await api.put_ok({**_text("la1", "2026-03-02"), "id": "la1-t2"})
    return api


def _text(patient: str, date: str) -> dict[str, Any]:
    return {**observation(f"Patient/{patient}", date=date), "code": {"text": "SYNTHETIC"}, "category": [_CATEGORY]}


async def _ids(api: Api, query: str) -> list[str]:
    response = await api.get(f"/fhir/Observation/$lastn?{query}")
    assert response.status_code == 200, response.text
    bundle = response.json()
    assert bundle["total"] == len(bundle.get("entry", []))
    return [item["resource"]["id"] for item in bundle.get("entry", [])]


async def test_the_newest_of_each_code(vitals: Api):
    assert sorted(await _ids(vitals, "patient=la1&category=vital-signs")) == ["la1-A5", "la1-B5", "la1-t2"]
    two = await _ids(vitals, "max=2&subject=Patient/la1&category=vital-signs")
    assert sorted(two) == ["la1-A4", "la1-A5", "la1-B4", "la1-B5", "la1-t1", "la1-t2"]
    assert two.index("la1-A5") == two.index("la1-A4") - 1  # Groups stay together, newest first.
    assert await _ids(vitals, "max=3&patient=la1&code=C&date=lt2026-02-04") == ["la1-C3", "la1-C2", "la1-C1"]
    assert await _ids(vitals, "patient=none&category=vital-signs") == []


async def test_search_parameters_of_every_kind_narrow_it(vitals: Api):
    assert len(await _ids(vitals, "max=9&patient=la1&category=vital-signs&patient.birthdate=1980-02-29")) == 12
    assert await _ids(vitals, "patient=la1&code:not=A&category=vital-signs&date=eb2026-02-20") == ["la1-B5"]
    contained = {"system": "https://foramen.example/fhir/CodeSystem/finding", "concept": [{"code": "A"}, {"code": "C"}]}
    url = "https://foramen.example/fhir/ValueSet/SYNTHETIC"
    value_set = {"resourceType": "ValueSet", "status": "active", "url": url, "compose": {"include": [contained]}}
    await vitals.create(value_set)
    assert sorted(await _ids(vitals, f"patient=la1&code:in={url}")) == ["la1-A5", "la1-C5"]


async def test_only_what_the_caller_may_see(vitals: Api):
    api = vitals.as_("patient/Observation.rs", patient="la2")
    both = "max=1&patient=la1,la2&code=A"
    assert await _ids(api, both) == ["la2-A5"]
    assert await _ids(vitals, both) in (["la1-A5"], ["la2-A5"])
    refused(await vitals.as_("user/Patient.rs").get(f"/fhir/Observation/$lastn?{both}"), 403, "forbidden")


async def test_by_post(vitals: Api):
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "max", "valuePositiveInt": 2},
            {"name": "patient", "valueString": "la2"},
            {"name": "code", "valueString": "B"},
        ],
    }
    response = await vitals.post("/fhir/Observation/$lastn", body)
    assert [item["resource"]["id"] for item in response.json()["entry"]] == ["la2-B5", "la2-B4"]


async def test_refusals(module_api: Api):
    path = "/fhir/Observation/$lastn"
    refused(await module_api.get(f"{path}?category=vital-signs"), 400, "required")
    refused(await module_api.get(f"{path}?patient=la1"), 400, "required")
    refused(await module_api.get(f"{path}?patient=la1&code=A&max=0"), 400, "value")
    refused(await module_api.get(f"{path}?patient=la1&code=A&max=1&max=2"), 400, "value")
    refused(await module_api.get(f"{path}?patient=la1&code=A&_sort=date"), 400, "not-supported")
    refused(await module_api.get(f"{path}?patient=la1&code=A&colour=red"), 400, "not-supported")
    refused(await module_api.get("/fhir/Patient/$lastn?patient=la1&code=A"), 404, "not-found")
