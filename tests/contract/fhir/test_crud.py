"""create, read, vread, update, delete, history: what a client may rely on."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.contract.fhir.api import Api, observation, refused

EXACT = (
    b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"issued":"2026-01-05T10:00:00.100+08:00",'
    b'"valueQuantity":{"value":1.10,"unit":"mm"},"component":[{"code":{"text":"y"},"valueQuantity":{"value":1.0E-7}}],'
    b'"note":[{"text":"\\u5bb9 quoted \\" slash \\/"}],"extension":[{"url":"http://example.org/x","valueDecimal":100.00}]}'
)


@pytest.mark.requirement("hl7.fhir.r4.core_4.0.1#json.decimal")
async def test_content_comes_back_byte_for_byte(module_api: Api) -> None:
    created = await module_api.post("/fhir/Observation", EXACT)
    assert created.status_code == 201
    read = await module_api.get(f"/fhir/Observation/{created.json()['id']}")
    assert read.content == created.content
    members = read.content.partition(b'"status"')[2]
    assert members == EXACT.partition(b'"status"')[2]
    assert b"1.10" in read.content
    assert b"1.0E-7" in read.content
    assert b"2026-01-05T10:00:00.100+08:00" in read.content


async def test_pretty_printed_input_loses_white_space_only(module_api: Api) -> None:
    pretty = (
        b'{\n  "resourceType": "Basic",\n  "code": {\n    "text": "a  b\\n"\n  },\n'
        b'  "extension": [ {"url": "http://e.org", "valueDecimal": 2.50} ]\n}'
    )
    created = await module_api.post("/fhir/Basic", pretty)
    assert created.status_code == 201
    assert b'"code":{"text":"a  b\\n"},"extension":[{"url":"http://e.org","valueDecimal":2.50}]' in created.content


async def test_headers_of_create_and_read(module_api: Api, patient: dict) -> None:
    created = await module_api.post("/fhir/Patient", patient)
    logical_id = created.json()["id"]
    assert created.headers["location"].endswith(f"/fhir/Patient/{logical_id}/_history/1")
    assert created.headers["etag"] == 'W/"1"'
    read = await module_api.get(f"/fhir/Patient/{logical_id}")
    assert read.headers["etag"] == 'W/"1"'
    assert read.headers["last-modified"].endswith("GMT")
    assert read.headers["content-type"].startswith("application/fhir+json")
    unchanged = await module_api.get(f"/fhir/Patient/{logical_id}", if_none_match='W/"1"')
    assert unchanged.status_code == 304
    later = await module_api.get(f"/fhir/Patient/{logical_id}", if_modified_since=read.headers["last-modified"])
    assert later.status_code == 304


async def test_prefer_return(module_api: Api, patient: dict) -> None:
    minimal = await module_api.post("/fhir/Patient", patient, prefer="return=minimal")
    assert (minimal.status_code, minimal.content) == (201, b"")
    full = await module_api.post("/fhir/Patient", patient, prefer="return=representation")
    assert full.json()["resourceType"] == "Patient"


async def test_server_assigns_the_id_of_a_create(module_api: Api, patient: dict) -> None:
    created = await module_api.create({**patient, "id": "mine"})
    assert created["id"] != "mine"


async def test_update_makes_versions_and_history_shows_them(module_api: Api, patient: dict) -> None:
    logical_id = uuid.uuid4().hex
    first = await module_api.put(f"/fhir/Patient/{logical_id}", {**patient, "id": logical_id})
    assert first.status_code == 201
    second = await module_api.put(f"/fhir/Patient/{logical_id}", {**patient, "id": logical_id, "gender": "other"})
    assert (second.status_code, second.headers["etag"]) == (200, 'W/"2"')
    old = await module_api.get(f"/fhir/Patient/{logical_id}/_history/1")
    assert old.json()["gender"] == "female"
    assert (await module_api.delete(f"/fhir/Patient/{logical_id}")).status_code == 204
    refused(await module_api.get(f"/fhir/Patient/{logical_id}"), 410, "deleted")
    refused(await module_api.get(f"/fhir/Patient/{logical_id}/_history/3"), 410, "deleted")
    refused(await module_api.get(f"/fhir/Patient/{logical_id}/_history/4"), 404, "not-found")
    history = (await module_api.get(f"/fhir/Patient/{logical_id}/_history")).json()
    assert [e["request"]["method"] for e in history["entry"]] == ["DELETE", "PUT", "PUT"]
    assert [e["response"]["status"][:3] for e in history["entry"]] == ["204", "200", "201"]
    again = await module_api.put(f"/fhir/Patient/{logical_id}", {**patient, "id": logical_id})
    assert (again.status_code, again.headers["etag"]) == (201, 'W/"4"')


async def test_deleted_and_changed_resources_leave_the_index(module_api: Api, patient: dict) -> None:
    value = uuid.uuid4().hex
    tagged = {**patient, "identifier": [{"system": "urn:s", "value": value}]}
    created = await module_api.create(tagged)
    assert await module_api.ids(f"Patient?identifier=urn:s|{value}") == [created["id"]]
    renamed = {**tagged, "id": created["id"], "identifier": [{"system": "urn:s", "value": value + "x"}]}
    await module_api.put_ok(renamed)
    assert await module_api.ids(f"Patient?identifier=urn:s|{value}") == []
    assert await module_api.ids(f"Patient?identifier=urn:s|{value}x") == [created["id"]]
    await module_api.delete(f"/fhir/Patient/{created['id']}")
    assert await module_api.ids(f"Patient?identifier=urn:s|{value}x") == []


async def test_history_pages_without_gap_or_repeat(module_api: Api) -> None:
    for number in range(7):
        await module_api.create(
            {
                "resourceType": "Flag",
                "status": "active",
                "code": {"text": str(number)},
                "subject": {"reference": "Patient/1"},
            }
        )
    seen, url = [], "/fhir/Flag/_history?_count=3"
    while url:
        page = (await module_api.get(url)).json()
        seen += [e["resource"]["code"]["text"] for e in page["entry"]]
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]
    system = (await module_api.get("/fhir/_history?_count=2")).json()
    assert len(system["entry"]) == 2


async def test_thirty_two_writers_lose_no_update(module_api: Api) -> None:
    logical_id = uuid.uuid4().hex
    counter = {"resourceType": "Basic", "id": logical_id, "code": {"text": "counter"}, "extension": []}
    del counter["extension"]
    await module_api.put_ok(counter)

    async def add(writer: int) -> None:
        while True:
            read = await module_api.get(f"/fhir/Basic/{logical_id}")
            body = read.json()
            body.setdefault("identifier", []).append({"value": f"w{writer}"})
            written = await module_api.put(f"/fhir/Basic/{logical_id}", body, if_match=read.headers["etag"])
            if written.status_code == 200:
                return
            refused(written, 412, "conflict")

    await asyncio.gather(*(add(writer) for writer in range(32)))
    final = (await module_api.get(f"/fhir/Basic/{logical_id}")).json()
    assert sorted(item["value"] for item in final["identifier"]) == sorted(f"w{n}" for n in range(32))
    assert final["meta"]["versionId"] == "33"


async def test_blind_writers_on_one_new_id_all_get_an_answer(module_api: Api) -> None:
    logical_id = uuid.uuid4().hex
    basic = {"resourceType": "Basic", "id": logical_id, "code": {"text": "x"}}
    answers = await asyncio.gather(*(module_api.put(f"/fhir/Basic/{logical_id}", basic) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert (await module_api.get(f"/fhir/Basic/{logical_id}")).headers["etag"] == 'W/"8"'


async def test_conditional_create_is_idempotent_under_concurrency(module_api: Api, patient: dict) -> None:
    value = uuid.uuid4().hex
    body = {**patient, "identifier": [{"system": "urn:once", "value": value}]}
    query = f"identifier=urn:once|{value}"
    answers = await asyncio.gather(*(module_api.post("/fhir/Patient", body, if_none_exist=query) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(await module_api.ids(f"Patient?identifier=urn:once|{value}")) == 1


async def test_conditional_update_and_delete(module_api: Api, patient: dict) -> None:
    value = uuid.uuid4().hex
    body = {**patient, "identifier": [{"system": "urn:cu", "value": value}]}
    query = f"Patient?identifier=urn:cu|{value}"
    assert (await module_api.put(f"/fhir/{query}", body)).status_code == 201
    changed = await module_api.put(f"/fhir/{query}", {**body, "gender": "male"})
    assert (changed.status_code, changed.json()["gender"]) == (200, "male")
    await module_api.create(body)
    refused(await module_api.put(f"/fhir/{query}", body), 412, "multiple-matches")
    refused(await module_api.delete(f"/fhir/{query}"), 412, "multiple-matches")
    assert (await module_api.delete(f"/fhir/Patient?identifier=urn:cu|{uuid.uuid4().hex}")).status_code == 204


async def test_if_none_match_star_refuses_an_existing_id(module_api: Api) -> None:
    basic = {"resourceType": "Basic", "id": uuid.uuid4().hex, "code": {"text": "x"}}
    url = f"/fhir/Basic/{basic['id']}"
    assert (await module_api.put(url, basic, if_none_match="*")).status_code == 201
    refused(await module_api.put(url, basic, if_none_match="*"), 412, "duplicate")


async def test_elements_and_summary_keep_the_bytes(module_api: Api) -> None:
    created = await module_api.create(observation("Patient/1", valueQuantity={"value": 2, "unit": "mm"}))
    part = await module_api.get(f"/fhir/Observation/{created['id']}?_elements=valueQuantity")
    body = part.json()
    assert set(body) == {"resourceType", "id", "meta", "status", "code", "valueQuantity"}
    assert body["meta"]["tag"][-1]["code"] == "SUBSETTED"
    text = (await module_api.get(f"/fhir/Observation/{created['id']}?_summary=text")).json()
    assert set(text) == {"resourceType", "id", "meta", "status", "code"}
