"""$validate: everything that is wrong, nothing written. https://hl7.org/fhir/R4/resource-operation-validate.html"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.fhir.api import Api, observation, patient_resource, refused

AI = [{"system": "https://foramen.example/fhir/CodeSystem/tag", "code": "AI-GENERATED"}]


def issues(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    outcome = response.json()
    assert outcome["resourceType"] == "OperationOutcome"
    return outcome["issue"]


def errors(response: httpx.Response) -> list[tuple[str, str]]:
    return [(i["code"], i.get("expression", [""])[0]) for i in issues(response) if i["severity"] == "error"]


async def count(api: Api) -> int:
    return (await api.get("/fhir/Patient?_summary=count")).json()["total"]


async def test_a_valid_resource_is_all_ok_and_nothing_is_written(module_api: Api) -> None:
    before = await count(module_api)
    found = issues(await module_api.post("/fhir/Patient/$validate", patient_resource()))
    assert [(i["severity"], i["diagnostics"]) for i in found] == [("information", "All OK")]
    assert await count(module_api) == before


async def test_every_fault_is_one_issue_with_its_place(module_api: Api) -> None:
    broken = {**patient_resource(), "birthDate": "2026-02-30", "gender": "m", "unknown": 1, "photo": [{}]}
    found = errors(await module_api.post("/fhir/Patient/$validate", broken))
    assert set(found) >= {
        ("value", "Patient.birthDate"),
        ("code-invalid", "Patient.gender"),
        ("structure", "Patient.unknown"),
        ("structure", "Patient.photo[0]"),
    }


async def test_parameters_with_resource_mode_and_profile(module_api: Api) -> None:
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "resource", "resource": observation("Patient/1")},
            {"name": "mode", "valueCode": "create"},
            {"name": "profile", "valueUri": "http://hl7.org/fhir/StructureDefinition/bp"},
        ],
    }
    found = errors(await module_api.post("/fhir/Observation/$validate", body))
    assert ("required", "Observation.component") in found
    assert ("required", "Observation.category") in found
    plain = observation("Patient/1")
    url = "/fhir/Observation/$validate?profile=http://hl7.org/fhir/StructureDefinition/bp"
    assert set(errors(await module_api.post(url, plain))) == set(found)


async def test_stored_resources_by_get_and_post(module_api: Api) -> None:
    created = await module_api.create(patient_resource())
    path = f"/fhir/Patient/{created['id']}/$validate"
    assert errors(await module_api.get(path)) == []
    assert errors(await module_api.post(path, {"resourceType": "Parameters"})) == []
    changed = {**created, "id": "another"}
    found = errors(await module_api.post(f"{path}?mode=update", changed))
    assert ("value", "Patient.id") in found
    assert errors(await module_api.get(f"{path}?mode=delete")) == []
    refused(await module_api.get("/fhir/Patient/nobody/$validate"), 404, "not-found")


async def test_modes_say_what_would_refuse_the_write(module_api: Api) -> None:
    reader = module_api.as_("system/*.rs")
    found = errors(await reader.post("/fhir/Patient/$validate?mode=create", patient_resource()))
    assert [code for code, _ in found] == ["forbidden"]
    event = await module_api.ids("AuditEvent?_count=1")
    found = errors(await module_api.get(f"/fhir/AuditEvent/{event[0]}/$validate?mode=delete"))
    assert [code for code, _ in found] == ["not-supported"]
    final = observation(
        "Patient/1", meta={"tag": AI}, status="final", device={"reference": "Device/1"}, valueString="x"
    )
    found = errors(await module_api.post("/fhir/Observation/$validate?mode=create", final))
    assert ("business-rule", "Observation.status") in found


@pytest.mark.parametrize(
    ("query", "body", "code"),
    [
        ("", b"{", "structure"),
        ("?mode=nonsense", patient_resource(), "value"),
        ("?mode=profile", patient_resource(), "required"),
        ("?profile=http://example.org/unknown", patient_resource(), "not-found"),
        ("?other=1", patient_resource(), "not-supported"),
        ("", {"resourceType": "Parameters"}, "required"),
    ],
)
async def test_what_cannot_be_validated_is_4xx(module_api: Api, query: str, body: Any, code: str) -> None:
    outcome = refused(await module_api.post(f"/fhir/Patient/$validate{query}", body), 400, code)
    assert "example.org" not in str(outcome)


async def test_a_token_without_the_type_is_refused(module_api: Api) -> None:
    other = module_api.as_("system/Observation.cruds")
    refused(await other.post("/fhir/Patient/$validate", patient_resource()), 403, "forbidden")
    created = await module_api.create(patient_resource())
    refused(await other.get(f"/fhir/Patient/{created['id']}/$validate"), 403, "forbidden")
    theirs = module_api.as_("patient/Patient.rs", patient="somebody-else")
    refused(await theirs.get(f"/fhir/Patient/{created['id']}/$validate"), 404, "not-found")


async def test_a_duplicate_key_is_an_issue(module_api: Api) -> None:
    twice = b'{"resourceType":"Patient","active":true,"active":false}'
    found = errors(await module_api.post("/fhir/Patient/$validate", twice))
    assert found
    assert found[0][0] == "structure"


async def test_the_id_is_checked_unless_the_server_gives_one(module_api: Api) -> None:
    bad = {**patient_resource(), "id": "x" * 65}
    assert ("value", "Patient.id") in errors(await module_api.post("/fhir/Patient/$validate", bad))
    assert errors(await module_api.post("/fhir/Patient/$validate?mode=create", bad)) == []
    assert (await module_api.post("/fhir/Patient", bad)).status_code == 201
