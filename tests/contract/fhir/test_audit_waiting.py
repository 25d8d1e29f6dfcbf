"""Nobody who reads waits for the chain: not for its beginning, its sealer or its indexer. SYNTHETIC. ADR 0029"""
# ruff: noqa: ASYNC110 - waits for the database, which sets no event

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest

from tests.contract.fhir.api import Api, running
from tests.contract.fhir.audit_trail import sealed, verified

_LOCK = 0x464F52_4143  # Of the chain: store/audit_chain.py


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test."""
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    return tmp_path


async def test_a_second_process_starts_and_serves_while_the_first_takes_up_old_events(
    database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first one holds the lock of the chain for longer than a statement may take; there is no chain yet."""
    monkeypatch.setenv("FORAMEN_FHIR_STATEMENT_TIMEOUT_S", "1")
    async with running(database_url) as (service, client):
        await Api(client).get("/fhir/Patient/none")
        await service._indexer.settle()
    other = await asyncpg.connect(database_url)
    try:
        await other.execute("SET session_replication_role = replica")
        await other.execute("TRUNCATE fhir.audit_block, fhir.audit_unsealed, fhir.audit_checkpoint")
        (home / "audit" / "head.json").unlink()
        first = other.transaction()
        await first.start()
        await other.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        began = time.monotonic()
        async with running(database_url) as (service, client):
            assert time.monotonic() - began < 5
            assert (await Api(client).get("/fhir/Patient/none")).status_code == 404
            await asyncio.sleep(1.5)  # Longer than a statement may take.
            assert await other.fetchval("SELECT count(*) FROM fhir.audit_block") == 0
            await first.rollback()
            async with asyncio.timeout(10):
                await service._sealer._begun.wait()
            await sealed(service)
    finally:
        await other.close()
    assert (await verified(database_url, home)).events == 2


async def test_reads_do_not_wait_for_the_sealer_and_the_indexer(database_url: str):
    """Both are held up, by locks of somebody else, and searches for events wait as they must."""
    async with running(database_url) as (service, client):
        api = Api(client)
        await api.get("/fhir/Patient/none")
        await sealed(service)
        other = await asyncpg.connect(database_url)
        hold = other.transaction()
        await hold.start()
        searches = []
        try:
            await other.execute("LOCK TABLE fhir.audit_unsealed IN ACCESS EXCLUSIVE MODE")
            await api.get("/fhir/Patient/none")
            searches = [asyncio.create_task(api.get("/fhir/AuditEvent?_summary=count")) for _ in range(3)]
            while (
                await other.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE relation = 'fhir.audit_unsealed'::regclass AND NOT granted"
                )
                < 2
            ):
                await asyncio.sleep(0.05)
            async with asyncio.timeout(5):
                answers = await asyncio.gather(*(api.get("/fhir/Patient/none") for _ in range(8)))
            assert {answer.status_code for answer in answers} == {404}
            assert not any(task.done() for task in searches)
        finally:
            await hold.rollback()
            await other.close()
        assert {answer.status_code for answer in await asyncio.gather(*searches)} == {200}
