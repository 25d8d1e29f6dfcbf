"""Modifiers, units, composites of every kind of part, Lists, positions; and refusals that name the parameter."""
# ruff: noqa: E501 - one resource a line reads better

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.fhir.api import Api, observation, refused

UCUM = "http://unitsofmeasure.org"
TREE = "http://e.org/CodeSystem/discs"
SET = "http://e.org/ValueSet/moved"


def quantity(value: float, code: str, unit: str | None = None) -> dict[str, Any]:
    return {"value": value, "unit": unit or code, "system": UCUM, "code": code}


def coded(code: str, text: str = "", display: str = "") -> dict[str, Any]:
    coding = {"system": TREE, "code": code, **({"display": display} if display else {})}
    return {"coding": [coding], **({"text": text} if text else {})}


def condition(name: str, code: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Condition", "id": name, "subject": {"reference": "Patient/p1"}, "code": code, **more}


def measured(name: str, value: dict[str, Any], code: str = "F13") -> dict[str, Any]:
    return {**observation("Patient/p1", code), "id": name, **value}


RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "CodeSystem", "id": "discs", "url": TREE, "status": "active", "content": "complete", "hierarchyMeaning": "is-a",
     "concept": [{"code": "any", "display": "Any disc", "concept": [
         {"code": "herniated", "display": "Herniated", "concept": [{"code": "extruded"}, {"code": "protruded"}]}, {"code": "bulging"}]}]},
    {"resourceType": "ValueSet", "id": "moved", "url": SET, "status": "active", "compose": {"include": [
        {"system": TREE, "concept": [{"code": "extruded"}, {"code": "bulging"}]}]}},
    {"resourceType": "Patient", "id": "p1", "gender": "female", "identifier": [
        {"system": "urn:mrn", "value": "1", "type": {"text": "Chart Number", "coding": [{"system": "urn:v2", "code": "MR"}]}}]},
    {"resourceType": "Patient", "id": "p2"},
    condition("c1", coded("extruded", "Prolapsed disc", "Extrusion of disc"), clinicalStatus={"coding": [{"code": "active", "system": "http://terminology.hl7.org/CodeSystem/condition-clinical"}]}),
    condition("c2", coded("protruded", "Vorfall Höhe L5")),
    condition("c3", coded("bulging", "", "Bulge"), severity={"text": "Severe"}),
    condition("c4", {"text": "腰椎间盘突出"}),
    measured("q1", {"valueQuantity": quantity(5, "mm")}),
    measured("q2", {"valueQuantity": quantity(0.5, "cm")}),
    measured("q3", {"valueQuantity": quantity(5, "cm")}),
    measured("q4", {"valueQuantity": {"value": 5, "unit": "blocks"}}),
    measured("q5", {"valueQuantity": {**quantity(7, "mm"), "comparator": ">"}}),
    measured("q6", {"valueSampledData": {"origin": quantity(0, "mm"), "period": 10, "dimensions": 1, "data": "2 E 9.5 3"}}, "F99"),
    measured("q7", {"valueQuantity": quantity(37, "Cel")}, "T"),
    measured("q8", {"valueString": "Annular Fissure"}, "S"),
    {"resourceType": "MolecularSequence", "id": "m1", "coordinateSystem": 0, "referenceSeq": {
        "chromosome": {"coding": [{"system": "urn:chr", "code": "7"}]}, "genomeBuild": "GRCh37", "windowStart": 100, "windowEnd": 200}},
    {"resourceType": "MolecularSequence", "id": "m2", "coordinateSystem": 0, "referenceSeq": {
        "chromosome": {"coding": [{"system": "urn:chr", "code": "7"}]}, "genomeBuild": "GRCh37", "windowStart": 150, "windowEnd": 900}},
    {"resourceType": "Location", "id": "hospital", "name": "Hospital", "position": {"latitude": 48.137, "longitude": 11.575}},
    {"resourceType": "Location", "id": "ward", "name": "Ward", "partOf": {"reference": "Location/hospital"}},
    {"resourceType": "Location", "id": "bed", "name": "Bed", "partOf": {"reference": "Location/ward"}},
    {"resourceType": "Location", "id": "far", "name": "Far", "position": {"latitude": 52.52, "longitude": 13.405}},
    {"resourceType": "Encounter", "id": "e1", "status": "finished", "class": {"code": "IMP"}, "location": [{"location": {"reference": "Location/bed"}}]},
    {"resourceType": "Encounter", "id": "e2", "status": "finished", "class": {"code": "IMP"}, "location": [{"location": {"reference": "Location/hospital"}}]},
    {"resourceType": "Library", "id": "l1", "status": "active", "type": {"text": "x"}, "url": "http://e.org/lib/rules", "title": "Rule base"},
    {"resourceType": "Library", "id": "l2", "status": "active", "type": {"text": "x"}, "url": "http://e.org/library", "version": "2.1.0"},
    {"resourceType": "Library", "id": "l3", "status": "active", "type": {"text": "x"}, "url": "http://e.org/lib", "title": "All"},
    {"resourceType": "Library", "id": "l4", "status": "active", "type": {"text": "x"}, "url": "urn:oid:1.2.3"},
    {"resourceType": "CarePlan", "id": "cp1", "status": "draft", "intent": "option", "subject": {"reference": "Patient/p1"},
     "instantiatesCanonical": ["http://e.org/PlanDefinition/x|1.0.3"]},
    {"resourceType": "CarePlan", "id": "cp2", "status": "draft", "intent": "option", "subject": {"reference": "Patient/p1"},
     "instantiatesCanonical": ["http://e.org/PlanDefinition/x|2"]},
    {"resourceType": "PlanDefinition", "id": "x1", "status": "active", "url": "http://e.org/PlanDefinition/x", "version": "1.0.3", "title": "First"},
    {"resourceType": "PlanDefinition", "id": "x2", "status": "active", "url": "http://e.org/PlanDefinition/x", "version": "2", "title": "Second"},
    {"resourceType": "List", "id": "some", "status": "current", "mode": "working", "entry": [
        {"item": {"reference": "Condition/c1"}}, {"item": {"reference": "Condition/c3"}}, {"item": {"reference": "Patient/p1"}}]},
]  # fmt: skip


