"""Writes of many callers at once: each gets its own answer, nobody waits for a row that is not theirs (ADR 0021)."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from fhir_server.audit.record import audit_record, encode
from fhir_server.store import audit_log
from tests.contract.fhir.api import Api, entry, observation, running


async def test_who_meets_a_locked_row_holds_up_nobody_else(database_url: str) -> None:
    async with running(database_url) as (_, client):
        api = Api(client)
        for number in range(3):
            await api.put_ok({"resourceType": "Patient", "id": f"locked{number}"})
        with psycopg.connect(database_url) as other:
            other.execute("SELECT FROM fhir.resource WHERE type = 'Patient' FOR UPDATE")
            stuck = [
                asyncio.create_task(
                    api.put(f"/fhir/Patient/locked{n}", {"resourceType": "Patient", "id": f"locked{n}"})
                )
                for n in range(3)
            ]
            await asyncio.sleep(0.5)
            free = [api.post("/fhir/Observation", observation("Patient/x")) for _ in range(20)]
            answers = await asyncio.wait_for(asyncio.gather(*free), 10)
            assert {answer.status_code for answer in answers} == {201}
            assert not any(task.done() for task in stuck)
            other.rollback()
        assert {answer.status_code for answer in await asyncio.gather(*stuck)} == {200}


async def test_refusals_and_successes_of_one_moment_keep_apart(api: Api) -> None:
    for number in range(10):
        await api.put_ok({"resourceType": "Patient", "id": f"p{number}"})

    async def write(number: int) -> int:
        match = 'W/"1"' if number % 2 else 'W/"7"'
        body: dict[str, Any] = {"resourceType": "Patient", "id": f"p{number}", "active": True}
        return (await api.put(f"/fhir/Patient/p{number}", body, if_match=match)).status_code

    assert await asyncio.gather(*map(write, range(10))) == [412, 200] * 5
    active = set(await api.ids("Patient?active=true"))
    assert active == {f"p{number}" for number in range(1, 10, 2)}
    assert (await api.get("/fhir/AuditEvent?subtype=update&outcome=4&_summary=count")).json()["total"] == 5


async def test_creates_of_a_batch_share_transactions_and_are_answered_each(api: Api, database_url: str) -> None:
    entries = [entry("POST", "Observation", observation("Patient/x", valueInteger=number)) for number in range(40)]
    entries[7]["resource"]["status"] = "no such status"
    answer = (await api.transaction(*entries, kind="batch")).json()["entry"]
    assert [one["response"]["status"][:3] for one in answer] == ["201"] * 7 + ["422"] + ["201"] * 32
    for number, one in enumerate(answer):
        if number != 7:
            stored = (await api.get("/fhir/" + one["response"]["location"])).json()
            assert stored["valueInteger"] == number
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(DISTINCT xmin::text) FROM fhir.resource WHERE type = 'Observation'")
        assert row.fetchone()[0] < 10  # type: ignore[index]


async def test_a_condition_is_the_same_however_it_is_spelled(api: Api) -> None:
    patient = {"resourceType": "Patient", "identifier": [{"system": "q", "value": "1"}]}
    spellings = ["identifier=q|1", "identifier=q%7C1", "identifier=q|1&_id:not=zz", "_id:not=zz&identifier=q%7c1"] * 3
    answers = await asyncio.gather(*(api.post("/fhir/Patient", patient, if_none_exist=text) for text in spellings))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]


async def test_asking_for_events_waits_for_another_process_that_indexes(database_url: str) -> None:
    async with running(database_url) as (service, client):
        records = [
            audit_record(interaction="read", status=200, trace_id=f"{number:032x}", context=None)
            for number in range(3000)
        ]
        await service._server.audit_indexer.stop()  # else it may hold the first group already, and we would wait for it
        async with service._audit_connections.lend() as connection:
            for start in range(0, 3000, 1000):
                await audit_log.append(connection, encode(records[start : start + 1000]), 1000)
        with psycopg.connect(database_url) as other:  # It takes the first group and is not done yet.
            other.execute("DELETE FROM fhir.audit_log WHERE number = (SELECT min(number) FROM fhir.audit_log)")
            asked = asyncio.create_task(Api(client).get("/fhir/AuditEvent?subtype=read&_summary=count"))
            await asyncio.sleep(0.5)
            other.commit()
        assert (await asked).json()["total"] == 2000


async def test_damaged_records_are_set_aside_and_the_others_indexed(database_url: str) -> None:
    async with running(database_url) as (service, client):
        api = Api(client)
        async with service._audit_connections.lend() as connection:
            await audit_log.append(connection, b"no records", 1)
        await api.get("/fhir/Patient/none")
        assert (await api.get("/fhir/AuditEvent?subtype=read&_summary=count")).json()["total"] == 1
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT records FROM fhir.audit_log_damaged").fetchall() == [(b"no records",)]


async def test_patches_of_one_resource_at_the_same_moment_lose_none(api: Api) -> None:
    await api.put_ok(
        {"resourceType": "Basic", "id": "many", "code": {"text": "SYNTHETIC"}, "identifier": [{"value": "first"}]}
    )

    async def add(number: int) -> int:
        body = [{"op": "add", "path": "/identifier/-", "value": {"value": str(number)}}]
        return (await json_patch(api, "Basic/many", body)).status_code

    assert await asyncio.gather(*map(add, range(32))) == [200] * 32
    found = (await api.get("/fhir/Basic/many")).json()
    assert sorted(int(item["value"]) for item in found["identifier"][1:]) == list(range(32))
    assert found["meta"]["versionId"] == "33"


async def test_patches_and_other_writes_of_one_moment_keep_apart(api: Api) -> None:
    """One patch does not fit, one makes what is not valid, one must be held against a profile: each its own answer."""
    for number in range(6):
        await api.put_ok({"resourceType": "Patient", "id": f"g{number}"})
    profile = "http://hl7.org/fhir/StructureDefinition/Patient"
    answers = await asyncio.gather(
        json_patch(api, "Patient/g0", [{"op": "add", "path": "/active", "value": True}]),
        json_patch(api, "Patient/g1", [{"op": "remove", "path": "/name"}]),
        json_patch(api, "Patient/g2", [{"op": "add", "path": "/gender", "value": "SYNTHETIC"}]),
        json_patch(api, "Patient/g3", [{"op": "add", "path": "/meta/profile", "value": [profile]}]),
        json_patch(api, "Patient/absent", [{"op": "add", "path": "/active", "value": True}]),
        api.put("/fhir/Patient/g4", {"resourceType": "Patient", "id": "g4", "active": True}),
        api.delete("/fhir/Patient/g5"),
        api.post("/fhir/Patient", {"resourceType": "Patient", "active": True}),
    )
    assert [answer.status_code for answer in answers] == [200, 422, 422, 200, 404, 200, 204, 201]
    assert {"g0", "g4"} < set(await api.ids("Patient?active=true"))
    assert (await api.get("/fhir/Patient/g3")).json()["meta"]["profile"] == [profile]
    assert (await api.get("/fhir/Patient/g1")).json()["meta"]["versionId"] == "1"
    assert len(await api.ids("Patient?active=true")) == 3


async def test_a_main_date_that_ends_at_another_time_is_indexed_anew(api: Api) -> None:
    """The entries of the index keep their key then, and are replaced in one statement with the version."""
    one = observation("Patient/x")
    one.pop("effectiveDateTime", None)
    one["id"] = "period"
    for end in ("2026-02-01", "2026-03-01", "2026-01-15"):
        one["effectivePeriod"] = {"start": "2026-01-01", "end": end}
        await api.put_ok(one)
        assert await api.ids(f"Observation?date=le{end}T23:59:59Z&_id=period") == ["period"]
        assert await api.ids("Observation?date=ge2026-01-10&patient=Patient/x") == ["period"]
    assert await api.ids("Observation?date=ge2026-02-01&_id=period") == []
    assert (await api.get("/fhir/Observation/period/_history/2")).json()["effectivePeriod"]["end"] == "2026-03-01"


async def json_patch(api: Api, reference: str, operations: list[dict[str, Any]]) -> Any:
    headers = {**api.headers, "content-type": "application/json-patch+json"}
    return await api.http.patch(f"/fhir/{reference}", json=operations, headers=headers)
