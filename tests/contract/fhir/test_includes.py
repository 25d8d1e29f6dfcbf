"""`_include` and `_revinclude`: types, wildcards, rounds, versions, canonicals, limits, access."""
# ruff: noqa: E501 - one resource a line reads better

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.fhir.api import Api, observation, refused, running


def library(name: str, url: str, version: str | None = None) -> dict[str, Any]:
    built = {"resourceType": "Library", "id": name, "status": "active", "type": {"text": "x"}, "url": url}
    return {**built, **({"version": version} if version else {})}


RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "Organization", "id": "top", "name": "Top"},
    {"resourceType": "Organization", "id": "org", "name": "Org", "partOf": {"reference": "Organization/top"}},
    {"resourceType": "Patient", "id": "p1", "name": [{"family": "Old"}], "managingOrganization": {"reference": "Organization/org"}},
    {"resourceType": "Patient", "id": "p1", "name": [{"family": "New"}], "managingOrganization": {"reference": "Organization/org"}},
    {"resourceType": "Patient", "id": "p2"},
    {"resourceType": "Practitioner", "id": "dr"},
    {**observation("Patient/p1"), "id": "o1", "performer": [{"reference": "Practitioner/dr"}]},
    {**observation("Patient/p2"), "id": "o2", "hasMember": [{"reference": "Observation/o1"}]},
    {**observation("Patient/p1/_history/1"), "id": "o3"},
    {**observation("http://elsewhere.example/fhir/Patient/9"), "id": "o4"},
    library("a1", "http://e.org/a", "1"),
    library("a2", "http://e.org/a", "2"),
    library("b", "http://e.org/b"),
    {"resourceType": "ActivityDefinition", "id": "ad", "status": "active", "url": "http://e.org/ad", "version": "7", "library": ["http://e.org/b"]},
    {"resourceType": "PlanDefinition", "id": "pd1", "status": "active", "url": "http://e.org/pd1", "library": ["http://e.org/a|2"],
     "action": [{"definitionCanonical": "http://e.org/ad|7"}]},
    {"resourceType": "PlanDefinition", "id": "pd2", "status": "active", "url": "http://e.org/pd2", "library": ["http://e.org/a"],
     "action": [{"definitionCanonical": "http://e.org/ad|6"}]},
]  # fmt: skip


async def included(api: Api, query: str) -> list[dict[str, Any]]:
    response = await api.get(f"/fhir/{query}")
    assert response.status_code == 200, response.text
    return [e["resource"] for e in response.json().get("entry", []) if e["search"]["mode"] == "include"]


async def names(api: Api, query: str) -> str:
    return " ".join(sorted(f"{item['resourceType']}/{item['id']}" for item in await included(api, query)))


