"""`_filter`: every operator, junctions, chains, and refusals that tell the place."""
# ruff: noqa: E501 - one resource a line reads better

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.fhir.api import Api, observation, refused

UCUM = "http://unitsofmeasure.org"
SYSTEM = "http://e.org/CodeSystem/tree"
RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "CodeSystem", "id": "tree", "url": SYSTEM, "status": "active", "content": "complete", "hierarchyMeaning": "is-a",
     "concept": [{"code": "top", "concept": [{"code": "leaf"}]}, {"code": "side"}]},
    {"resourceType": "ValueSet", "id": "vs", "url": "http://e.org/vs", "status": "active", "compose": {"include": [{"system": SYSTEM, "concept": [{"code": "leaf"}]}]}},
    {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1980-02-10", "name": [{"family": "Peters", "given": ["Anna, Maria"]}],
     "managingOrganization": {"reference": "Organization/o"}, "identifier": [{"system": "urn:mrn", "value": "Ab"}]},
    {"resourceType": "Patient", "id": "p2", "gender": "male", "birthDate": "1990", "name": [{"family": "Van der Pet"}]},
    {"resourceType": "Patient", "id": "p3", "birthDate": "2000-01-01"},
    {"resourceType": "Organization", "id": "o", "name": "Spine \"North\" (A) and [B]"},
    {**observation("Patient/p1", "F1", "2026-01-05"), "id": "x1", "valueQuantity": {"value": 5, "code": "mm", "unit": "mm", "system": UCUM}},
    {**observation("Patient/p2", "F2", "2026-02-05"), "id": "x2", "valueQuantity": {"value": 2, "code": "cm", "unit": "cm", "system": UCUM}},
    {"resourceType": "Observation", "id": "x3", "status": "final", "code": {"coding": [{"system": SYSTEM, "code": "leaf"}]}, "subject": {"reference": "Patient/p3"},
     "effectivePeriod": {"start": "2026-01-20", "end": "2026-03-01"}},
    {"resourceType": "Observation", "id": "x4", "status": "final", "code": {"coding": [{"system": SYSTEM, "code": "top"}]}, "subject": {"reference": "Patient/p3"}},
    {"resourceType": "Library", "id": "l1", "status": "active", "type": {"text": "x"}, "url": "http://e.org/lib/rules"},
]  # fmt: skip


CASES = [
    ("Patient", 'family eq "peters"', "p1"),
    ("Patient", "family eq pet", ""),
    ("Patient", "family sw pet", "p1"),
    ("Patient", "family co pet", "p1 p2"),
    ("Patient", "family ew pet", "p2"),
    ("Patient", 'family ne "peters"', "p2"),
    ("Patient", 'given eq "anna, maria"', "p1"),
    ("Patient", "gender eq female", "p1"),
    ("Patient", "gender ne female", "p2"),
    ("Patient", "gender pr false", "p3"),
    ("Patient", "gender pr true", "p1 p2"),
    ("Patient", "birthdate ge 1990", "p2 p3"),
    ("Patient", "birthdate lt 1990-01-01", "p1"),
    ("Patient", "birthdate sa 1990", "p3"),
    ("Patient", "birthdate ne 1990", "p1 p3"),
    ("Patient", "gender eq male and birthdate gt 1950 or family sw pet", "p1 p2"),
    ("Patient", "gender eq male and (birthdate gt 1995 or family sw pet)", ""),
    ("Patient", "not (gender eq male)", "p1 p3"),
    ("Patient", "not (gender eq male) and not(gender pr false)", "p1"),
    ("Patient", "organization re Organization/o", "p1"),
    ("Patient", "organization.name co north", "p1"),
    ("Patient", 'organization.name eq "Spine \\"North\\" (A) and [B]"', "p1"),
    ("Patient", "identifier eq urn:mrn|Ab", "p1"),
    ("Patient", "_id eq p2", "p2"),
    ("Patient", "_has:Observation:patient:code eq F2", "p2"),
    ("Patient", "_lastUpdated gt 2020", "p1 p2 p3"),
    ("Observation", "subject.id eq p1", "x1"),
    ("Observation", "patient.family co pet and date ge 2026-02-01", "x2"),
    ("Observation", "value-quantity eq 5", "x1"),
    ("Observation", f"value-quantity gt 1|{UCUM}|cm", "x2"),
    ("Observation", f"value-quantity le 5|{UCUM}|mm", "x1"),
    ("Observation", "date po 2026-02", "x2 x3"),
    ("Observation", "date eq 2026-01", "x1"),
    ("Observation", f"code ss {SYSTEM}|top", "x3 x4"),
    ("Observation", f"code sb {SYSTEM}|leaf", "x3 x4"),
    ("Observation", "code in http://e.org/vs", "x3"),
    ("Observation", "code ni http://e.org/vs", "x1 x2 x4"),
    ("Observation", "code eq F1 or code eq F2", "x1 x2"),
    ("Observation", f"code-value-quantity eq F1$5|{UCUM}|mm", "x1"),
    ("Library", "url sw http://e.org/lib", "l1"),
    ("Library", "url eq http://e.org/lib", ""),
]  # fmt: skip


@pytest.mark.parametrize(("resource_type", "text", "expected"), CASES)
async def test_filter(found: Api, resource_type: str, text: str, expected: str) -> None:
    path = f"{resource_type}?_filter={quote(text)}"
    assert sorted(await found.ids(path)) == expected.split()
    assert (await found.get(f"/fhir/{path}&_summary=count")).json()["total"] == len(expected.split())


REFUSED = [
    ("gender", "value"),
    ("gender eq", "value"),
    ("gender is male", "value"),
    ("(gender eq male", "value"),
    ("gender eq male)", "value"),
    ("gender eq male and", "value"),
    ('family eq "x', "value"),
    ("'); DROP TABLE x; --", "value"),
    ("nothing eq male", "value"),
    ("gender gt male", "not-supported"),
    ("family gt x", "not-supported"),
    ("birthdate co 19", "not-supported"),
    ("birthdate eq soon", "value"),
    ("gender pr perhaps", "value"),
    ('name[family eq "x"].given eq y', "not-supported"),
    ("(" * 40 + "gender eq male" + ")" * 40, "too-costly"),
    (" or ".join(["gender eq male"] * 200), "too-costly"),
    ("gender eq " + "x" * 5000, "too-costly"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED)
async def test_refused(found: Api, text: str, code: str) -> None:
    refused(await found.get(f"/fhir/Patient?_filter={quote(text)}"), 400, code)


async def test_the_message_tells_the_place(found: Api) -> None:
    outcome = refused(await found.get(f"/fhir/Patient?_filter={quote('gender eq male or or')}"), 400, "value")
    assert "character" in outcome["issue"][0]["diagnostics"]


async def test_a_filter_sees_no_more_than_the_token(found: Api) -> None:
    other = found.as_("patient/*.rs", patient="p2")
    assert await other.ids("Observation?_filter=" + quote("not (code eq nothing)")) == ["x2"]
    assert await other.ids("Patient?_filter=" + quote("gender eq female or gender pr true")) == ["p2"]
    assert await other.ids("Observation?_filter=" + quote("patient.gender eq female or status pr true")) == ["x2"]
