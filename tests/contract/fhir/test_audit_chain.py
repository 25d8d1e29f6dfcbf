"""What the server does itself makes one good chain: writers, imports, several servers, a kill. SYNTHETIC. ADR 0022"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import httpx
import orjson
import pytest

from fhir_server.app import FhirService
from fhir_server.audit.head_file import HEAD_FILE
from fhir_server.audit.record import audit_record, encode
from fhir_server.audit.seal import install
from fhir_server.audit.verification import kept_by_this_machine
from tests.contract.fhir.api import EVERYTHING, Api, observation, patient_resource, running
from tests.contract.fhir.audit_trail import in_transaction, sealed, verified
from tests.contract.fhir.server_process import authorization, start

_ADMIN = f"{EVERYTHING} foramen/admin"


async def test_events_of_before_the_chain_are_taken_up(database_url: str, tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        async with running(database_url) as (service, client):
            for _ in range(3):
                await Api(client).get("/fhir/Patient/none")
            await service._indexer.settle()
        connection = await asyncpg.connect(database_url)
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("TRUNCATE fhir.audit_block, fhir.audit_unsealed, fhir.audit_checkpoint")
        (tmp_path / "audit" / HEAD_FILE).unlink()
        plain = encode([audit_record(interaction="read", status=200, trace_id="old", context=None)])[33:]
        await connection.execute("INSERT INTO fhir.audit_log (records, count) VALUES ($1, 1)", plain)
        await connection.close()
        async with running(database_url) as (service, client):
            await service._indexer.settle()
            await sealed(service)
        found = await verified(database_url, tmp_path)
        assert found.events == 4


async def test_events_that_others_post_are_sealed_too(database_url: str, tmp_path: Path):
    event = {
        "resourceType": "AuditEvent",
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "recorded": "2026-11-22T08:00:00Z",
        "agent": [{"requestor": True}],
        "source": {"observer": {"display": "foramen dicomweb"}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        async with running(database_url) as (service, client):
            assert (await Api(client).post("/fhir/AuditEvent", event)).status_code == 201
            await sealed(service)
        assert (await verified(database_url, tmp_path)).events == 2


async def test_imported_events_are_sealed_too_and_none_is_replaced(database_url: str, tmp_path: Path):
    event = {
        "resourceType": "AuditEvent",
        "id": "imported",
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "recorded": "2026-11-22T08:00:00Z",
        "agent": [{"requestor": True}],
        "source": {"observer": {"display": "SYNTHETIC"}},
    }
    lines = [event, {**patient_resource(), "id": "p"}, {**event, "action": "E"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        async with running(database_url) as (service, client):
            admin = Api(client, _ADMIN)
            body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
            answer = await admin.post("/fhir/$import", body, content_type="application/fhir+ndjson")
            assert answer.status_code == 202, answer.text
            for _ in range(200):
                found = await admin.get(answer.headers["content-location"])
                if found.status_code != 202:
                    break
                await asyncio.sleep(0.3)
            counts = {item["type"]: (item["created"], item["updated"]) for item in found.json()["output"]}
            assert counts == {"AuditEvent": (1, 0), "Patient": (1, 0)}
            assert "action" not in (await admin.get("/fhir/AuditEvent/imported")).json()
            await sealed(service)
        await verified(database_url, tmp_path)
        async with in_transaction(database_url) as connection:
            row = await connection.fetchval(
                "SELECT row FROM fhir.resource WHERE type = 'AuditEvent' AND id = 'imported'"
            )
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_block WHERE $1 = ANY(rows)", row) == 1


async def test_four_writers_and_two_servers_make_one_chain(database_url: str, tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        async with running(database_url) as (one, first), running(database_url) as (two, second):
            await Api(first).put_ok({**patient_resource(), "id": "p"})

            async def work(client: httpx.AsyncClient, service: FhirService, number: int) -> None:
                api = Api(client)
                for turn in range(20):
                    await api.get("/fhir/Patient/p")
                    await api.put_ok({**observation("Patient/p"), "id": f"o{number}-{turn}"})
                    if turn % 7 == number:
                        await service._indexer.settle()
                        await service._sealer.seal()

            pairs = [(first, one), (second, two)] * 2
            await asyncio.gather(*(work(client, server, n) for n, (client, server) in enumerate(pairs)))
            await sealed(one)
        found = await verified(database_url, tmp_path, *kept_by_this_machine(tmp_path))
    assert found.events == 1 + 4 * 20 * 2
    assert found.blocks > 2


async def test_kill_9_while_sealing(database_url: str, tmp_path: Path):
    """The process dies with its block half written: another goes on, and no event is lost or sealed twice."""
    server = start(database_url, tmp_path)
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'fhir.audit_block'::regclass AND NOT granted)"
    connection = await asyncpg.connect(database_url)
    events = 0
    try:
        async with httpx.AsyncClient(headers={"Authorization": authorization()}, timeout=20) as http:
            hold = connection.transaction()
            await hold.start()
            await connection.execute("LOCK TABLE fhir.audit_block IN SHARE ROW EXCLUSIVE MODE")
            while not await connection.fetchval(waiting):
                answers = await asyncio.gather(*(http.get(f"{server.base}/Patient/none") for _ in range(8)))
                events += sum(answer.status_code == 404 for answer in answers)
                await asyncio.sleep(0.05)
            server.kill()
            await hold.rollback()
        assert await connection.fetchval("SELECT max(number) FROM fhir.audit_block") == 1
    finally:
        server.stop()
        await connection.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path / "home"))
        async with running(database_url) as (service, _):
            await sealed(service)
        found = await verified(database_url, tmp_path / "home", *kept_by_this_machine(tmp_path / "home"))
    assert found.events >= events > 0
    assert found.blocks > 1


async def test_a_list_with_an_unknown_digest_is_refused_and_the_others_are_sealed(database_url: str):
    async with running(database_url) as (service, client):
        async with service._connections.lend() as connection:
            await connection.execute(
                "INSERT INTO fhir.audit_unsealed (algorithm, rows, digests, mac)"
                " VALUES ('MD5', '{1}', sha256('a'), sha256('b'))"
            )
        await Api(client).get("/fhir/Patient/none")
        await sealed(service)
        async with service._connections.lend() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_unsealed WHERE refused") == 1
            assert await connection.fetchval("SELECT sum(count) FROM fhir.audit_block") == 1


async def test_sm3_can_follow_sha256(database_url: str, tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        async with running(database_url) as (service, client):
            await Api(client).get("/fhir/Patient/none")
            await sealed(service)
        patch.setenv("FORAMEN_DIGEST", "SM3")
        async with running(database_url) as (service, client):
            await Api(client).get("/fhir/Patient/none")
            await sealed(service)
        install(tmp_path, "SHA-256")
        found = await verified(database_url, tmp_path)
        assert found.events == 2
        async with in_transaction(database_url) as connection:
            used = await connection.fetch("SELECT DISTINCT algorithm FROM fhir.audit_block")
            assert {record[0] for record in used} == {"SHA-256", "SM3"}


async def test_a_group_that_is_in_the_log_twice_is_one_event(database_url: str):
    """A connection that is lost between commit and answer has the writer append its group again."""
    async with running(database_url) as (service, client):
        api = Api(client)
        await api.get("/fhir/Patient/none")
        async with service._connections.lend() as connection:
            (group,) = await connection.fetch("SELECT records, count FROM fhir.audit_log")
            again = "INSERT INTO fhir.audit_log (records, count) VALUES ($1, $2)"
            await connection.execute(again, *group)
            assert (await api.get("/fhir/AuditEvent?subtype=read&_summary=count")).json()["total"] == 1
            await connection.execute(again, *group)  # And once more when it is an event already.
        assert (await api.get("/fhir/AuditEvent?subtype=read&_summary=count")).json()["total"] == 1
        await sealed(service)
        async with service._connections.lend() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_log_damaged") == 0