CASES = [
    # text of a code, its display, an identifier's type: starts with, without case and accents
    ("Condition?code:text=prolapsed", "c1"),
    ("Condition?code:text=EXTRUSION", "c1"),
    ("Condition?code:text=vorfall hohe", "c2"),
    ("Condition?code:text=bulge,vorfall", "c2 c3"),
    ("Condition?code:text=disc", ""),
    ("Condition?code:text=腰椎", "c4"),
    ("Condition?severity:text=sev", "c3"),
    ("Patient?identifier:text=chart", "p1"),
    # hierarchies and value sets
    (f"Condition?code:below={TREE}|herniated", "c1 c2"),
    (f"Condition?code:below={TREE}|any", "c1 c2 c3"),
    (f"Condition?code:below={TREE}|extruded", "c1"),
    (f"Condition?code:above={TREE}|extruded", "c1"),
    (f"Condition?code:below={TREE}|bulging,{TREE}|protruded", "c2 c3"),
    (f"Condition?code:in={SET}", "c1 c3"),
    ("Condition?code:in=ValueSet/moved", "c1 c3"),
    ("Condition?code:in=moved", "c1 c3"),
    (f"Condition?code:not-in={SET}", "c2 c4"),
    ("Condition?clinical-status:in=http://hl7.org/fhir/ValueSet/condition-clinical", "c1"),
    ("Patient?gender:in=http://hl7.org/fhir/ValueSet/administrative-gender", "p1"),
    ("Patient?gender:not-in=http://hl7.org/fhir/ValueSet/administrative-gender", "p2"),
    (f"Patient?_has:Condition:patient:code:in={SET}", "p1"),
    (f"Condition?code:not={TREE}|extruded", "c2 c3 c4"),
    ("Condition?severity:missing=false", "c3"),
    ("Condition?_lastUpdated:missing=false", "c1 c2 c3 c4"),
    ("Condition?_lastUpdated:missing=true", ""),
    # uris: at or below a path, or on the way to it
    ("Library?url:below=http://e.org/lib", "l1 l3"),
    ("Library?url:below=http://e.org/lib/", "l1"),
    ("Library?url:below=http://e.org", "l1 l2 l3"),
    ("Library?url:above=http://e.org/lib/rules", "l1 l3"),
    ("Library?url:above=http://e.org/lib/rules/x", "l1 l3"),
    ("CarePlan?instantiates-canonical:below=http://e.org/PlanDefinition/x|1", "cp1"),
    ("CarePlan?instantiates-canonical:below=http://e.org/PlanDefinition/x", "cp1 cp2"),
    ("CarePlan?instantiates-canonical:above=http://e.org/PlanDefinition/x|2.5", "cp2"),
    # part-of hierarchies
    ("Encounter?location:below=Location/hospital", "e1 e2"),
    ("Encounter?location:below=Location/ward", "e1"),
    ("Encounter?location:above=Location/bed", "e1 e2"),
    ("Encounter?location:above=Location/hospital", "e2"),
    # units
    (f"Observation?value-quantity=5|{UCUM}|mm", "q1 q2"),
    (f"Observation?value-quantity=0.5|{UCUM}|cm", "q1 q2"),
    (f"Observation?value-quantity=0.005|{UCUM}|m", "q1 q2"),
    (f"Observation?value-quantity=5|{UCUM}|cm", "q3"),
    (f"Observation?value-quantity=gt5|{UCUM}|mm", "q3 q5 q6"),
    (f"Observation?value-quantity=ge0.5|{UCUM}|cm", "q1 q2 q3 q5 q6"),
    (f"Observation?value-quantity=lt6|{UCUM}|mm", "q1 q2 q6"),
    (f"Observation?value-quantity=310.15|{UCUM}|K", "q7"),
    (f"Observation?value-quantity=98.6|{UCUM}|[degF]", "q7"),
    ("Observation?value-quantity=5||mm", "q1"),
    ("Observation?value-quantity=5||blocks", "q4"),
    ("Observation?value-quantity=5", "q1 q3 q4"),
    (f"Observation?value-quantity=5|{UCUM}|kg", ""),
    ("Observation?value-quantity=ap9||mm", "q5 q6"),
    # composites
    (f"Observation?code-value-quantity=F13$5|{UCUM}|mm", "q1 q2"),
    (f"Observation?code-value-quantity=T$310.15|{UCUM}|K", "q7"),
    ("Observation?code-value-string=S$annular", "q8"),
    ("Observation?code-value-string=F13$annular", ""),
    ("MolecularSequence?chromosome-window-coordinate=7$100$200", "m1"),
    ("MolecularSequence?chromosome-window-coordinate=urn:chr|7$ge100$lt900", "m1"),
    ("MolecularSequence?chromosome-window-coordinate=7$ge100$ge200", "m1 m2"),
    ("MolecularSequence?chromosome-window-coordinate=8$ge100$ge200", ""),
    # position, Lists, types
    ("Location?near=48.14|11.58|5|km", "hospital"),
    ("Location?near=48.14|11.58|1000", "far hospital"),
    ("Location?near=48.14|11.58", "hospital"),
    ("Condition?_list=some", "c1 c3"),
    ("Patient?_list=List/some", "p1"),
    ("Observation?_list=some", ""),
    ("Condition?_type=Condition,Patient&_id=c1", "c1"),
    ("Condition?_type=Patient", ""),
    # chains through canonicals, which keep versions apart
    ("CarePlan?instantiates-canonical.title=first", "cp1"),
    ("CarePlan?instantiates-canonical:PlanDefinition.title=second", "cp2"),
    ("PlanDefinition?_has:CarePlan:instantiates-canonical:_id=cp2", "x2"),
    ("PlanDefinition?_has:CarePlan:instantiates-canonical:subject=Patient/p1", "x1 x2"),
    ("Condition?subject:Patient._has:Observation:patient:code=T", "c1 c2 c3 c4"),
    ("Condition?patient._list=some", "c1 c2 c3 c4"),
]


