"""`$everything`: the whole record, what supports it, nothing else. All data SYNTHETIC.

https://hl7.org/fhir/R4/patient-operation-everything.html
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.fhir.api import Api, entry, observation, patient_resource, refused

pytestmark = pytest.mark.requirement("https://hl7.org/fhir/R4/patient-operation-everything.html")


async def _record(api: Api, number: int, observations: int = 5) -> None:
    """A synthetic record: encounter, observations, report, provenance, and the people and places behind them."""
    patient, encounter = f"Patient/ev{number}", f"Encounter/ev{number}"
    resources: list[dict[str, Any]] = [
        {**patient_resource(), "id": f"ev{number}", "generalPractitioner": [{"reference": "Practitioner/ev-gp"}]},
        {
            "resourceType": "Encounter",
            "id": f"ev{number}",
            "status": "finished",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
            "subject": {"reference": patient},
            "location": [{"location": {"reference": "Location/ev-room"}}],
        },
        {
            "resourceType": "Provenance",
            "id": f"ev{number}",
            "recorded": "2026-01-05T10:00:00Z",
            "target": [{"reference": f"Observation/ev{number}-0"}],
            "agent": [{"who": {"reference": "Practitioner/ev-surgeon"}}],
        },
    ]
    for place in range(observations):
        resources.append(
            {
                **observation(patient, f"F{place:02}", f"2026-01-{place % 27 + 1:02}T10:00:00Z"),
                "id": f"ev{number}-{place}",
                "performer": [{"reference": "Practitioner/ev-surgeon"}],
                **({"encounter": {"reference": encounter}} if place < 2 else {}),
            }
        )
    shared = [
        {"resourceType": "Practitioner", "id": "ev-gp", "name": [{"text": "SYNTHETIC GP"}]},
        {"resourceType": "Practitioner", "id": "ev-surgeon", "name": [{"text": "SYNTHETIC surgeon"}]},
        {"resourceType": "Organization", "id": "ev-clinic", "name": "SYNTHETIC clinic"},
        {
            "resourceType": "Location",
            "id": "ev-room",
            "name": "SYNTHETIC room",
            "managingOrganization": {"reference": "Organization/ev-clinic"},
        },
    ]
    entries = [entry("PUT", f"{r['resourceType']}/{r['id']}", r) for r in [*shared, *resources]]
    response = await api.transaction(*entries)
    assert response.status_code == 200, response.text


async def _gather(api: Api, path: str) -> list[tuple[str, str]]:
    """(mode, reference) over all pages."""
    found: list[tuple[str, str]] = []
    url: str | None = f"/fhir/{path}"
    while url is not None:
        response = await api.get(url)
        assert response.status_code == 200, response.text
        bundle = response.json()
        assert bundle["type"] == "searchset"
        for item in bundle.get("entry", []):
            resource = item["resource"]
            found.append((item["search"]["mode"], f"{resource['resourceType']}/{resource['id']}"))
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
    return found


async def test_the_record_and_what_supports_it_come_once(module_api: Api):
    await _record(module_api, 1)
    await _record(module_api, 2)
    found = await _gather(module_api, "Patient/ev1/$everything")
    assert len(found) == len(set(found))
    matches = {reference for mode, reference in found if mode == "match"}
    assert matches == {"Patient/ev1", "Encounter/ev1", *(f"Observation/ev1-{n}" for n in range(5))}
    included = {reference for mode, reference in found if mode == "include"}
    assert included == {
        "Practitioner/ev-gp",
        "Practitioner/ev-surgeon",
        "Location/ev-room",
        "Organization/ev-clinic",
        "Provenance/ev1",
    }


@pytest.mark.parametrize("count", [1, 2, 3, 7])
async def test_pages_hold_the_same_as_the_whole(module_api: Api, count: int):
    await _record(module_api, 3)
    whole = await _gather(module_api, "Patient/ev3/$everything")
    pages = await _gather(module_api, f"Patient/ev3/$everything?_count={count}")
    assert sorted(pages) == sorted(whole)


async def test_pages_can_be_followed_while_others_write(module_api: Api):
    await _record(module_api, 4, observations=12)
    found: list[str] = []
    url: str | None = "/fhir/Patient/ev4/$everything?_count=2&_type=Observation"
    step = 0
    while url is not None:
        bundle = (await module_api.get(url)).json()
        found += [item["resource"]["id"] for item in bundle.get("entry", [])]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
        # Dates move forwards and backwards: what an order by date would lose or repeat.
        for place in (step, 11 - step):
            moved = observation("Patient/ev4", "F99", f"20{10 + 20 * (step % 2)}-01-01T10:00:00Z")
            await module_api.put_ok({**moved, "id": f"ev4-{place}"})
        step = min(step + 1, 11)
    assert sorted(found) == sorted(f"ev4-{place}" for place in range(12))


async def test_a_large_record_is_one_streamed_bundle(module_api: Api):
    await _record(module_api, 5, observations=1300)
    response = await module_api.get("/fhir/Patient/ev5/$everything")
    bundle = response.json()
    references = [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in bundle["entry"]]
    assert len(references) == len(set(references))
    assert sum(reference.startswith("Observation/") for reference in references) == 1300
    assert [link["relation"] for link in bundle["link"]] == ["self"]


async def test_filters(module_api: Api):
    await _record(module_api, 6)
    in_january = await _gather(module_api, "Patient/ev6/$everything?start=2026-01-02&end=2026-01-03&_type=Observation")
    assert sorted(in_january) == [("match", "Observation/ev6-1"), ("match", "Observation/ev6-2")]
    people = await _gather(module_api, "Patient/ev6/$everything?_type=Practitioner")
    assert sorted(people) == [("include", "Practitioner/ev-gp"), ("include", "Practitioner/ev-surgeon")]
    seen = (await module_api.get("/fhir/Observation/ev6-4")).json()["meta"]["lastUpdated"]
    await asyncio.sleep(0.01)
    changed = {**observation("Patient/ev6", "F77"), "id": "ev6-3"}
    await module_api.put_ok(changed)
    since = await _gather(module_api, f"Patient/ev6/$everything?_type=Observation,Encounter&_since={seen}")
    assert ("match", "Observation/ev6-3") in since
    later = (await module_api.get("/fhir/Observation/ev6-3")).json()["meta"]["lastUpdated"]
    assert await _gather(module_api, f"Patient/ev6/$everything?_type=Observation&_since={later}") == [
        ("match", "Observation/ev6-3")
    ]


async def test_only_what_the_scopes_grant(module_api: Api):
    await _record(module_api, 7)
    api = module_api.as_("patient/Patient.rs patient/Observation.rs", patient="ev7")
    found = await _gather(api, "Patient/ev7/$everything")
    assert {reference.split("/")[0] for _, reference in found} == {"Patient", "Observation"}
    refused(await api.get("/fhir/Patient/ev6/$everything"), 404, "not-found")
    refused(await module_api.as_("user/Observation.rs").get("/fhir/Patient/ev7/$everything"), 403, "forbidden")
    by_token = await _gather(api, "Patient/$everything")
    assert by_token == found
    refused(await module_api.get("/fhir/Patient/$everything"), 400, "too-costly")


async def test_another_patients_resources_never_come_along(module_api: Api):
    await _record(module_api, 8)
    await _record(module_api, 9)
    foreign = {**observation("Patient/ev8", "F50"), "id": "ev8-x", "focus": [{"reference": "Patient/ev9"}]}
    foreign["hasMember"] = [{"reference": "Observation/ev9-0"}]
    await module_api.put_ok(foreign)
    found = {reference for _, reference in await _gather(module_api, "Patient/ev8/$everything")}
    assert "Observation/ev8-x" in found
    assert not {reference for reference in found if "ev9" in reference}


async def test_encounter(module_api: Api):
    await _record(module_api, 10)
    found = await _gather(module_api, "Encounter/ev10/$everything")
    matches = {reference for mode, reference in found if mode == "match"}
    assert matches == {"Encounter/ev10", "Observation/ev10-0", "Observation/ev10-1"}
    included = {reference for mode, reference in found if mode == "include"}
    assert {"Patient/ev10", "Practitioner/ev-surgeon", "Location/ev-room"} <= included


async def test_audit_events_come_when_asked_for(module_api: Api):
    await _record(module_api, 11)
    await module_api.get("/fhir/Patient/ev11")
    found = await _gather(module_api, "Patient/ev11/$everything?_type=AuditEvent")
    assert found
    assert {reference.split("/")[0] for _, reference in found} == {"AuditEvent"}


async def test_refusals(module_api: Api):
    refused(await module_api.get("/fhir/Patient/none/$everything"), 404, "not-found")
    await _record(module_api, 12)
    path = "/fhir/Patient/ev12/$everything"
    refused(await module_api.get(f"{path}?_type=Nonsense"), 400, "value")
    refused(await module_api.get(f"{path}?start=yesterday"), 400, "value")
    refused(await module_api.get(f"{path}?_count=0"), 400, "value")
    refused(await module_api.get(f"{path}?_cursor=x.y"), 400, "value")
    refused(await module_api.get(f"{path}?colour=red"), 400, "not-supported")
    await module_api.delete("/fhir/Patient/ev12")
    refused(await module_api.get(path), 410, "deleted")


async def test_by_post_with_parameters(module_api: Api):
    await _record(module_api, 13)
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "_type", "valueCode": "Encounter"},
            {"name": "_type", "valueCode": "Patient"},
            {"name": "_count", "valueInteger": 1},
        ],
    }
    response = await module_api.post("/fhir/Patient/ev13/$everything", body)
    first = response.json()
    assert [item["resource"]["resourceType"] for item in first["entry"]] == ["Encounter"]
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    second = (await module_api.get(following)).json()
    assert [item["resource"]["resourceType"] for item in second["entry"]] == ["Patient"]
