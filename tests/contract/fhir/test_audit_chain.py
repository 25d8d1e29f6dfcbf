"""Each kind of tampering past the server is found, on a real database; what the server does itself is not. SYNTHETIC.

ADR 0022
"""
# ruff: noqa: S608 - the statements are written here

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
import pytest_asyncio
from pydantic import ValidationError

from fhir_server.app import FhirService
from fhir_server.audit.checkpoint import checkpoint_key
from fhir_server.audit.record import audit_record, decode, encode
from fhir_server.audit.seal import install, seal
from fhir_server.audit.sealer import HEAD_FILE
from fhir_server.audit.verification import kept_by_this_machine, kept_in, kept_in_table, own_seal
from fhir_server.audit.verify import Kept, TamperedError, Verified, verify
from foramen.kernel.crypto import SignatureError
from foramen.kernel.settings import Settings
from tests.contract.fhir.api import EVERYTHING, Api, observation, patient_resource, refused, running
from tests.contract.fhir.server_process import authorization, start

_ADMIN = f"{EVERYTHING} foramen/admin"
_READS = 12


async def verified(url: str, home: Path, *kept: Kept) -> Verified:
    """Verify a database as the command does."""
    async with _transaction(url) as connection:
        return await verify(connection, own_seal(home, "SHA-256"), kept)


@contextlib.asynccontextmanager
async def _transaction(url: str) -> AsyncIterator[Any]:
    """A transaction in which the database's own guards are off, and of which nothing stays."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction(isolation="repeatable_read")
    try:
        await transaction.start()
        await connection.execute("SET LOCAL session_replication_role = replica")
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trail(module_database_url: str, home: Path) -> AsyncIterator[str]:
    """A chain of several blocks with a checkpoint in its middle; the server has ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        async with running(module_database_url) as (service, client):
            api = Api(client)
            await api.put_ok({**patient_resource(), "id": "p"})
            for number in range(_READS):
                await api.get(f"/fhir/Patient/{'p' if number % 2 else 'none'}")
                if number % 4 == 3:
                    await _sealed(service)
                if number == _READS // 2:
                    await service._sealer.checkpoint()
            await _sealed(service)
    yield module_database_url


async def _sealed(service: FhirService) -> None:
    """Index and seal everything, whoever of the background tasks is at it."""
    await service._indexer.settle()
    for _ in range(100):
        await service._sealer.seal()
        async with service._audit_connections.lend() as connection:
            if not await connection.fetchval("SELECT count(*) FROM fhir.audit_unsealed WHERE NOT refused"):
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the sealer does not get ready")


async def test_an_untouched_trail_is_good(trail: str, home: Path):
    kept = kept_by_this_machine(home)
    found = await verified(trail, home, *kept)
    assert found.events == _READS + 1
    assert found.blocks >= 4
    assert {head.name.split("-")[0] for head in kept} == {"checkpoint", HEAD_FILE}
    async with _transaction(trail) as connection:
        assert len(await kept_in_table(connection, home)) == 2  # One by the day's look, one by hand.


