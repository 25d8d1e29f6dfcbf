"""`$meta`, `$meta-add`, `$meta-delete`. All data SYNTHETIC. https://hl7.org/fhir/R4/resource-operation-meta.html"""

from __future__ import annotations

import asyncio
from typing import Any

from terminology.codes import AI_GENERATED
from tests.contract.fhir.api import Api, ai_observation, observation, patient_resource, refused

_URGENT = {"system": "https://foramen.example/fhir/CodeSystem/test-tag", "code": "URGENT"}
_SECRET = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}


def _parameters(**lists: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": lists}]}


def _meta(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (only,) = response.json()["parameter"]
    assert only["name"] == "return"
    return only["valueMeta"]


async def test_add_and_delete_make_versions_and_keep_the_rest(module_api: Api):
    body = b'{"resourceType":"Observation","id":"me1","status":"final","valueQuantity":{"value":1.50,"unit":"mm"},'
    body += b'"code":{"text":"SYNTHETIC"},"meta":{"source":"urn:x"}}'
    assert (await module_api.put("/fhir/Observation/me1", body)).status_code == 201
    added = await module_api.post("/fhir/Observation/me1/$meta-add", _parameters(tag=[_URGENT], security=[_SECRET]))
    assert _meta(added)["versionId"] == "2"
    again = await module_api.post(
        "/fhir/Observation/me1/$meta-add", _parameters(tag=[{**_URGENT, "display": "urgent", "version": "2"}])
    )
    assert _meta(again)["versionId"] == "2"  # The same tag: nothing changed.
    assert _meta(again)["tag"] == [_URGENT]
    stored = await module_api.get("/fhir/Observation/me1")
    assert b'"value":1.50' in stored.content
    assert stored.json()["meta"]["source"] == "urn:x"
    assert await module_api.ids(f"Observation?_tag={_URGENT['system']}|URGENT&_id=me1") == ["me1"]
    gone = _meta(await module_api.post("/fhir/Observation/me1/$meta-delete", _parameters(tag=[_URGENT])))
    assert gone["versionId"] == "3"
    assert "tag" not in gone
    assert gone["security"] == [_SECRET]
    assert await module_api.ids(f"Observation?_tag={_URGENT['system']}|URGENT&_id=me1") == []
    assert _meta(await module_api.get("/fhir/Observation/me1/_history/2/$meta"))["tag"] == [_URGENT]
    assert _meta(await module_api.post("/fhir/Observation/me1/$meta", b""))["versionId"] == "3"


async def test_what_a_type_and_the_system_use(api: Api):
    await api.create({**patient_resource(), "meta": {"tag": [_URGENT]}})
    await api.put_ok({**patient_resource(), "id": "mine", "meta": {"security": [_SECRET], "profile": ["http://a/b"]}})
    await api.create({**observation("Patient/mine"), "meta": {"tag": [{**_URGENT, "code": "LATE"}]}})
    patients = _meta(await api.get("/fhir/Patient/$meta"))
    assert patients == {"tag": [_URGENT], "security": [_SECRET], "profile": ["http://a/b"]}
    everything = _meta(await api.get("/fhir/$meta"))
    assert {tag["code"] for tag in everything["tag"]} == {"URGENT", "LATE"}
    mine = _meta(await api.as_("patient/*.rs", patient="mine").get("/fhir/$meta"))
    assert [tag["code"] for tag in mine["tag"]] == ["LATE"]
    refused(await api.as_("launch").get("/fhir/$meta"), 403, "forbidden")


async def test_an_ai_tag_stays(module_api: Api):
    tag = {"system": AI_GENERATED.system, "code": AI_GENERATED.code}
    await module_api.put_ok({**ai_observation("Patient/x"), "id": "me2"})
    outcome = refused(
        await module_api.post("/fhir/Observation/me2/$meta-delete", _parameters(tag=[tag])), 422, "business-rule"
    )
    assert outcome["issue"][0]["expression"] == ["Observation.meta.tag"]
    assert _meta(await module_api.get("/fhir/Observation/me2/$meta"))["tag"] == [tag]


async def test_concurrent_adds_lose_none(module_api: Api):
    await module_api.put_ok({**patient_resource(), "id": "me3"})
    tags = [{**_URGENT, "code": f"T{number}"} for number in range(4)]
    answers = await asyncio.gather(
        *(module_api.post("/fhir/Patient/me3/$meta-add", _parameters(tag=[tag])) for tag in tags)
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    found = _meta(await module_api.get("/fhir/Patient/me3/$meta"))
    assert sorted(tag["code"] for tag in found["tag"]) == ["T0", "T1", "T2", "T3"]
    assert found["versionId"] == "5"


async def test_refusals(module_api: Api):
    await module_api.put_ok({**patient_resource(), "id": "me4"})
    path = "/fhir/Patient/me4/$meta-add"
    refused(await module_api.post(path, {"resourceType": "Parameters"}), 400, "required")
    refused(await module_api.post(path, _parameters(tag="URGENT")), 400, "structure")
    refused(await module_api.post(path, _parameters(tag=[{"system": 5}])), 422, "structure")
    nothing = {"resourceType": "Parameters", "parameter": [{"name": "meta"}]}
    refused(await module_api.post(path, nothing), 400, "structure")
    refused(await module_api.get(path), 405, "not-supported")
    refused(await module_api.as_("user/Patient.r").post(path, _parameters(tag=[_URGENT])), 403, "forbidden")
    refused(await module_api.post("/fhir/Patient/none/$meta-add", _parameters(tag=[_URGENT])), 404, "not-found")
    refused(await module_api.get("/fhir/Patient/me4/_history/9/$meta"), 404, "not-found")
    other = module_api.as_("patient/*.cruds", patient="somebody")
    refused(await other.post(path, _parameters(tag=[_URGENT])), 404, "not-found")
    assert _meta(await module_api.get("/fhir/Patient/me4/$meta"))["versionId"] == "1"