CASES = [
    ("Observation?_id=o1&_include=Observation:subject", "Patient/p1"),
    ("Observation?_id=o1&_include=Observation:subject:Patient", "Patient/p1"),
    ("Observation?_id=o1&_include=Observation:subject:Group", ""),
    ("Observation?_id=o1&_include=Observation:*", "Patient/p1 Practitioner/dr"),
    ("Observation?_id=o1&_include=*", "Patient/p1 Practitioner/dr"),
    ("Observation?_id=o2&_include=Observation:has-member", "Observation/o1"),
    ("Observation?_id=o2&_include=Observation:has-member&_include=Observation:subject", "Observation/o1 Patient/p2"),
    ("Observation?_id=o2&_include=Observation:has-member&_include:iterate=Observation:subject", "Observation/o1 Patient/p1 Patient/p2"),
    ("Observation?_id=o2&_include=*&_include:iterate=*", "Observation/o1 Organization/org Organization/top Patient/p1 Patient/p2 Practitioner/dr"),
    ("Observation?_id=o4&_include=Observation:subject", ""),
    ("Patient?_id=p2&_revinclude=Observation:subject", "Observation/o2"),
    ("Patient?_id=p2&_revinclude=Observation:*", "Observation/o2"),
    ("Patient?_id=p2&_revinclude=*", "Observation/o2"),
    ("Practitioner?_id=dr&_revinclude=*", "Observation/o1"),
    ("Practitioner?_id=dr&_revinclude=*&_revinclude:iterate=Observation:has-member", "Observation/o1 Observation/o2"),
    ("Organization?_id=top&_revinclude=Organization:partof&_revinclude:iterate=Patient:organization", "Organization/org Patient/p1"),
    # canonicals: by version where the reference names one
    ("PlanDefinition?_id=pd1&_include=PlanDefinition:definition", "ActivityDefinition/ad"),
    ("PlanDefinition?_id=pd2&_include=PlanDefinition:definition", ""),
    ("PlanDefinition?_id=pd1&_include=PlanDefinition:depends-on", "Library/a2"),
    ("PlanDefinition?_id=pd2&_include=PlanDefinition:depends-on", "Library/a1 Library/a2"),
    ("PlanDefinition?_id=pd1&_include=PlanDefinition:definition&_include:iterate=ActivityDefinition:depends-on", "ActivityDefinition/ad Library/b"),
    ("ActivityDefinition?_id=ad&_revinclude=PlanDefinition:definition", "PlanDefinition/pd1"),
    ("Library?_id=a1&_revinclude=PlanDefinition:depends-on", "PlanDefinition/pd2"),
    ("Library?_id=a2&_revinclude=PlanDefinition:depends-on", "PlanDefinition/pd1 PlanDefinition/pd2"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), CASES)
async def test_includes(found: Api, query: str, expected: str) -> None:
    assert await names(found, query) == expected


async def test_a_reference_to_a_version_includes_that_version(found: Api) -> None:
    (patient,) = await included(found, "Observation?_id=o3&_include=Observation:subject")
    assert (patient["meta"]["versionId"], patient["name"][0]["family"]) == ("1", "Old")
    (patient,) = await included(found, "Observation?_id=o1,o3&_include=Observation:subject")
    assert patient["meta"]["versionId"] in ("1", "2")


async def test_includes_stop_where_the_token_does(found: Api) -> None:
    bound = found.as_("patient/*.rs", patient="p1")
    assert await names(bound, "Observation?_id=o1&_include=Observation:*") == "Patient/p1"
    assert await names(bound, "Patient?_id=p1&_revinclude=*") == "Observation/o1 Observation/o3"
    few = found.as_("system/Observation.rs")
    assert await names(few, "Observation?_id=o1&_include=Observation:*") == ""
    assert await names(found.as_("system/Patient.rs"), "Patient?_id=p1&_revinclude=Observation:subject") == ""


async def test_too_many_are_refused_not_cut(database_url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_FHIR_MAX_INCLUDED", "3")
        async with running(database_url) as (_, client):
            api = Api(client)
            await api.put_ok({"resourceType": "Patient", "id": "p"})
            for number in range(4):
                await api.put_ok({**observation("Patient/p"), "id": f"o{number}"})
            refused(await api.get("/fhir/Patient?_revinclude=Observation:patient"), 400, "too-costly")
            assert len(await included(api, "Patient?_revinclude=Observation:patient&_count=0")) == 0
            await api.delete("/fhir/Observation/o0")
            assert len(await included(api, "Patient?_revinclude=Observation:patient")) == 3


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("_include=Observation", "value"),
        ("_include=Nothing:subject", "value"),
        ("_include=Observation:code", "value"),
        ("_include=Observation:subject:Nothing", "value"),
        ("_include=Observation:subject:Patient:x", "value"),
        ("_include:exact=Observation:subject", "not-supported"),
        ("_revinclude=*:subject", "value"),
        ("&".join(["_include=Observation:subject"] * 31), "too-costly"),
    ],
)
async def test_refused(found: Api, query: str, code: str) -> None:
    refused(await found.get(f"/fhir/Observation?{query}"), 400, code)