_CHANGED = 'replace(convert_from(content, \'UTF8\'), \'"outcome":"0"\', \'"outcome":"8"\')::bytea'
_ONE = "(SELECT row FROM fhir.resource WHERE type = 'AuditEvent' ORDER BY updated OFFSET 4 LIMIT 1)"
_TAMPERINGS = {
    "bytes edited": (f"UPDATE fhir.resource SET content = {_CHANGED} WHERE row = {_ONE}", "event was changed"),
    "id edited": (f"UPDATE fhir.resource SET id = 'other' WHERE row = {_ONE}", "event was changed"),
    "time edited": (
        f"UPDATE fhir.resource SET updated = updated - interval '1 hour' WHERE row = {_ONE}",
        "event was changed",
    ),
    "type edited": (f"UPDATE fhir.resource SET type = 'Basic' WHERE row = {_ONE}", "event was deleted"),
    "deleted": (f"DELETE FROM fhir.resource WHERE row = {_ONE}", "event was deleted"),
    "content emptied": (f"UPDATE fhir.resource SET content = NULL WHERE row = {_ONE}", "event was changed"),
    "inserted": (
        "INSERT INTO fhir.resource SELECT row + 1000000, key + 1, type, id || 'x', version, updated, method, present,"
        f" low, high, patients, content FROM fhir.resource WHERE row = {_ONE}",
        "event was inserted",
    ),
    "reordered": (
        """WITH two AS (SELECT row, content, id, updated, row_number() OVER (ORDER BY row) AS place FROM fhir.resource
            WHERE type = 'AuditEvent' ORDER BY row LIMIT 2)
        UPDATE fhir.resource r SET content = o.content, id = o.id, updated = o.updated
        FROM two t JOIN two o ON o.place <> t.place WHERE r.row = t.row""",
        "event was changed",
    ),
    "older version put in": (
        "INSERT INTO fhir.history SELECT row, 0, type, id, updated, method, patients, content FROM fhir.resource"
        f" WHERE row = {_ONE}",
        "earlier version",
    ),
    "block deleted": ("DELETE FROM fhir.audit_block WHERE number = 2", "Blocks are missing"),
    "block deleted, others renumbered": (
        "WITH gone AS (DELETE FROM fhir.audit_block WHERE number = 2 RETURNING number)"
        " UPDATE fhir.audit_block SET number = -number WHERE number > (SELECT number FROM gone);"
        " UPDATE fhir.audit_block SET number = -number - 1 WHERE number < 0",
        "does not follow",
    ),
    "block's time edited": (
        "UPDATE fhir.audit_block SET at = at - interval '1 day' WHERE number = 2",
        "block was changed",
    ),
    "first block deleted": ("DELETE FROM fhir.audit_block WHERE number = 1", "Blocks are missing"),
    "chain deleted": ("DELETE FROM fhir.audit_block", "There is no chain"),
    "list reordered": (
        "UPDATE fhir.audit_block SET rows = ARRAY(SELECT unnest(rows) ORDER BY 1 DESC) WHERE number = 2",
        "list of events was changed",
    ),
    "list taken out": (
        "UPDATE fhir.audit_block SET rows = NULL, digests = NULL WHERE number = 2",
        "no removal tells of it",
    ),
    "event and its place in the list deleted": (
        "WITH b AS (SELECT rows[1] AS row FROM fhir.audit_block WHERE number = 2), d AS"
        " (DELETE FROM fhir.resource WHERE row = (SELECT row FROM b))"
        " UPDATE fhir.audit_block SET rows = rows[2:], digests = substr(digests, 33), count = count - 1"
        " WHERE number = 2",
        "block was changed",
    ),
    "end cut off": (
        "WITH last AS (DELETE FROM fhir.audit_block WHERE number = (SELECT max(number) FROM fhir.audit_block)"
        " RETURNING rows) DELETE FROM fhir.resource WHERE row IN (SELECT unnest(rows) FROM last)",
        f"ends before the head of {HEAD_FILE}",
    ),
    "list that waits forged": (
        "INSERT INTO fhir.audit_unsealed (algorithm, rows, digests, mac)"
        f" SELECT 'SHA-256', ARRAY[row], sha256(content), sha256('x') FROM fhir.resource WHERE row = {_ONE}",
        "not made by this server",
    ),
    "record inserted into the log": (
        "INSERT INTO fhir.audit_log (records, count) VALUES ('1' || sha256('x') || '[]'::bytea, 1)",
        "audit log was changed or inserted",
    ),
    "group set aside": (
        "INSERT INTO fhir.audit_log_damaged VALUES (1, now(), 'x')",
        "set aside",
    ),
}


@pytest.mark.parametrize("kind", list(_TAMPERINGS))
async def test_tampering_is_found(trail: str, home: Path, kind: str):
    statement, expected = _TAMPERINGS[kind]
    async with _transaction(trail) as connection:
        await connection.execute(statement)
        with pytest.raises(TamperedError, match=expected):
            await verify(connection, own_seal(home, "SHA-256"), kept_by_this_machine(home))


async def test_the_first_bad_place_is_named(trail: str, home: Path):
    async with _transaction(trail) as connection:
        row, updated = await connection.fetchrow(f"SELECT row, updated FROM fhir.resource WHERE row = {_ONE}")
        await connection.execute(_TAMPERINGS["bytes edited"][0])
        with pytest.raises(TamperedError) as found:
            await verify(connection, own_seal(home, "SHA-256"), ())
    assert (found.value.row, found.value.at) == (row, updated)
    assert str(row) in str(found.value)
    assert updated.isoformat() in str(found.value)


