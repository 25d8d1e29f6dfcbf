"""Each kind of tampering past the server is found, on a real database. SYNTHETIC. ADR 0022"""
# ruff: noqa: S608 - the statements are written here

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from fhir_server.audit.checkpoint import checkpoint_key
from fhir_server.audit.head_file import HEAD_FILE
from fhir_server.audit.record import audit_record, decode, encode
from fhir_server.audit.verification import kept_by_this_machine, kept_in, kept_in_table, own_seal
from fhir_server.audit.verify import TamperedError, verify
from foramen.kernel.crypto import SignatureError
from tests.contract.fhir.api import Api, patient_resource, running
from tests.contract.fhir.audit_trail import in_transaction, sealed, verified

_READS = 12


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
                    await sealed(service)
                if number == _READS // 2:
                    await service._sealer.checkpoint()
            await sealed(service)
    yield module_database_url


async def test_an_untouched_trail_is_good(trail: str, home: Path):
    kept = kept_by_this_machine(home)
    found = await verified(trail, home, *kept)
    assert found.events == _READS + 1
    assert found.blocks >= 4
    assert {head.name.split("-")[0] for head in kept} == {"checkpoint", HEAD_FILE}
    async with in_transaction(trail) as connection:
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
    "block with an unknown digest": (
        "UPDATE fhir.audit_block SET algorithm = 'MD5' WHERE number = 2",
        "unknown digest algorithm",
    ),
    "list that waits with an unknown digest": (
        "INSERT INTO fhir.audit_unsealed (algorithm, rows, digests, mac)"
        f" SELECT 'MD5', ARRAY[row], sha256(content), sha256('x') FROM fhir.resource WHERE row = {_ONE}",
        "not made by this server",
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
    async with in_transaction(trail) as connection:
        await connection.execute(statement)
        with pytest.raises(TamperedError, match=expected):
            await verify(connection, own_seal(home, "SHA-256"), kept_by_this_machine(home))


async def test_the_first_bad_place_is_named(trail: str, home: Path):
    async with in_transaction(trail) as connection:
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
    async with in_transaction(trail) as connection:
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


async def test_a_forged_list_is_neversealed(database_url: str):
    async with running(database_url) as (service, client):
        await Api(client).get("/fhir/Patient/none")
        await sealed(service)
        async with service._connections.lend() as connection:
            await connection.execute(
                "INSERT INTO fhir.audit_unsealed (algorithm, rows, digests, mac)"
                " VALUES ('SHA-256', '{1}', sha256('a'), sha256('b'))"
            )
        await sealed(service)
        await Api(client).get("/fhir/Patient/none")
        await sealed(service)
        async with service._connections.lend() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_block WHERE 1 = ANY(rows)") == 0
            assert await connection.fetchval("SELECT count(*) FROM fhir.audit_unsealed WHERE refused") == 1
