"""PATCH: both languages, conditions, sign-off, validation, atomicity, in Bundles too."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import orjson
import pytest

from tests.contract.fhir.api import Api, ai_observation, entry, observation, refused

JSON_PATCH = "application/json-patch+json"
SURGEON = {"fhirUser": "Practitioner/surgeon", "sub": "surgeon"}


async def json_patch(api: Api, path: str, *operations: dict[str, Any], **headers: str) -> httpx.Response:
    return await api.send("PATCH", f"/fhir/{path}", list(operations), content_type=JSON_PATCH, **headers)


def replace(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def fhirpath(kind: str, path: str, **more: Any) -> dict[str, Any]:
    parts = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    if "name" in more:
        parts.append({"name": "name", "valueString": more.pop("name")})
    if more:
        parts.append({"name": "value", **more})
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}


def binary(*operations: dict[str, Any]) -> dict[str, Any]:
    data = base64.b64encode(orjson.dumps(list(operations))).decode()
    return {"resourceType": "Binary", "contentType": JSON_PATCH, "data": data}


async def test_json_patch_makes_a_version_and_keeps_every_number(module_api: Api) -> None:
    body = b'{"resourceType":"Observation","status":"preliminary","code":{"text":"x"},"valueQuantity":{"value":1.00}}'
    created = (await module_api.post("/fhir/Observation", body)).json()
    reference = f"Observation/{created['id']}"
    answer = await json_patch(module_api, reference, replace("/status", "final"))
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == 'W/"2"'
    assert answer.headers["location"].endswith(f"{reference}/_history/2")
    assert b'"value":1.00' in answer.content
    read = await module_api.get(f"/fhir/{reference}")
    assert (read.content, read.json()["status"]) == (answer.content, "final")
    assert (await module_api.get(f"/fhir/{reference}/_history/1")).json()["status"] == "preliminary"
    history = (await module_api.get(f"/fhir/{reference}/_history")).json()
    assert history["entry"][0]["request"] == {"method": "PATCH", "url": reference}
    assert await module_api.ids(f"Observation?_id={created['id']}&status=final") == [created["id"]]
    assert await module_api.ids(f"Observation?_id={created['id']}&status=preliminary") == []


async def test_fhirpath_patch_in_json_and_xml(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    reference = f"/fhir/Patient/{created['id']}"
    answer = await module_api.send("PATCH", reference, fhirpath("replace", "Patient.birthDate", valueDate="1981-01-01"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["birthDate"] == "1981-01-01"
    xml = (
        '<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>'
        '<part><name value="type"/><valueCode value="delete"/></part>'
        '<part><name value="path"/><valueString value="Patient.birthDate"/></part></parameter></Parameters>'
    )
    answer = await module_api.send("PATCH", reference, xml.encode(), content_type="application/fhir+xml")
    assert answer.status_code == 200, answer.text
    assert "birthDate" not in answer.json()


async def test_the_last_item_of_a_list_can_go(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    answer = await json_patch(module_api, f"Patient/{created['id']}", {"op": "remove", "path": "/name/0"})
    assert answer.status_code == 200, answer.text
    assert "name" not in answer.json()


async def test_the_result_is_validated_and_nothing_is_left_of_a_bad_patch(
    module_api: Api, patient: dict[str, Any]
) -> None:
    created = await module_api.create(patient)
    path = f"Patient/{created['id']}"
    outcome = refused(await json_patch(module_api, path, replace("/gender", "purple")), 422, "code-invalid")
    assert outcome["issue"][0]["expression"] == ["Patient.gender"]
    for bad in (
        {"op": "add", "path": "/colour", "value": "red"},
        {"op": "add", "path": "/name/0/given/0", "value": {"x": 1}},
        replace("/birthDate", "2026-13-01"),
        replace("", []),
    ):
        answer = await json_patch(module_api, path, bad)
        assert answer.status_code == 422, (bad, answer.text)
    assert (await module_api.get(f"/fhir/{path}")).headers["etag"] == 'W/"1"'


async def test_identity_cannot_change(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    path = f"Patient/{created['id']}"
    refused(await json_patch(module_api, path, replace("/id", "other")), 422, "business-rule")
    refused(await json_patch(module_api, path, replace("/resourceType", "Person")), 422, "business-rule")
    refused(await json_patch(module_api, path, {"op": "remove", "path": "/id"}), 422, "business-rule")
    forged = await json_patch(module_api, path, replace("/meta/versionId", "99"), replace("/active", True))
    assert forged.status_code == 422  # there is no /active to replace
    forged = await json_patch(module_api, path, replace("/meta/versionId", "99"))
    assert forged.json()["meta"]["versionId"] == "2"


async def test_conditions(module_api: Api, patient: dict[str, Any]) -> None:
    patient["identifier"][0]["value"] = "PATCH-CONDITION"
    created = await module_api.create(patient)
    path = f"Patient/{created['id']}"
    refused(await json_patch(module_api, path, replace("/gender", "male"), if_match='W/"7"'), 412, "conflict")
    answer = await json_patch(module_api, path, replace("/gender", "male"), if_match='W/"1"')
    assert answer.status_code == 200
    refused(await json_patch(module_api, path, {"op": "test", "path": "/gender", "value": "female"}), 409, "conflict")
    by_query = await json_patch(module_api, "Patient?identifier=PATCH-CONDITION", replace("/gender", "other"))
    assert (by_query.status_code, by_query.json()["id"]) == (200, created["id"])
    refused(await json_patch(module_api, "Patient?identifier=NOBODY", replace("/gender", "male")), 404, "not-found")
    await module_api.create(patient)
    several = await json_patch(module_api, "Patient?identifier=PATCH-CONDITION", replace("/gender", "male"))
    refused(several, 412, "multiple-matches")
    refused(await json_patch(module_api, "Patient", replace("/gender", "male")), 400, "required")


async def test_missing_and_deleted(module_api: Api, patient: dict[str, Any]) -> None:
    refused(await json_patch(module_api, "Patient/nobody", replace("/gender", "male")), 404, "not-found")
    created = await module_api.create(patient)
    await module_api.delete(f"/fhir/Patient/{created['id']}")
    refused(await json_patch(module_api, f"Patient/{created['id']}", replace("/gender", "male")), 410, "deleted")


async def test_media_types(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    path = f"/fhir/Patient/{created['id']}"
    answer = await module_api.send("PATCH", path, b"<diff/>", content_type="application/xml-patch+xml")
    refused(answer, 415, "not-supported")
    assert JSON_PATCH in answer.headers["accept-patch"]
    refused(await module_api.send("PATCH", path, b"[{", content_type=JSON_PATCH), 400, "structure")
    refused(await module_api.send("PATCH", path, b'{"op":"add"}', content_type=JSON_PATCH), 400, "structure")
    refused(await module_api.send("PATCH", path, b"[" * 100, content_type=JSON_PATCH), 400, "too-long")


async def test_scope_and_compartment(module_api: Api, patient: dict[str, Any]) -> None:
    own = await module_api.create(patient)
    other = await module_api.create(patient)
    mine = await module_api.create(observation(f"Patient/{own['id']}"))
    theirs = await module_api.create(observation(f"Patient/{other['id']}"))
    reader = module_api.as_("patient/*.rs", patient=own["id"])
    refused(await json_patch(reader, f"Observation/{mine['id']}", replace("/status", "final")), 403, "forbidden")
    writer = module_api.as_("patient/*.cruds", patient=own["id"])
    assert (await json_patch(writer, f"Observation/{mine['id']}", replace("/status", "final"))).status_code == 200
    refused(await json_patch(writer, f"Observation/{theirs['id']}", replace("/status", "final")), 404, "not-found")
    moved = replace("/subject/reference", f"Patient/{other['id']}")
    refused(await json_patch(writer, f"Observation/{mine['id']}", moved), 403, "forbidden")
    refused(await json_patch(module_api, "AuditEvent/x", replace("/action", "C")), 405, "not-supported")


async def test_the_signoff_gate_holds_for_patches(module_api: Api) -> None:
    found = await module_api.create(ai_observation("Patient/1"))
    reference = f"Observation/{found['id']}"
    surgeon = module_api.as_("user/*.cruds", **SURGEON)
    refused(await json_patch(surgeon, reference, replace("/status", "final")), 422, "business-rule")
    refused(await json_patch(surgeon, reference, {"op": "remove", "path": "/meta/tag"}), 422, "business-rule")
    provenance = {
        "resourceType": "Provenance",
        "target": [{"reference": reference}],
        "recorded": "2026-11-22T08:00:00Z",
        "agent": [
            {
                "type": {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                            "code": "verifier",
                        }
                    ]
                },
                "who": {"reference": "Practitioner/surgeon"},
            }
        ],
    }
    answer = await surgeon.transaction(
        entry("PATCH", reference, binary(replace("/status", "final")), ifMatch='W/"1"'),
        entry("POST", "Provenance", provenance),
    )
    assert answer.status_code == 200, answer.text
    assert (await module_api.get(f"/fhir/{reference}")).json()["status"] == "final"


async def test_patches_in_a_transaction(module_api: Api, patient: dict[str, Any]) -> None:
    first, second = await module_api.create(patient), await module_api.create(patient)
    urn = "urn:uuid:0d3b26ae-5d1c-4e3f-9d3e-2f1f8f0a0001"
    link = {"op": "add", "path": "/managingOrganization", "value": {"reference": urn}}
    answer = await module_api.transaction(
        entry("PATCH", f"Patient/{first['id']}", binary(replace("/gender", "male"), link)),
        entry("PATCH", f"Patient/{second['id']}", fhirpath("delete", "Patient.gender")),
        entry("POST", "Organization", {"resourceType": "Organization", "name": "SYNTHETIC"}, urn),
    )
    assert answer.status_code == 200, answer.text
    organization = answer.json()["entry"][2]["response"]["location"].split("/")[1]
    patched = (await module_api.get(f"/fhir/Patient/{first['id']}")).json()
    assert patched["managingOrganization"]["reference"] == f"Organization/{organization}"
    assert "gender" not in (await module_api.get(f"/fhir/Patient/{second['id']}")).json()
    # One that fails takes everything with it, and says where it lies.
    answer = await module_api.transaction(
        entry("PATCH", f"Patient/{second['id']}", binary({"op": "add", "path": "/gender", "value": "male"})),
        entry("PATCH", f"Patient/{first['id']}", binary(replace("/gender", "purple"))),
    )
    outcome = refused(answer, 422, "code-invalid")
    assert outcome["issue"][0]["expression"] == ["Bundle.entry[1].resource.gender"]
    assert "gender" not in (await module_api.get(f"/fhir/Patient/{second['id']}")).json()


async def test_patches_in_a_batch(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    answer = await module_api.transaction(
        entry("PATCH", f"Patient/{created['id']}", binary(replace("/gender", "other"))),
        entry("PATCH", "Patient/nobody", binary(replace("/gender", "other"))),
        entry("PATCH", f"Patient/{created['id']}", {"resourceType": "Binary", "contentType": "text/plain"}),
        kind="batch",
    )
    statuses = [item["response"]["status"][:3] for item in answer.json()["entry"]]
    assert statuses == ["200", "404", "400"]


async def test_copy_bomb_changes_nothing(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    grow = [{"op": "copy", "from": "/name", "path": "/name/-"} for _ in range(500)]
    answer = await json_patch(module_api, f"Patient/{created['id']}", *grow)
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["issue"][0]["code"] == "too-long"
    refused(
        await json_patch(module_api, f"Patient/{created['id']}", *[replace("/gender", "male")] * 2000),
        400,
        "too-costly",
    )
    assert (await module_api.get(f"/fhir/Patient/{created['id']}")).headers["etag"] == 'W/"1"'


@pytest.mark.parametrize("writers", [32])
async def test_patchers_at_the_same_time_lose_nothing(module_api: Api, writers: int) -> None:
    created = await module_api.create({"resourceType": "Basic", "code": {"text": "counter"}})
    path = f"Basic/{created['id']}"

    async def write(number: int) -> httpx.Response:
        item = {"system": "urn:writer", "value": str(number)}
        operation = {"op": "add", "path": "/identifier/-", "value": item}
        return await json_patch(module_api, path, operation)

    start = {"op": "add", "path": "/identifier", "value": [{"value": "first"}]}
    assert (await json_patch(module_api, path, start)).status_code == 200
    answers = await asyncio.gather(*(write(number) for number in range(writers)))
    assert {answer.status_code for answer in answers} == {200}
    found = (await module_api.get(f"/fhir/{path}")).json()
    assert {item["value"] for item in found["identifier"]} == {"first", *map(str, range(writers))}
    assert found["meta"]["versionId"] == str(writers + 2)


async def test_prefer_and_capability(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    minimal = await json_patch(
        module_api, f"Patient/{created['id']}", replace("/gender", "other"), prefer="return=minimal"
    )
    assert (minimal.status_code, minimal.content) == (200, b"")
    statement = (await module_api.get("/fhir/metadata")).json()
    codes = {item["code"] for item in statement["rest"][0]["resource"][0]["interaction"]}
    assert "patch" in codes


async def test_who_may_not_read_is_not_shown_the_resource(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    path = f"Patient/{created['id']}"
    writer = module_api.as_("system/Patient.u")
    refused(await writer.get(f"/fhir/{path}"), 403, "forbidden")
    answer = await json_patch(writer, path, replace("/gender", "male"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["etag"] == 'W/"2"'
    sent = orjson.dumps([replace("/gender", "other")])
    whole = await writer.send("PATCH", f"/fhir/{path}", sent, content_type=JSON_PATCH, prefer="return=representation")
    assert whole.content == b""
    assert "preference-applied" not in whole.headers
    binary = {
        "resourceType": "Binary",
        "contentType": JSON_PATCH,
        "data": base64.b64encode(orjson.dumps([replace("/gender", "female")])).decode(),
    }
    for kind in ("transaction", "batch"):
        bundle = await writer.transaction(entry("PATCH", path, binary), kind=kind, prefer="return=representation")
        (item,) = bundle.json()["entry"]
        assert item["response"]["status"].startswith("200"), item
        assert "resource" not in item
    # One may read a single record and change all.
    mixed = module_api.as_("patient/Patient.rs system/Patient.u", patient="somebody-else")
    assert (await json_patch(mixed, path, replace("/gender", "male"))).content == b""
    own = module_api.as_("patient/Patient.rs system/Patient.u", patient=created["id"])
    assert (await json_patch(own, path, replace("/gender", "female"))).json()["gender"] == "female"
    assert (await json_patch(module_api, path, replace("/gender", "male"))).json()["gender"] == "male"