def encoded(query: str) -> str:
    return quote(query, safe="?=&:/|$,.")


@pytest.mark.parametrize(("query", "expected"), CASES)
async def test_matches(found: Api, query: str, expected: str) -> None:
    path = encoded(query)
    assert sorted(await found.ids(path)) == sorted(expected.split())
    count = (await found.get(f"/fhir/{path}&_summary=count")).json()["total"]
    assert count == len(expected.split())


REFUSED = [
    ("Patient?gender:exact=male", "gender", "not-supported"),
    ("Patient?birthdate:not=2020", "birthdate", "not-supported"),
    ("Patient?name:in=x", "name", "not-supported"),
    ("Patient?gender:of-type=a|b|c", "gender", "not-supported"),
    ("Patient?general-practitioner:Nothing=x", "general-practitioner", "not-supported"),
    ("Observation?code-value-quantity:missing=true", "code-value-quantity", "not-supported"),
    ("Observation?code-value-quantity=F13", "code-value-quantity", "value"),
    ("Observation?value-quantity:below=1", "value-quantity", "not-supported"),
    ("Patient?_id:exact=1", "_id", "not-supported"),
    ("Patient?gender:missing=perhaps", "gender:missing", "value"),
    ("Library?url:below=urn:oid:1", "url", "value"),
    ("Condition?code:below=extruded", "code:below", "value"),
    ("Encounter?location:below=x,", "location:below", "value"),
    ("Condition?patient:below=p1", "patient:below", "value"),
    ("Condition?code=|", "code", "value"),
    ("Location?near=1", "near", "value"),
    ("Location?near=91|1|1|km", "near", "value"),
    ("Location?near=1|1|1|parsec", "near", "value"),
    ("Condition?_list=$current-problems", "Functional lists", "not-supported"),
    ("Condition?_query=x", "_query", "not-supported"),
    ("Condition?_text=disc", "_text", "not-supported"),
    ("Condition?_contained=both", "_contained", "value"),
    ("Condition?_count:exact=1", "_count", "not-supported"),
    ("Condition?code:in=http://e.org/none&_summary=text&_elements=", "", "not-found"),
]


