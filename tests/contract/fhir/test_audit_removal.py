"""AuditEvents are kept for the retention; older ones go by rule, and the chain tells. SYNTHETIC. ADR 0022, 0029"""
# ruff: noqa: ASYNC110 - waits for the database, which sets no event

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from pydantic import ValidationError

from fhir_server.app import FhirService
from fhir_server.audit.chain import block_digest, list_digest
from fhir_server.audit.head_file import HEAD_FILE
from fhir_server.audit.retention import may_be_removed
from fhir_server.audit.seal import leaf, seal
from fhir_server.audit.verification import own_seal
from fhir_server.audit.verify import TamperedError, verify
from fhir_server.operations import expunge_events
from fhir_server.store import audit_chain
from foramen.kernel.settings import Settings
from tests.contract.fhir.api import EVERYTHING, Api, patient_resource, refused, running
from tests.contract.fhir.audit_trail import in_transaction, sealed, verified

_ADMIN = f"{EVERYTHING} foramen/admin"
_PATH = "/fhir/AuditEvent/$expunge"
_DAYS = 200


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test."""
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    return tmp_path


def _parameters(**values: Any) -> dict[str, Any]:
    kinds = {int: "valueInteger", str: "valueDateTime"}
    parameters = [{"name": name, kinds[type(value)]: value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": parameters}


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _older(url: str, home: Path, *, events_too: bool = True) -> None:
    """Move the clock of the whole chain back, as a holder of all secrets could: it is sealed anew. For tests alone."""
    connection = await asyncpg.connect(url)
    ago = timedelta(days=_DAYS)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            blocks = await audit_chain.blocks(connection, 0, 10_000)
            await connection.execute("TRUNCATE fhir.audit_block, fhir.audit_checkpoint")
            if events_too:
                rows = [row for block in blocks for row in block.rows or ()]
                await connection.execute(
                    "UPDATE fhir.resource SET updated = updated - $1::interval WHERE row = ANY($2)", ago, rows
                )
            previous = bytes(32)
            for block in blocks:
                found, rows = await audit_chain.events_of(connection, block.rows or []), block.rows or []
                name = block.algorithm
                digests = b"".join(
                    leaf(name, row, found[row].logical_id, 1, found[row].updated, found[row].content or b"")
                    for row in rows
                )
                listed = list_digest(name, rows, digests)
                moved = replace(block, at=block.at - ago, previous=previous, digests=digests, list_digest=listed)
                digest = previous = block_digest(moved)
                mac = seal().code("block", moved.algorithm, digest)
                await audit_chain.insert(connection, replace(moved, digest=digest, mac=mac))
    finally:
        await connection.close()
    (home / "audit" / HEAD_FILE).unlink()


async def _filled(database_url: str) -> None:
    """Leave six events of a patient, sealed."""
    async with running(database_url) as (service, client):
        api = Api(client)
        await api.put_ok({**patient_resource(), "id": "p"})
        for _ in range(5):
            await api.get("/fhir/Patient/p")
        await sealed(service)


@pytest_asyncio.fixture(loop_scope="session")
async def old(database_url: str, home: Path) -> AsyncIterator[tuple[FhirService, Api]]:
    """A server whose events are past the retention."""
    await _filled(database_url)
    await _older(database_url, home)
    async with running(database_url) as (service, client):
        yield service, Api(client, _ADMIN, sub="admin-1")


async def test_old_events_are_expunged_and_the_chain_tells(old: tuple[FhirService, Api], database_url: str, home: Path):
    service, admin = old
    api = admin.as_(EVERYTHING)
    refused(await api.post(_PATH, _parameters(before="2026-01-01")), 403, "forbidden")
    refused(await admin.post(_PATH, _parameters()), 405, "not-supported")
    before = await api.ids("AuditEvent?entity=Patient/p")
    answer = (await admin.post(_PATH, _parameters(before=_days_ago(181)))).json()
    count = answer["parameter"][0]["valueInteger"]
    assert count >= 6
    after = await api.ids("AuditEvent?entity=Patient/p")
    assert len(before) == 6
    assert not set(before) & set(after)
    await sealed(service)
    found = await verified(database_url, home)
    assert found.removed == count
    async with in_transaction(database_url) as connection:
        # The expunged events leave no entry of any table behind.
        orphans = await connection.fetchval(
            "SELECT count(*) FROM fhir.posting p WHERE NOT EXISTS (SELECT FROM fhir.resource r WHERE r.row = p.row)"
        )
        assert orphans == 0
        await connection.execute("DELETE FROM fhir.audit_block WHERE kind = 'removal'")
        with pytest.raises(TamperedError):
            await verify(connection, own_seal(home, "SHA-256"), ())


@pytest.mark.parametrize("days", [-30, 0, 1, 179])
async def test_what_is_within_the_retention_is_never_removed(old: tuple[FhirService, Api], days: int):
    service, admin = old
    answer = await admin.post(_PATH, _parameters(before=_days_ago(days)))
    refused(answer, 422, "business-rule")
    async with service._connections.lend() as connection:
        assert await connection.fetchval("SELECT count(*) FROM fhir.audit_block WHERE kind = 'removal'") == 0


async def test_events_younger_than_their_block_says_stay(database_url: str, home: Path):
    """Somebody moved the time of blocks, so that the next removal by rule would take what is young."""
    await _filled(database_url)
    await _older(database_url, home, events_too=False)
    async with running(database_url) as (_, client):
        admin = Api(client, _ADMIN)
        refused(await admin.post(_PATH, _parameters(before=_days_ago(181))), 422, "business-rule")
        assert len(await admin.ids("AuditEvent?entity=Patient/p")) == 6


async def test_blocks_whose_time_was_edited_are_not_removed(database_url: str, home: Path):
    await _filled(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("UPDATE fhir.audit_block SET at = at - interval '200 days'")
        await connection.execute("UPDATE fhir.resource SET updated = updated - interval '200 days'")
    finally:
        await connection.close()
    async with running(database_url) as (_, client):
        admin = Api(client, _ADMIN)
        refused(await admin.post(_PATH, _parameters(before=_days_ago(181))), 422, "business-rule")


async def test_whether_an_event_may_be_removed(old: tuple[FhirService, Api]):
    service, admin = old
    events = await admin.ids("AuditEvent?entity=Patient/p&_sort=date")
    await admin.get("/fhir/Patient/p")
    await sealed(service)
    young = (await admin.ids("AuditEvent?entity=Patient/p&_sort=-date"))[0]
    async with service._connections.lend() as connection:
        assert await may_be_removed(connection, events[0], 180)
        assert await may_be_removed(connection, events[0], 1)
        assert not await may_be_removed(connection, events[0], 365)
        assert not await may_be_removed(connection, young, 180)
        assert not await may_be_removed(connection, young, 0)
        assert not await may_be_removed(connection, "none", 180)


async def test_search_parameters_that_come_into_force_meanwhile_are_no_fault(old: tuple[FhirService, Api]):
    """The finding: what removes index entries by an older registry is refused by the database, and was answered 500."""
    service, admin = old
    await admin.get("/fhir/metadata")
    async with service._connections.lend() as connection:
        await connection.execute("UPDATE fhir.registry SET version = version + 1")
    answer = await admin.post(_PATH, _parameters(before=_days_ago(181)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameter"][0]["valueInteger"] >= 6


async def test_a_sealer_that_is_at_it_for_long_is_told(
    old: tuple[FhirService, Api], database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(expunge_events, "_LOCK_MS", 200)
    _, admin = old
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await audit_chain.lock(other)
            answer = await admin.post(_PATH, _parameters(before=_days_ago(181)))
            refused(answer, 409, "conflict")
        assert (await admin.post(_PATH, _parameters(before=_days_ago(181)))).status_code == 200
    finally:
        await other.close()


async def test_writers_that_cross_the_removal_again_and_again_are_told(old: tuple[FhirService, Api], database_url: str):
    """A real deadlock: somebody holds an event's row and asks for the chain, which the removal has."""
    _, admin = old
    other = await asyncpg.connect(database_url)
    try:
        await other.execute("SET deadlock_timeout = '1h'")  # So it is the removal that is given up.
        async with other.transaction():
            await other.execute("SELECT FROM fhir.resource WHERE type = 'AuditEvent' FOR UPDATE")
            asked = asyncio.create_task(admin.post(_PATH, _parameters(before=_days_ago(181))))
            while not await other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                await asyncio.sleep(0.02)
            await audit_chain.lock(other)
        answer = await asked
    finally:
        await other.close()
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("days", ["179", "0", "-1"])
def test_a_short_retention_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, days: str):
    monkeypatch.setenv("FORAMEN_AUDIT_RETENTION_DAYS", days)
    with pytest.raises(ValidationError):
        Settings()
