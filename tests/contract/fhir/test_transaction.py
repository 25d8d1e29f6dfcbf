"""transaction and batch: all or nothing, references resolved, order kept."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from tests.contract.fhir.api import Api, entry, observation, refused

P, O, R = (f"urn:uuid:{uuid.UUID(int=n)}" for n in (1, 2, 3))  # noqa: E741


def numbered(value: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": "urn:t", "value": value}]}


async def test_urn_uuid_is_resolved_everywhere_it_is_a_reference(module_api: Api) -> None:
    report = {
        "resourceType": "DiagnosticReport",
        "status": "partial",
        "code": {"text": "MR"},
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{P}">x</a></div>'},
        "subject": {"reference": P},
        "result": [{"reference": O}],
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": P}],
        "contained": [{"resourceType": "Basic", "id": "c", "code": {"text": "x"}, "subject": {"reference": P}}],
        "extension": [
            {"url": "http://e.org/a", "extension": [{"url": "b", "valueReference": {"reference": O}}]},
            {"url": "http://e.org/u", "valueUri": P},
            {"url": "http://e.org/c", "valueReference": {"reference": "#c"}},
        ],
    }
    answer = await module_api.transaction(
        entry("POST", "DiagnosticReport", report, R),
        entry("POST", "Observation", observation(P), O),
        entry("POST", "Patient", numbered("everywhere"), P),
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["type"] == "transaction-response"
    places = [e["response"]["location"].rpartition("/_history")[0] for e in body["entry"]]
    assert [place.split("/")[0] for place in places] == ["DiagnosticReport", "Observation", "Patient"]
    assert all(e["response"]["status"] == "201 Created" for e in body["entry"])
    stored = (await module_api.get(f"/fhir/{places[0]}")).json()
    assert stored["subject"]["reference"] == places[2]
    assert stored["result"][0]["reference"] == places[1]
    assert stored["contained"][0]["subject"]["reference"] == places[2]
    assert stored["extension"][0]["extension"][0]["valueReference"]["reference"] == places[1]
    assert stored["extension"][1]["valueUri"] == places[2]
    assert f'href="{places[2]}"' in stored["text"]["div"]
    assert stored["identifier"][0]["value"] == P  # A business identifier is no reference.
    assert await module_api.ids(f"DiagnosticReport?patient={places[2]}&result={places[1]}") == [stored["id"]]


async def test_one_fault_rolls_everything_back(module_api: Api) -> None:
    bad = {"resourceType": "Patient", "gender": "x"}
    answer = await module_api.transaction(entry("POST", "Patient", numbered("gone")), entry("POST", "Patient", bad))
    outcome = refused(answer, 422, "code-invalid")
    assert outcome["issue"][0]["expression"] == ["Bundle.entry[1].resource.gender"]
    stale = {**numbered("gone"), "id": "stale"}
    answer = await module_api.transaction(
        entry("POST", "Patient", numbered("gone")), entry("PUT", "Patient/stale", stale, ifMatch='W/"9"')
    )
    refused(answer, 412, "conflict")
    answer = await module_api.transaction(entry("POST", "Patient", numbered("gone")), entry("GET", "Patient/no-such"))
    refused(answer, 404, "not-found")
    assert await module_api.ids("Patient?identifier=urn:t|gone") == []


async def test_conditional_create_is_a_reference_target_and_replay_is_harmless(module_api: Api) -> None:
    patient = entry("POST", "Patient", numbered("once"), P, ifNoneExist="identifier=urn:t|once")
    first = await module_api.transaction(
        patient,
        entry(
            "POST",
            "Observation",
            observation(P, identifier=[{"system": "urn:o", "value": "once"}]),
            ifNoneExist="identifier=urn:o|once",
        ),
    )
    again = await module_api.transaction(patient, entry("POST", "Observation", observation(P)))
    assert [e["response"]["status"][:3] for e in first.json()["entry"]] == ["201", "201"]
    assert [e["response"]["status"][:3] for e in again.json()["entry"]] == ["200", "201"]
    assert first.json()["entry"][0]["response"]["location"] == again.json()["entry"][0]["response"]["location"]
    (logical_id,) = await module_api.ids("Patient?identifier=urn:t|once")
    assert len(await module_api.ids(f"Observation?patient={logical_id}")) == 2


async def test_replayed_bundles_at_the_same_time_write_once(module_api: Api) -> None:
    entries = [
        entry(
            "POST",
            "Patient",
            numbered(f"race{n}"),
            f"urn:uuid:{uuid.UUID(int=n)}",
            ifNoneExist=f"identifier=urn:t|race{n}",
        )
        for n in range(4)
    ]
    answers = await asyncio.gather(
        *(module_api.transaction(*(entries if n % 2 else reversed(entries))) for n in range(8))
    )
    assert [answer.status_code for answer in answers] == [200] * 8
    for number in range(4):
        assert len(await module_api.ids(f"Patient?identifier=urn:t|race{number}")) == 1


async def test_conditional_reference(module_api: Api) -> None:
    created = await module_api.create(numbered("conditional"))
    answer = await module_api.transaction(
        entry("POST", "Observation", observation("Patient?identifier=urn:t|conditional"))
    )
    place = answer.json()["entry"][0]["response"]["location"].rpartition("/_history")[0]
    assert (await module_api.get(f"/fhir/{place}")).json()["subject"]["reference"] == f"Patient/{created['id']}"
    missing = await module_api.transaction(entry("POST", "Observation", observation("Patient?identifier=urn:t|none")))
    refused(missing, 412, "not-found")


async def test_order_is_delete_post_put_get_whatever_the_bundle_says(module_api: Api) -> None:
    old = await module_api.create(numbered("order"))
    put = {**numbered("order"), "id": "ordered-by-put"}
    answer = await module_api.transaction(
        entry("GET", "Patient?identifier=urn:t|order&_total=accurate"),
        entry("PUT", "Patient/ordered-by-put", put),
        entry("POST", "Patient", numbered("order")),
        entry("DELETE", f"Patient/{old['id']}"),
    )
    assert [e["response"]["status"][:3] for e in answer.json()["entry"]] == ["200", "201", "201", "204"]
    assert answer.json()["entry"][0]["resource"]["total"] == 2


async def test_same_resource_twice_is_refused(module_api: Api) -> None:
    put = entry("PUT", "Patient/twice", {**numbered("twice"), "id": "twice"})
    refused(await module_api.transaction(put, put), 400, "duplicate")
    refused(await module_api.get("/fhir/Patient/twice"), 404, "not-found")


async def test_if_match_in_entries(module_api: Api) -> None:
    created = await module_api.create(numbered("match"))
    change = {**created, "gender": "male"}
    url = f"Patient/{created['id']}"
    answer = await module_api.transaction(entry("PUT", url, change, ifMatch='W/"1"'))
    assert answer.json()["entry"][0]["response"]["etag"] == 'W/"2"'
    refused(await module_api.transaction(entry("PUT", url, change, ifMatch='W/"1"')), 412, "conflict")


async def test_bad_bundles(module_api: Api) -> None:
    refused(await module_api.post("/fhir/", {"resourceType": "Patient"}), 400, "structure")
    refused(await module_api.post("/fhir/", {"resourceType": "Bundle", "type": "collection"}), 400, "value")
    refused(await module_api.transaction({"resource": numbered("x")}), 400, "required")
    refused(await module_api.transaction(entry("POST", "Nonsense", numbered("x"))), 404, "not-found")
    refused(await module_api.transaction(entry("PATCH", "Patient/1")), 400, "not-supported")
    outcome = refused(await module_api.transaction(entry("PUT", "Patient/a", numbered("x"))), 400, "required")
    assert outcome["issue"][0]["expression"] == ["Bundle.entry[0].resource.id"]
    empty_list = {"resourceType": "Bundle", "type": "transaction", "entry": []}
    refused(await module_api.post("/fhir/", empty_list), 400, "structure")
    empty = await module_api.transaction()
    assert empty.json()["type"] == "transaction-response"


async def test_batch_answers_each_entry(module_api: Api) -> None:
    answer = await module_api.transaction(
        entry("POST", "Patient", numbered("batch")),
        entry("POST", "Patient", {"resourceType": "Patient", "gender": "x"}),
        entry("GET", "Patient/no-such"),
        entry("GET", "Patient?identifier=urn:t|batch"),
        entry("DELETE", "AuditEvent/1"),
        kind="batch",
    )
    entries = answer.json()["entry"]
    assert [e["response"]["status"][:3] for e in entries] == ["201", "422", "404", "200", "405"]
    assert entries[1]["response"]["outcome"]["issue"][0]["code"] == "code-invalid"
    assert entries[3]["resource"]["total"] == 1


async def test_prefer_representation_returns_the_resources(module_api: Api) -> None:
    answer = await module_api.transaction(entry("POST", "Patient", numbered("full")), prefer="return=representation")
    assert answer.json()["entry"][0]["resource"]["identifier"][0]["value"] == "full"


async def test_base_url_without_slash(module_api: Api) -> None:
    body = {"resourceType": "Bundle", "type": "transaction"}
    assert (await module_api.post("/fhir", body)).status_code == 200


async def test_large_transaction(module_api: Api) -> None:
    entries = [entry("POST", "Observation", observation("Patient/large", code=f"c{n}")) for n in range(700)]
    answer = await module_api.transaction(*entries)
    assert answer.status_code == 200
    assert (await module_api.get("/fhir/Observation?patient=large&_summary=count")).json()["total"] == 700
