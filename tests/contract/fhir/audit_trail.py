"""A database's audit trail as tests look at it: verified as the command does, tampered with, sealed at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from fhir_server.app import FhirService
from fhir_server.audit.verification import own_seal
from fhir_server.audit.verify import Kept, Verified, verify


async def verified(url: str, home: Path, *kept: Kept) -> Verified:
    """Verify a database as the command does."""
    async with in_transaction(url) as connection:
        return await verify(connection, own_seal(home, "SHA-256"), kept)


@contextlib.asynccontextmanager
async def in_transaction(url: str) -> AsyncIterator[Any]:
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


async def sealed(service: FhirService) -> None:
    """Index and seal everything, whoever of the background tasks is at it."""
    await service._indexer.settle()
    for _ in range(100):
        await service._sealer.seal()
        async with service._audit_connections.lend() as connection:
            if not await connection.fetchval("SELECT count(*) FROM fhir.audit_unsealed WHERE NOT refused"):
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the sealer does not get ready")