async def test_who_writes_the_whole_chain_anew_lacks_the_key(trail: str, home: Path, tmp_path: Path):
    """The strongest forger without the secrets: a consistent chain, made with the server's own code."""
    from fhir_server.audit.chain import next_block
    from fhir_server.audit.seal import Seal, leaf
    from fhir_server.store import audit_chain

    forged = Seal("not the secret", "SHA-256")
    async with _transaction(trail) as connection:
        await connection.execute(_TAMPERINGS["bytes edited"][0])
        blocks, head = await audit_chain.blocks(connection, 0, 1000), None
        await connection.execute("DELETE FROM fhir.audit_block")
        for block in blocks:
            events = await audit_chain.events_of(connection, block.rows or [])
            digests = b"".join(
                leaf("SHA-256", row, events[row].logical_id, 1, events[row].updated, events[row].content or b"")
                for row in block.rows or ()
            )
            made = next_block(head, block.kind, block.at, forged, block.rows or [], digests, "SHA-256", block.note)
            await audit_chain.insert(connection, made)
            head = audit_chain.Head(made.number, made.digest)
        with pytest.raises(TamperedError, match="not sealed by this server"):
            await verify(connection, own_seal(home, "SHA-256"), ())
        # With the secret stolen as well, the signed checkpoint tells, even when files and table are gone.
        (kept,) = [k for k in kept_by_this_machine(home) if k.name.startswith("checkpoint") and k.block > 1]
        with pytest.raises(TamperedError, match=r"not the one of checkpoint"):
            await verify(connection, forged, [kept])


