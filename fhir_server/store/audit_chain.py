"""Tables of the audit chain (ADR 0022): lists that wait for their seal, blocks, checkpoints, and the events listed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from fhir_server.audit.chain import Block, Head
from fhir_server.audit.seal import leaf, packed, seal
from fhir_server.search.hashing import resource_key
from fhir_server.store.changes import Change, Stored
from fhir_server.store.sealed_content import opened
from foramen.kernel.errors import InteropError

EVENT = "AuditEvent"
_LOCK = 0x464F52_4143  # One process at a time adds a block.
_FIELDS = "number, kind, at, algorithm, count, rows, digests, list_digest, note, previous, digest, mac"
_HEADS = "SELECT number, digest, algorithm, mac FROM fhir.audit_block"
_EVENT_FIELDS = "row, type, id, version, updated, method, content, patients"
_LISTED = """SELECT unnest(rows) AS row FROM fhir.audit_block WHERE rows IS NOT NULL
UNION ALL SELECT unnest(rows) FROM fhir.audit_unsealed"""


async def add_unsealed(connection: Any, events: Sequence[Change]) -> None:
    """List events that were just written, in the transaction that wrote them; each has its row and bytes."""
    own = seal()
    name = own.algorithm
    digests = b"".join([leaf(name, c.row, c.logical_id, c.version, c.updated, c.content or b"") for c in events])
    rows = [change.row for change in events]
    await connection.execute(
        "INSERT INTO fhir.audit_unsealed (algorithm, rows, digests, mac) VALUES ($1, $2, $3, $4)",
        name,
        rows,
        digests,
        own.code("batch", name, packed(rows, digests)),
    )


async def anything_unsealed(connection: Any) -> bool:
    """Whether a list waits."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM fhir.audit_unsealed WHERE NOT refused)"))


async def try_lock(connection: Any) -> bool:
    """Take the lock of the chain until the transaction ends, unless another process holds it."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK))


async def lock(connection: Any) -> None:
    """Wait for the lock of the chain; it is held until the transaction ends.

    However long that takes: while a chain begins, whoever makes it takes up all earlier events, with the lock in hand.
    """
    await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def lock_within(connection: Any, wait_ms: int) -> None:
    """Wait for the lock of the chain, but not long; it is held until the transaction ends.

    Raises
    ------
    asyncpg.LockNotAvailableError
        Another process kept it.
    """
    await connection.execute(f"SET LOCAL lock_timeout = {wait_ms:d}")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    await connection.execute("SET LOCAL lock_timeout = 0")


async def sealed(connection: Any, logical_id: str) -> tuple[datetime, datetime | None] | None:
    """Return when an AuditEvent was written and when it was sealed (None: not yet), or None: there is none.

    It looks into the list of each block: for single questions.
    """
    found = await connection.fetchrow(
        "SELECT updated, (SELECT max(at) FROM fhir.audit_block b WHERE r.row = ANY(b.rows)) FROM fhir.resource r"
        " WHERE type = $1 AND key = $2",
        EVENT,
        resource_key(EVENT, logical_id),
    )
    return None if found is None else (found[0], found[1])


async def unsealed(connection: Any, most: int | None = None) -> list[Any]:
    """Return lists that wait, oldest first (number, algorithm, rows, digests, mac); `most` of those not refused."""
    fields = "number, algorithm, rows, digests, mac"
    if most is None:
        found: list[Any] = await connection.fetch(f"SELECT {fields} FROM fhir.audit_unsealed ORDER BY number")  # noqa: S608
        return found
    text = f"SELECT {fields} FROM fhir.audit_unsealed WHERE NOT refused ORDER BY number LIMIT $1"  # noqa: S608
    found = await connection.fetch(text, most)
    return found


async def refuse(connection: Any, numbers: list[int]) -> None:
    """Keep lists whose code does not fit, out of the way."""
    await connection.execute("UPDATE fhir.audit_unsealed SET refused = true WHERE number = ANY($1)", numbers)


async def forget_unsealed(connection: Any, numbers: list[int]) -> None:
    """Remove lists that are part of a block now."""
    await connection.execute("DELETE FROM fhir.audit_unsealed WHERE number = ANY($1)", numbers)


async def head(connection: Any) -> Head | None:
    """Return the newest block, or None."""
    found = await connection.fetchrow(f"{_HEADS} ORDER BY number DESC LIMIT 1")
    return None if found is None else Head(*found)


async def head_at(connection: Any, number: int) -> Head | None:
    """Return the block of a number, or None."""
    found = await connection.fetchrow(f"{_HEADS} WHERE number = $1", number)
    return None if found is None else Head(*found)


async def first_note(connection: Any) -> bytes:
    """Return the note of the first block, which names the chain; empty when there is none."""
    found: bytes | None = await connection.fetchval("SELECT note FROM fhir.audit_block WHERE number = 1")
    return found or b""


async def told_breaks(connection: Any) -> list[Block]:
    """Return the blocks that tell of breaks and of their acknowledgements, in order."""
    records = await connection.fetch(
        f"SELECT {_FIELDS} FROM fhir.audit_block WHERE kind IN ('break', 'acknowledged') ORDER BY number"  # noqa: S608
    )
    return [Block(*record) for record in records]


async def insert(connection: Any, block: Block) -> None:
    """Add a block.

    Raises
    ------
    asyncpg.UniqueViolationError
        Its number is taken.
    """
    await connection.execute(
        f"INSERT INTO fhir.audit_block ({_FIELDS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",  # noqa: S608
        block.number,
        block.kind,
        block.at,
        block.algorithm,
        block.count,
        block.rows,
        block.digests,
        block.list_digest,
        block.note,
        block.previous,
        block.digest,
        block.mac,
    )


async def blocks(connection: Any, after: int, most: int) -> list[Block]:
    """Return blocks above a number, in order."""
    records = await connection.fetch(
        f"SELECT {_FIELDS} FROM fhir.audit_block WHERE number > $1 ORDER BY number LIMIT $2",  # noqa: S608
        after,
        most,
    )
    return [Block(*record) for record in records]


async def block_count(connection: Any) -> int:
    """Return how many blocks there are."""
    return int(await connection.fetchval("SELECT count(*) FROM fhir.audit_block"))


async def events_of(connection: Any, rows: Sequence[int]) -> dict[int, Stored]:
    """Return AuditEvents by row."""
    records = await connection.fetch(
        f"SELECT {_EVENT_FIELDS} FROM fhir.resource WHERE row = ANY($1) AND type = $2",  # noqa: S608
        rows,
        EVENT,
    )
    return {record["row"]: _stored(record) for record in records}


def _stored(record: Any) -> Stored:
    row, resource_type, logical_id, version, updated, method, content, patients = record
    with suppress(InteropError):  # What cannot be opened was changed: its digest will say so.
        content = opened(content, resource_type, logical_id)  # The chain is over events as they were written.
    return Stored(row, resource_type, logical_id, version, updated, method, content, tuple(patients))


async def unlisted(connection: Any) -> AsyncIterator[Stored]:
    """Walk over AuditEvents that no list names, oldest first; inside a transaction."""
    # Hash joins on the whole of both sides: what the short statements of requests are tuned for would take hours.
    await connection.execute("SET LOCAL enable_seqscan = on; SET LOCAL statement_timeout = 0")
    cursor = connection.cursor(
        f"SELECT {', '.join('r.' + name for name in _EVENT_FIELDS.split(', '))} FROM fhir.resource r"  # noqa: S608
        f" WHERE r.type = $1 AND NOT EXISTS (SELECT FROM ({_LISTED}) l WHERE l.row = r.row)"
        " ORDER BY r.updated, r.row",
        EVENT,
        prefetch=500,
    )
    async for record in cursor:
        yield _stored(record)


async def earlier_versions(connection: Any) -> datetime | None:
    """Return when the first earlier version of an AuditEvent was written; there must be none."""
    found: datetime | None = await connection.fetchval(
        "SELECT updated FROM fhir.history WHERE type = $1 ORDER BY updated LIMIT 1", EVENT
    )
    return found


async def waiting_groups(connection: Any) -> AsyncIterator[tuple[int, datetime, bytes]]:
    """Walk over the groups of the audit log; inside a transaction."""
    query = "SELECT number, at, records FROM fhir.audit_log ORDER BY number"
    async for record in connection.cursor(query, prefetch=100):
        yield record["number"], record["at"], record["records"]


async def replace_group(connection: Any, number: int, records: bytes) -> None:
    """Give a group of the log its code; only before the chain's first block."""
    await connection.execute("UPDATE fhir.audit_log SET records = $2 WHERE number = $1", number, records)


