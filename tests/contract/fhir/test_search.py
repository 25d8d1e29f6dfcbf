"""Search: every kind of parameter, modifier, chain and page, on resources of the main types."""
# ruff: noqa: E501 - one resource a line reads better

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.fhir.api import Api, observation

UCUM = "http://unitsofmeasure.org"


def quantity(value: float, code: str = "mm") -> dict[str, Any]:
    return {"value": value, "unit": code, "system": UCUM, "code": code}


RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "Organization", "id": "org", "name": "Spine Clinic", "partOf": {"reference": "Organization/parent"}},
    {"resourceType": "Organization", "id": "parent", "name": "University Hospital"},
    {"resourceType": "Practitioner", "id": "dr", "name": [{"family": "Wáng", "given": ["Lì"]}]},
    {"resourceType": "PractitionerRole", "id": "role", "practitioner": {"reference": "Practitioner/dr"},
     "organization": {"reference": "Organization/org"}},
    {"resourceType": "Patient", "id": "p1", "active": True, "gender": "female", "birthDate": "1980-02",
     "identifier": [{"system": "urn:mrn", "value": "Ab-1", "type": {"coding": [{"system": "urn:v2", "code": "MR"}]}}],
     "name": [{"family": "Müller", "given": ["Anna Maria"]}], "telecom": [{"system": "phone", "value": "555"},
                                                                         {"system": "email", "value": "a@example.org"}],
     "generalPractitioner": [{"reference": "Practitioner/dr"}], "managingOrganization": {"reference": "Organization/org"},
     "meta": {"tag": [{"system": "urn:tag", "code": "SYNTHETIC"}], "profile": ["http://e.org/profile"],
              "security": [{"system": "urn:sec", "code": "R"}], "source": "urn:source"}},
    {"resourceType": "Patient", "id": "p2", "gender": "male", "birthDate": "1980-03-15", "deceasedBoolean": True,
     "identifier": [{"system": "urn:mrn", "value": "ab-1"}], "name": [{"family": "Mueller-Lüdenscheid"}],
     "generalPractitioner": [{"identifier": {"system": "urn:gp", "value": "77"}}]},
    {"resourceType": "Patient", "id": "p3", "name": [{"text": "Zoë, a|b$c"}], "deceasedDateTime": "2025-01-01"},
    {**observation("Patient/p1", "F13", "2026-01-05T10:00:00Z"), "id": "o1", "valueQuantity": quantity(6.5),
     "identifier": [{"system": "urn:o", "value": "1"}], "component": [
         {"code": {"coding": [{"system": "urn:c", "code": "confidence"}]}, "valueQuantity": quantity(0.9, "1")}]},
    {**observation("Patient/p1", "F13", "2026-02-05"), "id": "o2", "valueQuantity": quantity(7.0), "status": "final",
     "derivedFrom": [{"reference": "ImagingStudy/s1"}]},
    {**observation("Patient/p2", "F06", "2026"), "id": "o3", "hasMember": [{"reference": "Observation/o1"}],
     "valueCodeableConcept": {"coding": [{"system": "urn:grade", "code": "IV"}], "text": "Grade Four"}},
    {"resourceType": "Observation", "id": "o4", "status": "final", "code": {"coding": [{"system": "urn:x", "code": "F13"}]},
     "subject": {"reference": "Patient/p2"}, "effectivePeriod": {"start": "2025-06-01"}, "valueString": "Text Value"},
    {"resourceType": "Observation", "id": "o5", "status": "final", "code": {"text": "no coding"}},
    {"resourceType": "ImagingStudy", "id": "s1", "status": "available", "subject": {"reference": "Patient/p1"},
     "started": "2026-01-05T09:00:00+08:00", "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
     "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "MR"}],
     "series": [{"uid": "1.2.3.4", "modality": {"code": "MR"}}]},
    {"resourceType": "Encounter", "id": "e1", "status": "in-progress", "class": {"code": "AMB"},
     "subject": {"reference": "Patient/p1"}, "period": {"start": "2026-01-01", "end": "2026-01-10"}},
    {"resourceType": "RiskAssessment", "id": "r1", "status": "final", "subject": {"reference": "Patient/p1"},
     "prediction": [{"probabilityDecimal": 0.25}]},
    {"resourceType": "Task", "id": "t1", "status": "requested", "intent": "order", "authoredOn": "2026-01-05",
     "focus": {"reference": "ImagingStudy/s1"}, "for": {"reference": "Patient/p1"}},
    {"resourceType": "Library", "id": "l1", "status": "active", "type": {"text": "rules"},
     "url": "http://e.org/Library/rules", "version": "2026.11", "title": "Rule base"},
    {"resourceType": "GuidanceResponse", "id": "g1", "status": "success", "moduleCanonical":
     "http://e.org/Library/rules|2026.11", "subject": {"reference": "Patient/p1"}},
    {"resourceType": "CarePlan", "id": "c1", "status": "draft", "intent": "option", "subject": {"reference": "Patient/p1"},
     "instantiatesCanonical": ["http://e.org/PlanDefinition/x|1"], "period": {"start": "2026-01-01"}},
    {"resourceType": "DocumentReference", "id": "d1", "status": "current", "content": [{"attachment": {"title": "x"}}],
     "relatesTo": [{"code": "replaces", "target": {"reference": "DocumentReference/d0"}}]},
]  # fmt: skip


