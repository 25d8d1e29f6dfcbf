"""Prefer: return, handling, and what the answer says it applied (RFC 7240)."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.contract.fhir.api import Api, entry, refused


@pytest.mark.parametrize("interaction", ["create", "update", "patch"])
async def test_return(module_api: Api, patient: dict[str, Any], interaction: str) -> None:
    created = await module_api.create(patient)
    url = f"/fhir/Patient/{created['id']}"

    async def write(**headers: str) -> Any:
        if interaction == "create":
            return await module_api.post("/fhir/Patient", patient, **headers)
        if interaction == "update":
            return await module_api.put(url, created, **headers)
        body = [{"op": "replace", "path": "/gender", "value": "other"}]
        return await module_api.send("PATCH", url, body, content_type="application/json-patch+json", **headers)

    plain = await write()
    assert plain.json()["resourceType"] == "Patient"
    assert "preference-applied" not in plain.headers
    minimal = await write(prefer="return=minimal")
    assert minimal.content == b""
    assert minimal.headers["preference-applied"] == "return=minimal"
    assert {"etag", "last-modified", "location"} <= set(minimal.headers)
    full = await write(prefer="return=representation; handling=strict")
    assert full.json()["resourceType"] == "Patient"
    assert full.headers["preference-applied"] == "return=representation"
    told = await write(prefer="return=OperationOutcome")
    assert told.json()["resourceType"] == "OperationOutcome"
    assert told.json()["issue"][0]["severity"] == "information"
    assert told.headers["preference-applied"] == "return=OperationOutcome"
    unknown = await write(prefer="return=everything")
    assert unknown.json()["resourceType"] == "Patient"
    assert "preference-applied" not in unknown.headers


async def test_handling(module_api: Api) -> None:
    refused(await module_api.get("/fhir/Patient?colour=red", prefer="handling=strict"), 400, "not-supported")
    lenient = await module_api.get("/fhir/Patient?colour=red", prefer="handling=lenient")
    assert lenient.status_code == 200
    modes = [item["search"]["mode"] for item in lenient.json()["entry"]]
    assert "outcome" in modes


async def test_return_in_bundles(module_api: Api, patient: dict[str, Any]) -> None:
    plain = await module_api.transaction(entry("POST", "Patient", patient))
    assert "resource" not in plain.json()["entry"][0]
    full = await module_api.transaction(entry("POST", "Patient", patient), prefer="return=representation")
    assert full.json()["entry"][0]["resource"]["resourceType"] == "Patient"


async def test_minimal_answers_of_conditional_creates_name_the_resource(
    module_api: Api, patient: dict[str, Any]
) -> None:
    value = uuid.uuid4().hex
    body = {**patient, "identifier": [{"value": value}]}
    headers = {"if_none_exist": f"identifier={value}", "prefer": "return=minimal"}
    first = await module_api.post("/fhir/Patient", body, **headers)
    again = await module_api.post("/fhir/Patient", body, **headers)
    assert first.headers["location"] == again.headers["location"]
    assert (first.status_code, again.status_code) == (201, 200)


async def finished(api: Api, url: str) -> Any:
    for _ in range(200):
        answer = await api.get(url)
        if answer.status_code != 202:
            return answer
        assert answer.headers["retry-after"] == "1"
        await asyncio.sleep(0.05)
    raise AssertionError("the job does not end")


async def test_a_search_later(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    kicked = await module_api.get(f"/fhir/Patient?_id={created['id']}", prefer="respond-async")
    assert (kicked.status_code, kicked.content) == (202, b"")
    assert kicked.headers["preference-applied"] == "respond-async"
    url = kicked.headers["content-location"]
    bundle = (await finished(module_api, url)).json()
    assert bundle["type"] == "batch-response"
    (item,) = bundle["entry"]
    assert item["response"]["status"] == "200 OK"
    assert [e["resource"]["id"] for e in item["resource"]["entry"]] == [created["id"]]
    other = module_api.as_("system/*.cruds", sub="somebody else", client_id="another")
    refused(await other.get(url), 404, "not-found")
    assert (await module_api.delete(url)).status_code == 202
    refused(await module_api.get(url), 404, "not-found")


async def test_a_transaction_later(module_api: Api, patient: dict[str, Any]) -> None:
    value = uuid.uuid4().hex
    body = {**patient, "identifier": [{"value": value}]}
    kicked = await module_api.transaction(
        entry("POST", "Patient", body), entry("GET", f"Patient?identifier={value}"), prefer="respond-async"
    )
    assert kicked.status_code == 202, kicked.text
    (item,) = (await finished(module_api, kicked.headers["content-location"])).json()["entry"]
    answers = item["resource"]["entry"]
    assert answers[0]["response"]["status"] == "201 Created"
    assert answers[1]["resource"]["entry"][0]["resource"]["identifier"][0]["value"] == value
    assert len(await module_api.ids(f"Patient?identifier={value}")) == 1


async def test_a_refusal_later(module_api: Api, patient: dict[str, Any]) -> None:
    bad = await module_api.transaction(
        entry("POST", "Patient", {**patient, "gender": "purple"}), prefer="respond-async, return=minimal"
    )
    answer = await finished(module_api, bad.headers["content-location"])
    (item,) = answer.json()["entry"]
    assert item["response"]["status"].startswith("422")
    assert item["response"]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[0].resource.gender"]


async def test_what_is_answered_at_once_does_not_claim_otherwise(module_api: Api, patient: dict[str, Any]) -> None:
    """A preference may be ignored; only what was honoured is named (RFC 7240 §2, §3)."""
    headers = {"prefer": "respond-async, return=representation"}
    batch = await module_api.transaction(entry("POST", "Patient", patient), kind="batch", **headers)
    assert batch.status_code == 200, batch.text
    assert batch.json()["entry"][0]["response"]["status"] == "201 Created"
    assert batch.json()["entry"][0]["resource"]["resourceType"] == "Patient"
    created = await module_api.post("/fhir/Patient", patient, **headers)
    assert (created.status_code, created.headers["preference-applied"]) == (201, "return=representation")
    read = await module_api.get(f"/fhir/Patient/{created.json()['id']}", prefer="respond-async")
    assert read.status_code == 200
    for answer in (batch, created, read):
        assert "respond-async" not in answer.headers.get("preference-applied", "")
        assert "content-location" not in answer.headers


async def test_the_answer_is_for_tokens_that_reach_what_was_asked(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    asking = module_api.as_("patient/*.rs", patient=created["id"])
    kicked = await asking.get("/fhir/Patient", prefer="respond-async")
    url = kicked.headers["content-location"]
    assert (await finished(asking, url)).status_code == 200
    for narrow in (
        module_api.as_("openid"),
        module_api.as_("patient/Patient.rs", patient=created["id"]),
        module_api.as_("patient/*.r", patient=created["id"]),
        module_api.as_("patient/*.rs", patient="another"),
        module_api.as_("patient/*.rs"),
    ):
        refused(await narrow.get(url), 403, "forbidden")
        refused(await narrow.delete(url), 403, "forbidden")
    assert (await module_api.get(url)).status_code == 200
    assert (await module_api.as_("user/*.cruds").get(url)).status_code == 200