async def damaged(connection: Any) -> datetime | None:
    """Return when the first group that could not be read was set aside, or None."""
    found: datetime | None = await connection.fetchval("SELECT min(at) FROM fhir.audit_log_damaged")
    return found


async def add_checkpoint(connection: Any, at: datetime, block: int, statement: str) -> None:
    """Keep a signed checkpoint."""
    await connection.execute("INSERT INTO fhir.audit_checkpoint VALUES ($1, $2, $3)", at, block, statement)


async def checkpoints(connection: Any) -> list[tuple[datetime, int, str]]:
    """Return all checkpoints, oldest first."""
    return [tuple(r) for r in await connection.fetch("SELECT * FROM fhir.audit_checkpoint ORDER BY at, block")]


async def newest_checkpoint(connection: Any) -> datetime | None:
    """Return when the newest checkpoint was signed, or None."""
    found: datetime | None = await connection.fetchval("SELECT max(at) FROM fhir.audit_checkpoint")
    return found


async def event_count(connection: Any) -> int:
    """Return how many events all blocks sealed."""
    return int(await connection.fetchval("SELECT coalesce(sum(count), 0) FROM fhir.audit_block"))


async def removable(connection: Any, before: datetime, most: int) -> list[Block]:
    """Return the oldest blocks that still have their events and were sealed before a moment: `most` events, or one."""
    records = await connection.fetch(
        f"""SELECT {_FIELDS} FROM (
            SELECT *, sum(count) OVER (ORDER BY number) AS so_far FROM (
                SELECT * FROM fhir.audit_block WHERE rows IS NOT NULL AND kind <> 'removal' ORDER BY number LIMIT $2
            ) oldest
        ) b WHERE at < $1 AND (so_far <= $2 OR so_far = count)
        AND NOT EXISTS (SELECT FROM fhir.audit_block e WHERE e.number < b.number AND e.at >= $1) ORDER BY number""",  # noqa: S608
        before,
        most,
    )
    return [Block(*record) for record in records]


async def allow_removal(connection: Any) -> None:
    """Let this transaction remove events; it has to add a removal block."""
    await connection.execute("SET LOCAL foramen.audit_removal = 'on'")


async def written(connection: Any, since: datetime, until: datetime) -> AsyncIterator[bytes]:
    """Walk over the bytes of the AuditEvents that were written in a period; inside a transaction."""
    query = "SELECT content FROM fhir.resource WHERE type = $1 AND updated >= $2 AND updated < $3"
    async for record in connection.cursor(query, EVENT, since, until, prefetch=1000):
        yield record["content"]


async def strip(connection: Any, numbers: list[int]) -> None:
    """Take the lists of events out of blocks whose events were removed."""
    await connection.execute("UPDATE fhir.audit_block SET rows = NULL, digests = NULL WHERE number = ANY($1)", numbers)
