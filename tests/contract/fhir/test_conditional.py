"""Conditional interactions: read, create, update, delete; histories by time; references inside transactions."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.interactions.responses import http_date
from tests.contract.fhir.api import Api, entry, observation, refused, running


def unique(patient: dict[str, Any]) -> tuple[dict[str, Any], str]:
    value = uuid.uuid4().hex
    return {**patient, "identifier": [{"system": "urn:test", "value": value}]}, f"identifier=urn:test|{value}"


async def test_conditional_read_and_vread(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    for url in (f"/fhir/Patient/{created['id']}", f"/fhir/Patient/{created['id']}/_history/1"):
        for tag in ('W/"1"', '"1"', "*", 'W/"9", W/"1"'):
            answer = await module_api.get(url, if_none_match=tag)
            assert (answer.status_code, answer.content) == (304, b""), (url, tag)
            assert answer.headers["etag"] == 'W/"1"'
        assert (await module_api.get(url, if_none_match='W/"2"')).status_code == 200
        last = (await module_api.get(url)).headers["last-modified"]
        assert (await module_api.get(url, if_modified_since=last)).status_code == 304
        assert (await module_api.get(url, if_modified_since="Sat, 01 Jan 2000 00:00:00 GMT")).status_code == 200
        assert (await module_api.get(url, if_modified_since="no date")).status_code == 200
        # If-None-Match decides alone when both are there (RFC 9110 §13.2.2).
        both = await module_api.get(url, if_none_match='W/"2"', if_modified_since=last)
        assert both.status_code == 200


async def test_conditional_create(module_api: Api, patient: dict[str, Any]) -> None:
    body, query = unique(patient)
    first = await module_api.post("/fhir/Patient", body, if_none_exist=query)
    again = await module_api.post("/fhir/Patient", body, if_none_exist=query)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    await module_api.create(body)
    refused(await module_api.post("/fhir/Patient", body, if_none_exist=query), 412, "multiple-matches")


async def test_conditional_update(module_api: Api, patient: dict[str, Any]) -> None:
    body, query = unique(patient)
    created = await module_api.put(f"/fhir/Patient?{query}", body)
    assert created.status_code == 201
    updated = await module_api.put(f"/fhir/Patient?{query}", {**body, "active": True})
    assert (updated.status_code, updated.json()["id"]) == (200, created.json()["id"])
    refused(await module_api.put(f"/fhir/Patient?{query}", {**body, "id": "another"}), 400, "value")
    refused(await module_api.put(f"/fhir/Patient?{query}", body, if_match='W/"9"'), 412, "conflict")


async def test_conditional_update_never_overwrites_what_its_condition_does_not_match(
    module_api: Api, patient: dict[str, Any]
) -> None:
    bystander = await module_api.create(patient)
    body, query = unique(patient)
    answer = await module_api.put(f"/fhir/Patient?{query}", {**body, "id": bystander["id"]})
    refused(answer, 412, "duplicate")
    fresh = await module_api.put(f"/fhir/Patient?{query}", {**body, "id": uuid.uuid4().hex})
    assert fresh.status_code == 201


async def test_if_match_star_and_if_none_match_star(module_api: Api, patient: dict[str, Any]) -> None:
    name = uuid.uuid4().hex
    url, body = f"/fhir/Patient/{name}", {**patient, "id": name}
    refused(await module_api.put(url, body, if_match="*"), 412, "conflict")
    assert (await module_api.put(url, body, if_none_match="*")).status_code == 201
    refused(await module_api.put(url, body, if_none_match="*"), 412, "duplicate")
    assert (await module_api.put(url, body, if_match="*")).status_code == 200
    refused(await module_api.put(url, body, if_match="nonsense"), 400, "value")
    refused(await module_api.put(url, body, if_none_match='W/"1"'), 400, "value")
    refused(await module_api.delete(url, if_match='W/"1"'), 412, "conflict")
    assert (await module_api.delete(url, if_match='W/"2"')).status_code == 204


async def test_if_unmodified_since(module_api: Api, patient: dict[str, Any]) -> None:
    name = uuid.uuid4().hex
    url, body = f"/fhir/Patient/{name}", {**patient, "id": name}
    last = (await module_api.put(url, body)).headers["last-modified"]
    assert (await module_api.put(url, body, if_unmodified_since=last)).status_code == 200
    long_ago = "Sat, 01 Jan 2000 00:00:00 GMT"
    refused(await module_api.put(url, body, if_unmodified_since=long_ago), 412, "conflict")
    refused(await module_api.delete(url, if_unmodified_since=long_ago), 412, "conflict")


async def test_conditional_delete_of_one(module_api: Api, patient: dict[str, Any]) -> None:
    body, query = unique(patient)
    nothing = await module_api.delete(f"/fhir/Patient?{query}")
    assert nothing.status_code == 204
    created = await module_api.create(body)
    assert (await module_api.delete(f"/fhir/Patient?{query}")).status_code == 204
    refused(await module_api.get(f"/fhir/Patient/{created['id']}"), 410, "deleted")
    await module_api.create(body)
    await module_api.create(body)
    refused(await module_api.delete(f"/fhir/Patient?{query}"), 412, "multiple-matches")
    refused(await module_api.delete("/fhir/Patient"), 400, "required")
    refused(await module_api.delete("/fhir/Patient?colour=red"), 400, "not-supported")


async def test_conditional_delete_of_several_where_the_settings_allow_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch, patient: dict[str, Any]
) -> None:
    monkeypatch.setenv("FORAMEN_FHIR_MAX_CONDITIONAL_DELETE", "3")
    monkeypatch.setenv("FORAMEN_FHIR_REQUIRE_IF_MATCH", "true")
    async with running(database_url) as (_, client):
        api = Api(client)
        body, query = unique(patient)
        created = [await api.create(body) for _ in range(4)]
        refused(await api.delete(f"/fhir/Patient?{query}"), 412, "multiple-matches")
        await api.delete(f"/fhir/Patient/{created[0]['id']}")
        assert (await api.delete(f"/fhir/Patient?{query}")).status_code == 204
        for item in created:
            refused(await api.get(f"/fhir/Patient/{item['id']}"), 410, "deleted")
        # Version-aware updates only (http.html#concurrency).
        other = await api.create(body)
        url = f"/fhir/Patient/{other['id']}"
        refused(await api.put(url, other), 400, "required")
        assert (await api.put(url, other, if_match='W/"1"')).status_code == 200


async def test_simultaneous_conditional_creates_make_one(module_api: Api, patient: dict[str, Any]) -> None:
    body, query = unique(patient)
    answers = await asyncio.gather(*(module_api.post("/fhir/Patient", body, if_none_exist=query) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_circular_references_and_conditional_entries(module_api: Api, patient: dict[str, Any]) -> None:
    first, second = f"urn:uuid:{uuid.uuid4()}", f"urn:uuid:{uuid.uuid4()}"
    body, query = unique(patient)
    answer = await module_api.transaction(
        entry("POST", "Patient", {**body, "link": [{"other": {"reference": second}, "type": "seealso"}]}, first),
        entry("POST", "Patient", {**patient, "link": [{"other": {"reference": first}, "type": "seealso"}]}, second),
        entry("POST", "Observation", observation(first)),
    )
    assert answer.status_code == 200, answer.text
    ids = [item["response"]["location"].split("/")[1] for item in answer.json()["entry"]]
    one, two = [(await module_api.get(f"/fhir/Patient/{name}")).json() for name in ids[:2]]
    assert one["link"][0]["other"]["reference"] == f"Patient/{ids[1]}"
    assert two["link"][0]["other"]["reference"] == f"Patient/{ids[0]}"
    # The entry whose condition matches stands for what is there already.
    again = await module_api.transaction(
        entry("POST", "Patient", body, first, ifNoneExist=query), entry("POST", "Observation", observation(first))
    )
    assert again.json()["entry"][0]["response"]["status"].startswith("200")
    made = again.json()["entry"][1]["response"]["location"].split("/")[1]
    assert (await module_api.get(f"/fhir/Observation/{made}")).json()["subject"]["reference"] == f"Patient/{ids[0]}"


async def test_relative_references_follow_the_full_url(module_api: Api, patient: dict[str, Any]) -> None:
    answer = await module_api.transaction(
        entry("POST", "Patient", patient, "http://other.example/fhir/Patient/77"),
        entry("POST", "Observation", observation("Patient/77"), "http://other.example/fhir/Observation/1"),
        entry("POST", "Observation", observation("Patient/77")),
    )
    assert answer.status_code == 200, answer.text
    ids = [item["response"]["location"].split("/")[1] for item in answer.json()["entry"]]
    subjects = [(await module_api.get(f"/fhir/Observation/{n}")).json()["subject"]["reference"] for n in ids[1:]]
    assert subjects == [f"Patient/{ids[0]}", "Patient/77"]


async def test_the_same_full_url_twice_is_refused(module_api: Api, patient: dict[str, Any]) -> None:
    urn = f"urn:uuid:{uuid.uuid4()}"
    body, query = unique(patient)
    answer = await module_api.transaction(entry("POST", "Patient", body, urn), entry("POST", "Patient", body, urn))
    outcome = refused(answer, 400, "duplicate")
    assert outcome["issue"][0]["expression"] == ["Bundle.entry[1].fullUrl"]
    assert await module_api.ids(f"Patient?{query}") == []


async def test_faults_of_entries_name_the_entry(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    reference = f"Patient/{created['id']}"
    stale = await module_api.transaction(
        entry("POST", "Patient", patient), entry("PUT", reference, created, ifMatch='W/"9"')
    )
    assert refused(stale, 412, "conflict")["issue"][0]["expression"] == ["Bundle.entry[1]"]
    missing = await module_api.transaction(entry("GET", "Patient/nobody"), entry("POST", "Patient", patient))
    assert refused(missing, 404, "not-found")["issue"][0]["expression"] == ["Bundle.entry[0]"]


async def test_reads_inside_bundles(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    reference = f"Patient/{created['id']}"
    await module_api.put_ok({**patient, "id": created["id"], "active": True})
    since = datetime.now(UTC).isoformat()
    answer = await module_api.transaction(
        entry("GET", reference),
        entry("HEAD", reference),
        entry("GET", reference, ifNoneMatch='W/"2"'),
        entry("GET", reference, ifModifiedSince=since),
        entry("GET", f"{reference}/_history"),
        entry("GET", f"{reference}/_history/1"),
        entry("GET", f"{reference}?_elements=gender"),
        entry("GET", f"Patient?_id={created['id']}"),
        entry("GET", f"{reference}/$everything"),
        entry("GET", "Patient/$meta"),
        kind="batch",
    )
    items = answer.json()["entry"]
    assert [item["response"]["status"][:3] for item in items] == [
        *("200", "200", "304", "304", "200", "200", "200", "200", "400", "400")
    ]
    assert "resource" not in items[1]
    assert items[4]["resource"]["type"] == "history"
    assert len(items[4]["resource"]["entry"]) == 2
    assert items[5]["resource"]["meta"]["versionId"] == "1"
    assert "name" not in items[6]["resource"]
    assert items[7]["resource"]["type"] == "searchset"


async def history(api: Api, path: str, **headers: str) -> list[str]:
    answer = await api.get(f"/fhir/{path}", **headers)
    assert answer.status_code == 200, answer.text
    return [item["response"]["etag"] for item in answer.json().get("entry", [])]


async def test_history_by_time(module_api: Api, patient: dict[str, Any]) -> None:
    name = uuid.uuid4().hex
    moments = []
    for _ in range(3):
        stored = await module_api.put_ok({**patient, "id": name})
        moments.append(stored["meta"]["lastUpdated"])
        await asyncio.sleep(0.02)
    await module_api.delete(f"/fhir/Patient/{name}")
    path = f"Patient/{name}/_history"
    four, three, two, one = 'W/"4"', 'W/"3"', 'W/"2"', 'W/"1"'
    assert await history(module_api, path) == [four, three, two, one]
    assert await history(module_api, f"{path}?_since={moments[1]}") == [four, three, two]
    # What was current at some point of the moment: version 2, written in that very millisecond.
    between = datetime.fromisoformat(moments[1]).replace(microsecond=0).isoformat()
    assert one in await history(module_api, f"{path}?_at={moments[0]}")
    assert await history(module_api, f"{path}?_at={moments[0]}") == [one]
    assert await history(module_api, f"{path}?_at={moments[1]}") in ([two], [two, one])
    assert set(await history(module_api, f"{path}?_at={between[:10]}")) == {four, three, two, one}
    assert await history(module_api, f"{path}?_at=2001-01-01") == []
    after = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert await history(module_api, f"{path}?_at={after}") == [four]
    first = await module_api.get(f"/fhir/{path}?_count=2")
    links = {link["relation"]: link["url"] for link in first.json()["link"]}
    assert len((await module_api.get(links["next"])).json()["entry"]) == 2
    deletion = (await module_api.get(f"/fhir/{path}")).json()["entry"][0]
    assert "resource" not in deletion
    assert deletion["request"]["method"] == "DELETE"


async def test_parameters_of_history(module_api: Api, patient: dict[str, Any]) -> None:
    created = await module_api.create(patient)
    path = f"Patient/{created['id']}/_history"
    assert len(await history(module_api, f"{path}?_format=json&_pretty=true&_sort=-_lastUpdated")) == 1
    assert len(await history(module_api, f"{path}?colour=red")) == 1
    subset = await module_api.get(f"/fhir/{path}?_elements=gender")
    assert "name" not in subset.json()["entry"][0]["resource"]
    for bad, code in (
        ("_since=yesterday", "value"),
        ("_count=many", "value"),
        ("_list=1", "not-supported"),
        ("_sort=name", "not-supported"),
        ("_cursor=xyz", "value"),
    ):
        refused(await module_api.get(f"/fhir/{path}?{bad}"), 400, code)
    strict = await module_api.get(f"/fhir/{path}?colour=red", prefer="handling=strict")
    refused(strict, 400, "not-supported")
    refused(await module_api.get("/fhir/Patient/nobody/_history"), 404, "not-found")


def test_http_dates_are_those_of_rfc_9110() -> None:
    assert http_date(datetime(2026, 1, 5, 10, tzinfo=UTC)) == "Mon, 05 Jan 2026 10:00:00 GMT"