async def test_the_database_itself_stops_mistakes(trail: str):
    connection = await asyncpg.connect(trail)
    try:
        for statement in (
            f"UPDATE fhir.resource SET content = 'x' WHERE row = {_ONE}",
            f"DELETE FROM fhir.resource WHERE row = {_ONE}",
            "DELETE FROM fhir.audit_block",
            "UPDATE fhir.audit_checkpoint SET block = 7",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_checkpoint_of_another_key_or_with_other_words_is_refused(trail: str, home: Path, tmp_path: Path):
    path = next((home / "audit").glob("checkpoint-*.jws"))
    assert kept_in(path, tmp_path, checkpoint_key(home)).block >= 1
    head, _, signature = path.read_text().split(".")
    changed = tmp_path / "changed.jws"
    changed.write_text(f"{head}.eyJibG9jayI6IDF9.{signature}")
    with pytest.raises(SignatureError, match=r"changed\.jws"):
        kept_in(changed, home)
    from foramen.kernel.secret_files import read_or_create_key

    read_or_create_key(tmp_path, "audit-checkpoint")
    with pytest.raises(SignatureError):
        kept_in(path, home, checkpoint_key(tmp_path))


async def test_a_forged_record_in_the_log_never_becomes_an_event(database_url: str):
    async with running(database_url) as (service, client):
        api = Api(client)
        await api.get("/fhir/Patient/none")
        async with service._connections.lend() as connection:
            record = audit_record(interaction="delete", status=200, trace_id="forged", context=None)
            honest = encode([record])
            assert decode(honest) == [record]
            forged = honest[:33] + honest[33:].replace(b"delete", b"update")
            await connection.execute("INSERT INTO fhir.audit_log (records, count) VALUES ($1, 1)", forged)
        body = (await api.get("/fhir/AuditEvent")).text
        assert "forged" not in body
        async with service._connections.lend() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_log_damaged") == 1


async def test_a_forged_list_is_never_sealed(database_url: str):
    async with running(database_url) as (service, client):
        await Api(client).get("/fhir/Patient/none")
        await _sealed(service)
        async with service._connections.lend() as connection:
            await connection.execute(
                "INSERT INTO fhir.audit_unsealed (algorithm, rows, digests, mac)"
                " VALUES ('SHA-256', '{1}', sha256('a'), sha256('b'))"
            )
        await _sealed(service)
        await Api(client).get("/fhir/Patient/none")
        await _sealed(service)
        async with service._connections.lend() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_block WHERE 1 = ANY(rows)") == 0
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_unsealed WHERE refused") == 1


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
        plain = encode([audit_record(interaction="read", status=200, trace_id="old", context=None)])[33:]
        await connection.execute("INSERT INTO fhir.audit_log (records, count) VALUES ($1, 1)", plain)
        await connection.close()
        async with running(database_url) as (service, client):
            await service._indexer.settle()
            await _sealed(service)
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
            await _sealed(service)
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
            await _sealed(service)
        await verified(database_url, tmp_path)
        async with _transaction(database_url) as connection:
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
            await _sealed(one)
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
            await _sealed(service)
        found = await verified(database_url, tmp_path / "home", *kept_by_this_machine(tmp_path / "home"))
    assert found.events >= events > 0
    assert found.blocks > 1


async def test_a_chain_begun_anew_contradicts_the_files(database_url: str, tmp_path: Path):
    """Whoever empties the tables and lets the server begin again gets a good chain; what lies beside tells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        async with running(database_url) as (service, client):
            for _ in range(3):
                await Api(client).get("/fhir/Patient/none")
                await _sealed(service)
            await service._sealer.checkpoint()
        connection = await asyncpg.connect(database_url)
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("TRUNCATE fhir.audit_block, fhir.audit_unsealed, fhir.audit_checkpoint")
        await connection.execute("DELETE FROM fhir.resource WHERE type = 'AuditEvent'")
        await connection.close()
        async with running(database_url) as (service, client):
            await service._indexer.settle()
            await _sealed(service)
    await verified(database_url, tmp_path)
    kept = kept_by_this_machine(tmp_path)
    for head in kept:
        if head.block > 1:
            with pytest.raises(TamperedError, match=r"head of|not the one of"):
                await verified(database_url, tmp_path, head)
    assert {head.block > 1 for head in kept if head.name == HEAD_FILE} == {True}


def _parameters(**values: Any) -> dict[str, Any]:
    kinds = {int: "valueInteger", str: "valueDateTime"}
    parameters = [{"name": name, kinds[type(value)]: value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": parameters}


async def _older(url: str, days: int) -> None:
    """Move the clock of the whole chain back, as a holder of the secret could: it is sealed anew. For tests alone."""
    from dataclasses import replace
    from datetime import timedelta

    from fhir_server.audit.chain import block_digest
    from fhir_server.store import audit_chain

    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            previous = bytes(32)
            blocks = await audit_chain.blocks(connection, 0, 10_000)
            await connection.execute("TRUNCATE fhir.audit_block, fhir.audit_checkpoint")
            for block in blocks:
                moved = replace(block, at=block.at - timedelta(days=days), previous=previous)
                digest = previous = block_digest(moved)
                mac = seal().code("block", moved.algorithm, digest)
                await audit_chain.insert(connection, replace(moved, digest=digest, mac=mac))
    finally:
        await connection.close()


async def test_old_events_are_expunged_and_the_chain_tells(database_url: str, tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        async with running(database_url) as (service, client):
            api = Api(client)
            await api.put_ok({**patient_resource(), "id": "p"})
            for _ in range(5):
                await api.get("/fhir/Patient/p")
            await _sealed(service)
            await _older(database_url, 200)
            admin, path = api.as_(_ADMIN, sub="admin-1"), "/fhir/AuditEvent/$expunge"
            refused(await api.post(path, _parameters(before="2026-01-01")), 403, "forbidden")
            refused(await admin.post(path, _parameters()), 405, "not-supported")
            soon = "2099-01-01T00:00:00Z"
            refused(await admin.post(path, _parameters(before=soon)), 422, "business-rule")
            before = await api.ids("AuditEvent?entity=Patient/p")
            from datetime import UTC, datetime, timedelta

            limit = (datetime.now(UTC) - timedelta(days=181)).strftime("%Y-%m-%dT%H:%M:%SZ")
            answer = (await admin.post(path, _parameters(before=limit))).json()
            count = answer["parameter"][0]["valueInteger"]
            assert count >= 6
            after = await api.ids("AuditEvent?entity=Patient/p")
            assert len(before) == 6
            assert not set(before) & set(after)
            await _sealed(service)
        found = await verified(database_url, tmp_path)
        assert found.removed == count
        async with _transaction(database_url) as connection:
            # The expunged events leave no entry of any table behind.
            orphans = await connection.fetchval(
                "SELECT count(*) FROM fhir.posting p WHERE NOT EXISTS (SELECT FROM fhir.resource r WHERE r.row = p.row)"
            )
            assert orphans == 0
            await connection.execute("DELETE FROM fhir.audit_block WHERE kind = 'removal'")
            with pytest.raises(TamperedError):
                await verify(connection, own_seal(tmp_path, "SHA-256"), ())


async def test_sm3_can_follow_sha256(database_url: str, tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path))
        async with running(database_url) as (service, client):
            await Api(client).get("/fhir/Patient/none")
            await _sealed(service)
        patch.setenv("FORAMEN_DIGEST", "SM3")
        async with running(database_url) as (service, client):
            await Api(client).get("/fhir/Patient/none")
            await _sealed(service)
        install(tmp_path, "SHA-256")
        found = await verified(database_url, tmp_path)
        assert found.events == 2
        async with _transaction(database_url) as connection:
            used = await connection.fetch("SELECT DISTINCT algorithm FROM fhir.audit_block")
            assert {record[0] for record in used} == {"SHA-256", "SM3"}


@pytest.mark.parametrize("days", ["179", "0", "-1"])
def test_a_short_retention_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, days: str):
    monkeypatch.setenv("FORAMEN_AUDIT_RETENTION_DAYS", days)
    with pytest.raises(ValidationError):
        Settings()
    assert os.environ["FORAMEN_AUDIT_RETENTION_DAYS"] == days


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
        await _sealed(service)
        async with service._connections.lend() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_log_damaged") == 0
