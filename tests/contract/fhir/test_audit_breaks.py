"""A chain that is cut off or exchanged is told, in the chain itself, and stays told. SYNTHETIC. ADR 0029"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from click.testing import Result
from prometheus_client import REGISTRY
from typer.testing import CliRunner

from fhir_server.app import FhirService
from fhir_server.audit.head_file import HEAD_FILE
from fhir_server.audit.verification import kept_by_this_machine
from fhir_server.audit.verify import TamperedError
from foramen import cli
from foramen.kernel.errors import InteropError
from foramen.kernel.settings import get_settings
from tests.contract.fhir.api import Api, running
from tests.contract.fhir.audit_trail import sealed, verified

_CUT = """WITH last AS (
    DELETE FROM fhir.audit_block WHERE number > (SELECT max(number) FROM fhir.audit_block) - 2 RETURNING rows
), listed AS (SELECT unnest(rows) AS row FROM last), lists AS (DELETE FROM fhir.audit_unsealed)
DELETE FROM fhir.resource WHERE row IN (SELECT row FROM listed)"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test."""
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    return tmp_path


@asynccontextmanager
async def tampering(url: str) -> AsyncIterator[Any]:
    """A connection of somebody who owns the database and has switched its guards off."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        yield connection
    finally:
        await connection.close()


async def grow(service: FhirService, client: Any, blocks: int = 4) -> None:
    """Let the chain grow, an event a block."""
    for _ in range(blocks):
        await Api(client).get("/fhir/Patient/none")
        await sealed(service)


def filed(home: Path) -> int:
    """Number of the block in the file."""
    return int(orjson.loads((home / "audit" / HEAD_FILE).read_bytes())["block"])


async def told(url: str) -> list[dict[str, Any]]:
    """What the blocks of breaks say."""
    connection = await asyncpg.connect(url)
    try:
        notes = await connection.fetch("SELECT note FROM fhir.audit_block WHERE kind = 'break' ORDER BY number")
        return [orjson.loads(record[0]) for record in notes]
    finally:
        await connection.close()


def alarm() -> float | None:
    return REGISTRY.get_sample_value("foramen_audit_chain_breaks")


async def test_a_chain_that_was_cut_and_grew_past_its_old_end_is_told(
    database_url: str, home: Path, capsys: pytest.CaptureFixture[str]
):
    """The finding: the file with the head was replaced as soon as the new chain was as long as the old one."""
    async with running(database_url) as (service, client):
        await grow(service, client)
    lost = orjson.loads((home / "audit" / HEAD_FILE).read_bytes())
    async with tampering(database_url) as connection:
        await connection.execute(_CUT)
    capsys.readouterr()
    async with running(database_url) as (service, client):
        await grow(service, client, 6)
        assert alarm() == 1
    assert filed(home) > lost["block"]
    assert await told(database_url) == [{"reason": "lost", **lost}]
    output = capsys.readouterr()
    assert (output.out + output.err).count("AUDIT CHAIN IS BROKEN") == 1
    with pytest.raises(TamperedError, match=f"block {lost['block']}, which was sealed, is not in it"):
        await verified(database_url, home)
    # It is lasting: a further start adds no second block of it, and clears nothing.
    async with running(database_url) as (service, client):
        await grow(service, client, 1)
        assert alarm() == 1
    assert len(await told(database_url)) == 1
    with pytest.raises(TamperedError, match="The chain broke"):
        await verified(database_url, home)


async def test_a_chain_that_is_cut_while_the_server_runs_is_told_before_the_next_block(database_url: str, home: Path):
    async with running(database_url) as (service, client):
        await grow(service, client)
        lost = filed(home)
        async with tampering(database_url) as connection:
            await connection.execute(_CUT)
        await grow(service, client, 1)
        assert [one["block"] for one in await told(database_url)] == [lost]
        assert filed(home) < lost + 1
        await grow(service, client, 4)
    assert [one["block"] for one in await told(database_url)] == [lost]
    with pytest.raises(TamperedError, match="The chain broke"):
        await verified(database_url, home)


async def test_without_the_file_the_running_server_still_knows(database_url: str, home: Path):
    async with running(database_url) as (service, client):
        await grow(service, client)
        lost = filed(home)
        async with tampering(database_url) as connection:
            await connection.execute(_CUT)
        (home / "audit" / HEAD_FILE).unlink()
        await grow(service, client, 1)
    assert [one["block"] for one in await told(database_url)] == [lost]


async def test_a_chain_that_is_emptied_and_begun_anew_is_told(database_url: str, home: Path):
    """Whoever empties the tables gets a chain that is good but for the block that tells of the one before."""
    async with running(database_url) as (service, client):
        await grow(service, client)
        await service._sealer.checkpoint()
    lost = filed(home)
    kept = [head for head in kept_by_this_machine(home) if head.name.startswith("checkpoint") and head.block > 1]
    async with tampering(database_url) as connection:
        await connection.execute("TRUNCATE fhir.audit_block, fhir.audit_unsealed, fhir.audit_checkpoint")
        await connection.execute("DELETE FROM fhir.resource WHERE type = 'AuditEvent'")
    async with running(database_url) as (service, client):
        await grow(service, client, 1)
        assert [one["block"] for one in await told(database_url)] == [lost]
        async with tampering(database_url) as connection:  # And once more, under the running server.
            await connection.execute("TRUNCATE fhir.audit_block, fhir.audit_unsealed, fhir.audit_checkpoint")
        await grow(service, client, 1)
    assert len(await told(database_url)) == 1
    with pytest.raises(TamperedError, match="The chain broke"):
        await verified(database_url, home)
    for head in kept:
        with pytest.raises(TamperedError, match=r"The chain broke|not the one of"):
            await verified(database_url, home, head)
    assert kept


async def test_a_block_made_without_the_secret_is_told(database_url: str, home: Path):
    async with running(database_url) as (service, client):
        await grow(service, client, 2)
    async with tampering(database_url) as connection:
        await connection.execute(
            "INSERT INTO fhir.audit_block SELECT number + 1, kind, at, algorithm, 0, '{}', '', list_digest, note,"
            " digest, sha256('x'), sha256('y') FROM fhir.audit_block ORDER BY number DESC LIMIT 1"
        )
    async with running(database_url) as (service, client):
        await grow(service, client, 2)
    assert [one["reason"] for one in await told(database_url)] == ["forged"]


async def test_an_acknowledged_break_is_good_again_and_stays_in_the_chain(database_url: str, home: Path):
    async with running(database_url) as (service, client):
        await grow(service, client)
    async with tampering(database_url) as connection:
        await connection.execute(_CUT)
    async with running(database_url) as (service, client):
        await grow(service, client, 1)
        assert alarm() == 1
        done = await service._sealer.acknowledge("operator", "SYNTHETIC: restored")
        assert len(done) == 1
        assert await service._sealer.acknowledge("operator", "SYNTHETIC: again") == []
        assert alarm() == 0
        await grow(service, client, 1)
        events = (await Api(client).get("/fhir/AuditEvent?subtype=audit-acknowledge")).json()["entry"]
        assert events[0]["resource"]["agent"][0]["altId"] == "operator"
        await sealed(service)
    assert (await verified(database_url, home)).breaks == 1
    async with tampering(database_url) as connection:
        await connection.execute(_CUT)
    async with running(database_url) as (service, client):
        await grow(service, client, 1)
    with pytest.raises(TamperedError, match="The chain broke"):
        await verified(database_url, home)


async def test_a_chain_of_another_secret_stops_the_start(database_url: str, home: Path, tmp_path: Path):
    async with running(database_url) as (service, client):
        await grow(service, client, 2)
    (home / "secrets" / "audit-seal").write_text("SYNTHETIC other secret of another installation")
    with pytest.raises(InteropError, match="sealed with another secret"):
        async with running(database_url):
            pass
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM fhir.audit_block") == 3
        assert await connection.fetchval("SELECT count(*) FROM fhir.audit_log") == 0
    finally:
        await connection.close()


async def test_a_chain_of_algorithms_from_elsewhere_stops_the_start(database_url: str):
    async with running(database_url) as (service, client):
        await grow(service, client, 1)
    async with tampering(database_url) as connection:
        await connection.execute("UPDATE fhir.audit_block SET algorithm = 'SHA-512'")
    with pytest.raises(InteropError, match="does not know"):
        async with running(database_url):
            pass


async def test_one_forged_first_block_does_not_stop_the_start(database_url: str):
    async with running(database_url) as (service, client):
        await grow(service, client, 1)
    async with tampering(database_url) as connection:
        await connection.execute("UPDATE fhir.audit_block SET mac = sha256('x') WHERE number = 1")
    async with running(database_url) as (_, client):
        assert (await Api(client).get("/fhir/Patient/none")).status_code == 404


async def test_the_command_acknowledges_and_verify_says_so(
    database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
):
    async def audit(*arguments: str) -> Result:
        get_settings.cache_clear()
        try:
            return await asyncio.to_thread(CliRunner().invoke, cli.app, ["audit", *arguments])
        finally:
            get_settings.cache_clear()

    monkeypatch.setenv("FORAMEN_DATABASE_URL", database_url)
    async with running(database_url) as (service, client):
        await grow(service, client)
    async with tampering(database_url) as connection:
        await connection.execute(_CUT)
    async with running(database_url) as (service, client):
        await grow(service, client, 1)
    bad = await audit("verify")
    assert bad.exit_code == 1
    assert "The chain broke" in bad.output
    done = await audit("acknowledge", "--reason", "SYNTHETIC restore")
    assert done.exit_code == 0, done.output
    assert "1 break" in done.output
    assert "no break" in (await audit("acknowledge", "--reason", "SYNTHETIC again")).output
    assert (await audit("acknowledge", "--reason", " ")).exit_code == 2
    good = await audit("verify")
    assert good.exit_code == 0, good.output
    assert "1 break" in good.output