CASES = [
    # token
    ("Patient?gender=female", "p1"),
    ("Patient?gender=http://hl7.org/fhir/administrative-gender|female", "p1"),
    ("Patient?gender=female,male", "p1 p2"),
    ("Patient?gender:not=female", "p2 p3"),
    ("Patient?gender:missing=true", "p3"),
    ("Patient?gender:missing=false", "p1 p2"),
    ("Patient?active=true", "p1"),
    ("Patient?identifier=Ab-1", "p1"),
    ("Patient?identifier=urn:mrn|ab-1", "p2"),
    ("Patient?identifier=urn:mrn|", "p1 p2"),
    ("Patient?identifier=|Ab-1", ""),
    ("Patient?identifier:of-type=urn:v2|MR|Ab-1", "p1"),
    ("Patient?telecom=a@example.org", "p1"),
    ("Patient?email=a@example.org", "p1"),
    ("Patient?phone=a@example.org", ""),
    ("Patient?deceased=true", "p2 p3"),
    ("Patient?deceased=false", "p1"),
    ("Observation?code=F13", "o1 o2 o4"),
    ("Observation?code=f13", "o1 o2 o4"),
    ("Observation?code=urn:x|F13", "o4"),
    ("Observation?code=urn:x|", "o4"),
    ("Observation?combo-code=confidence", "o1"),
    ("Observation?value-concept=IV", "o3"),
    ("ImagingStudy?modality=MR", "s1"),
    ("ImagingStudy?identifier=urn:dicom:uid|urn:oid:1.2.3", "s1"),
    ("ImagingStudy?series=1.2.3.4", "s1"),
    # string
    ("Patient?name=mull", "p1"),
    ("Patient?name=MÜLL", "p1"),
    ("Patient?family=mue", "p2"),
    ("Patient?given=maria", ""),
    ("Patient?given:contains=maria", "p1"),
    ("Patient?family:exact=Müller", "p1"),
    ("Patient?family:exact=Muller", ""),
    ("Patient?name=zoe%5C, a%5C|b%5C$c", "p3"),
    ("Patient?name=mull,zoe", "p1 p3"),
    ("Organization?name=spine", "org"),
    ("Observation?value-string=text", "o4"),
    ("Observation?value-string=grade", "o3"),
    # reference
    ("Observation?subject=Patient/p1", "o1 o2"),
    ("Observation?patient=p1", "o1 o2"),
    ("Observation?subject:Patient=p1", "o1 o2"),
    ("Observation?subject:Group=p1", ""),
    ("Observation?patient=Group/p1", ""),
    ("Observation?subject=http://127.0.0.1:8000/fhir/Patient/p1", "o1 o2"),
    ("Observation?derived-from=s1", "o2"),
    ("Patient?general-practitioner:identifier=urn:gp|77", "p2"),
    ("Task?focus=ImagingStudy/s1", "t1"),
    ("GuidanceResponse?patient=p1&_id=g1", "g1"),
    ("CarePlan?instantiates-canonical=http://e.org/PlanDefinition/x", "c1"),
    # date: eq contains, gt/lt reach beyond, sa/eb lie apart, periods are open-ended
    ("Observation?date=2026-01-05", "o1"),
    ("Observation?date=2026-01", "o1"),
    ("Observation?date=2026", "o1 o2 o3"),
    ("Observation?date=ne2026", "o4"),
    ("Observation?date=ge2026-02-05", "o2 o3 o4"),
    ("Observation?date=gt2026-02-05", "o3 o4"),
    ("Observation?date=sa2026-01-31", "o2"),
    ("Observation?date=lt2026-01-05", "o3 o4"),
    ("Observation?date=le2026-01-05", "o1 o3 o4"),
    ("Observation?date=eb2026-01-06", "o1"),
    ("Observation?date=ge2026-01-01&date=le2026-01-31", "o1 o3 o4"),
    ("Observation?date=2026-01-05T10:00:00Z", "o1"),
    ("Observation?date=2026-01-05T18:00:00%2B08:00", "o1"),
    ("Observation?date:missing=true", "o5"),
    ("Observation?date=2025,2026-02", "o2"),
    ("Patient?birthdate=1980-02", "p1"),
    ("Patient?birthdate=1980", "p1 p2"),
    ("Patient?birthdate=ge1980-03", "p2"),
    ("Patient?death-date=2025", "p3"),
    ("Encounter?date=2026-01-05", ""),
    ("Encounter?date=ap2026-01-05", "e1"),
    ("Encounter?date=ge2026-01-05&date=le2026-01-05", "e1"),
    ("ImagingStudy?started=2026-01-05T01:00:00Z", "s1"),
    # quantity and number
    ("Observation?value-quantity=6.5", "o1"),
    ("Observation?value-quantity=6.5|http://unitsofmeasure.org|mm", "o1"),
    ("Observation?value-quantity=6.5||mm", "o1"),
    ("Observation?value-quantity=6.5|http://unitsofmeasure.org|cm", ""),
    ("Observation?value-quantity=7", "o1 o2"),
    ("Observation?value-quantity=7.0", "o2"),
    ("Observation?value-quantity=gt6.5", "o2"),
    ("Observation?value-quantity=ge6.5", "o1 o2"),
    ("Observation?value-quantity=lt7", "o1"),
    ("Observation?value-quantity=ap7", "o1 o2"),
    ("Observation?combo-value-quantity=0.9", "o1"),
    ("RiskAssessment?probability=0.25", "r1"),
    ("RiskAssessment?probability=gt0.3", ""),
    # uri
    ("Library?url=http://e.org/Library/rules", "l1"),
    ("Library?url=http://e.org/Library", ""),
    # composite
    ("Observation?code-value-quantity=F13$gt6.6", "o2"),
    ("Observation?code-value-quantity=https://foramen.example/fhir/CodeSystem/finding|F13$6.5|http://unitsofmeasure.org|mm", "o1"),
    ("Observation?code-value-concept=F06$IV", "o3"),
    ("Observation?code-value-concept=F13$IV", ""),
    ("Observation?component-code-value-quantity=confidence$ge0.9", "o1"),
    ("Observation?combo-code-value-quantity=confidence$lt0.9", ""),
    ("DocumentReference?relationship=replaces$DocumentReference/d0", "d1"),
    # common
    ("Patient?_id=p1,p3", "p1 p3"),
    ("Patient?_tag=urn:tag|SYNTHETIC", "p1"),
    ("Patient?_security=R", "p1"),
    ("Patient?_profile=http://e.org/profile", "p1"),
    ("Patient?_source=urn:source", "p1"),
    ("Patient?_lastUpdated=gt2020", "p1 p2 p3"),
    ("Patient?_lastUpdated=lt2020", ""),
    # conjunctions
    ("Observation?patient=p1&code=F13&date=ge2026-02", "o2"),
    ("Observation?patient=p1&code=F13&status=final", "o2"),
    ("Observation?patient=p1,p2&code=F06", "o3"),
    ("Patient?name=m&gender=male", "p2"),
    # chains
    ("Observation?patient.name=mull", "o1 o2"),
    ("Observation?subject:Patient.gender=male", "o3 o4"),
    ("Observation?patient.general-practitioner:Practitioner.name=wang", "o1 o2"),
    ("Observation?patient.organization.partof.name=university", "o1 o2"),
    ("Observation?patient.identifier=urn:mrn|Ab-1&code=F13", "o1 o2"),
    ("Observation?patient.birthdate=ge1980-03", "o3 o4"),
    ("Observation?has-member.value-quantity=6.5", "o3"),
    ("Patient?_has:Observation:patient:code=F06", "p2"),
    ("Patient?_has:Observation:patient:value-quantity=gt6.9", "p1"),
    ("Patient?_has:Observation:patient:_has:Observation:has-member:code=F06", "p1"),
    ("Patient?_has:Observation:patient:derived-from.modality=MR", "p1"),
    ("Practitioner?_has:PractitionerRole:practitioner:organization.name=spine", "dr"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), CASES)
