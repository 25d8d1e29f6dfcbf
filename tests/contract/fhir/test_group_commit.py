"""Writes of many callers at once: each gets its own answer, nobody waits for a row that is not theirs (ADR 0021)."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from fhir_server.audit.record import audit_record, encode
from fhir_server.store import audit_log
from tests.contract.fhir.api import Api, observation, running


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
