"""How a chain begins: its first block, and the events and records that were there before it. ADR 0022."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import orjson

from fhir_server.audit.chain import EVENTS, GENESIS, Head, next_block
from fhir_server.audit.record import is_group
from fhir_server.audit.seal import Seal, leaf
from fhir_server.store import audit_chain

MOST_EVENTS = 2000
"""Most events of one block, but for its last list: what is read and written in one step stays small."""


async def add_block(
    connection: Any,
    seal: Seal,
    head: Head | None,
    kind: str,
    rows: list[int],
    digests: bytes,
    note: bytes = b"",
    algorithm: str = "",
) -> Head:
    """Add a block after `head`, in a transaction that holds the lock of the chain; returns the new head.

    Parameters
    ----------
    algorithm : digest of the events; default: the one of the seal
    """
    block = next_block(head, kind, datetime.now(UTC), seal, rows, digests, algorithm or seal.algorithm, note)
    await audit_chain.insert(connection, block)
    return Head(block.number, block.digest, block.algorithm, block.mac)


async def code_groups(connection: Any, seal: Seal) -> None:
    """Give groups of the log of before the chain their code, before anybody indexes them."""
    async with connection.transaction():
        async for number, _, records in audit_chain.waiting_groups(connection):
            if not is_group(records):
                await audit_chain.replace_group(connection, number, seal.group(records))


async def adopt(connection: Any, seal: Seal, server: str) -> Head:
    """Make the first block, and blocks of the events that no list names; in a transaction with the chain's lock.

    Parameters
    ----------
    server : base URL, which the first block names beside a name for the chain
    """
    note = orjson.dumps({"chain": secrets.token_hex(16), "server": server})
    head = await add_block(connection, seal, None, GENESIS, [], b"", note)
    rows: list[int] = []
    digests: list[bytes] = []
    name = seal.algorithm
    async for event in audit_chain.unlisted(connection):
        rows.append(event.row)
        digests.append(leaf(name, event.row, event.logical_id, event.version, event.updated, event.content or b""))
        if len(rows) == MOST_EVENTS:
            head = await add_block(connection, seal, head, EVENTS, rows, b"".join(digests))
            rows, digests = [], []
    return await add_block(connection, seal, head, EVENTS, rows, b"".join(digests)) if rows else head