async def test_matches(found: Api, query: str, expected: str) -> None:
    assert sorted(await found.ids(query)) == sorted(expected.split())


@pytest.mark.parametrize(("query", "expected"), CASES)
async def test_count_agrees(found: Api, query: str, expected: str) -> None:
    response = await found.get(f"/fhir/{query}&_summary=count")
    assert response.json()["total"] == len(expected.split())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Observation?_sort=-date", "o2 o1 o3 o4 o5"),
        ("Observation?_sort=date", "o5 o4 o3 o1 o2"),
        ("Patient?_sort=family&family:missing=false", "p2 p1"),
        ("Patient?_sort=birthdate", "p3 p1 p2"),
        ("Patient?_sort=-birthdate", "p2 p1 p3"),
        ("Patient?_sort=_id", "p1 p2 p3"),
        ("Patient?_sort=-_id", "p3 p2 p1"),
        ("Patient?_sort=_lastUpdated", "p1 p2 p3"),
        ("Patient?_sort=-_lastUpdated", "p3 p2 p1"),
        ("Observation?_sort=-value-quantity&code=F13", "o2 o1 o4"),
        ("Observation?_sort=value-quantity,-_id&value-quantity:missing=true", "o5 o4 o3"),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 50])
async def test_order_is_the_same_whatever_the_page_size(found: Api, query: str, expected: str, count: int) -> None:
    assert await found.ids(f"{query}&_count={count}") == expected.split()