@pytest.mark.parametrize(("query", "named", "code"), REFUSED)
async def test_what_does_not_belong_is_refused_by_name(found: Api, query: str, named: str, code: str) -> None:
    status = 404 if code == "not-found" else 400
    outcome = refused(await found.get(f"/fhir/{encoded(query)}"), status, code)
    assert named in outcome["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    "query",
    [
        "Condition?code:in=http://e.org/none",
        "Condition?code:below=http://e.org/none|x",
        "Condition?_list=none",
        "Condition?code:in=nowhere",
    ],
)
async def test_what_does_not_exist_is_not_an_empty_answer(found: Api, query: str) -> None:
    refused(await found.get(f"/fhir/{query}"), 404, "not-found")


async def test_a_list_of_another_patient_is_not_there(found: Api) -> None:
    other = found.as_("patient/*.rs", patient="p2")
    refused(await other.get("/fhir/Condition?_list=some"), 404, "not-found")


async def test_batch_and_conditional_create_take_the_same_conditions(found: Api) -> None:
    entries = [{"request": {"method": "GET", "url": f"Condition?code:in={SET}"}}]
    response = (await found.transaction(*entries, kind="batch")).json()
    inner = response["entry"][0]["resource"]
    assert sorted(e["resource"]["id"] for e in inner["entry"]) == ["c1", "c3"]


async def test_many_values_are_one_parameter_and_too_many_are_refused(found: Api) -> None:
    many = ",".join(f"x{number}" for number in range(499)) + ",F13"
    assert len(await found.ids(f"Observation?code={many}")) == 5
    dates = ",".join(f"19{year:02}" for year in range(99)) + ",2026"
    assert len(await found.ids(f"Observation?date={dates}")) == 8
    names = ",".join(f"n{number}" for number in range(400)) + ",hosp"
    assert await found.ids(f"Location?name={names}") == ["hospital"]
    headers = {**found.headers, "content-type": "application/x-www-form-urlencoded"}
    for values in (501, 200_000):
        form = "code=" + ",".join("x" for _ in range(values))
        refused(await found.http.post("/fhir/Observation/_search", content=form, headers=headers), 400, "too-costly")
    form = "code=" + "," * 1_500_000
    refused(await found.http.post("/fhir/Observation/_search", content=form, headers=headers), 413, "too-long")


async def test_elements_may_be_nested_and_keep_their_bytes(found: Api) -> None:
    async def only(elements: str) -> dict[str, Any]:
        (item,) = (await found.get(f"/fhir/Patient?_id=p1&_elements={elements}")).json()["entry"]
        assert item["resource"]["meta"]["tag"][0]["code"] == "SUBSETTED"
        return {name: value for name, value in item["resource"].items() if name not in ("resourceType", "id", "meta")}

    assert await only("gender") == {"gender": "female"}
    assert await only("Patient.gender") == {"gender": "female"}
    assert await only("identifier.value") == {"identifier": [{"value": "1"}]}
    assert await only("identifier.type.text,gender") == {
        "gender": "female",
        "identifier": [{"type": {"text": "Chart Number"}}],
    }
    assert len((await only("identifier.value,identifier"))["identifier"][0]) == 3
    assert await only("nothing.at.all") == {}