async def test_include_and_revinclude(found: Api) -> None:
    async def included(query: str) -> list[str]:
        bundle = (await found.get(f"/fhir/{query}")).json()
        entries = [e for e in bundle["entry"] if e["search"]["mode"] == "include"]
        return sorted(f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in entries)

    assert await included("Observation?_id=o2&_include=Observation:subject") == ["Patient/p1"]
    assert await included("Observation?_id=o2&_include=Observation:*") == ["ImagingStudy/s1", "Patient/p1"]
    assert await included("Observation?_id=o2&_include=Observation:subject:Group") == []
    assert await included("Patient?_id=p2&_revinclude=Observation:patient") == ["Observation/o3", "Observation/o4"]
    assert await included(
        "Observation?_id=o2&_include=Observation:subject&_include:iterate=Patient:organization"
        "&_include:iterate=Organization:partof"
    ) == ["Organization/org", "Organization/parent", "Patient/p1"]


async def test_totals(found: Api) -> None:
    assert "total" not in (await found.get("/fhir/Observation?_count=2")).json()
    assert (await found.get("/fhir/Observation?_count=2&_total=accurate")).json()["total"] == 5
    assert (await found.get("/fhir/Observation?_summary=count")).json().get("entry") is None
    assert (await found.get("/fhir/Observation?_count=0")).json()["total"] == 5
    assert (await found.get("/fhir/Observation?_count=0&_summary=false")).status_code == 200


async def test_post_search_is_the_same(found: Api) -> None:
    headers = {**found.headers, "content-type": "application/x-www-form-urlencoded"}
    response = await found.http.post("/fhir/Patient/_search", content="name=mull&gender=female", headers=headers)
    assert [e["resource"]["id"] for e in response.json()["entry"]] == ["p1"]


async def test_elements_and_summary(found: Api) -> None:
    (entry,) = (await found.get("/fhir/Patient?_id=p1&_elements=gender,birthDate")).json()["entry"]
    assert set(entry["resource"]) == {"resourceType", "id", "meta", "gender", "birthDate"}
    (entry,) = (await found.get("/fhir/Library?_id=l1&_summary=true")).json()["entry"]
    assert entry["resource"]["meta"]["tag"][0]["code"] == "SUBSETTED"


async def test_pages_are_stable_under_writes(found: Api) -> None:
    for number in range(6):
        await found.put_ok({**observation("Patient/page", "PAGE", f"2026-03-0{number + 1}"), "id": f"page{number}"})
    first = (await found.get("/fhir/Observation?code=PAGE&_count=2")).json()
    await found.put_ok({**observation("Patient/page", "PAGE", "2026-04-01"), "id": "newer"})
    await found.delete("/fhir/Observation/page4")
    url = next(link["url"] for link in first["link"] if link["relation"] == "next")
    seen = [e["resource"]["id"] for e in first["entry"]]
    while url:
        page = (await found.get(url)).json()
        seen += [e["resource"]["id"] for e in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert seen == ["page5", "page4", "page3", "page2", "page1", "page0"]
