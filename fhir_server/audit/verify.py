"""Verify the audit trail: every block, every event's bytes, what waits, and the heads kept outside the database.

ADR 0022 tells which tampering is found, and by what; ADR 0029 what a break is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_server.audit.chain import (
    ACKNOWLEDGED,
    BREAK,
    GENESIS,
    REMOVAL,
    START,
    Block,
    acknowledgement_of,
    block_digest,
    break_of,
    list_digest,
    removal_of,
)
from fhir_server.audit.checkpoint import Checkpoint
from fhir_server.audit.seal import SIZE, BrokenSealError, Seal, knows, leaf, packed
from fhir_server.store import audit_chain

_BLOCKS = 5

Advance = Callable[[int, int], None]


class TamperedError(Exception):
    """The first bad place: what is wrong, where and of what time."""

    def __init__(
        self, what: str, *, block: int | None = None, row: int | None = None, at: datetime | None = None
    ) -> None:
        places = (("block", block), ("row", row), ("time", at.isoformat() if at is not None else None))
        where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
        super().__init__(f"{what} ({where})" if where else what)
        self.what, self.block, self.row, self.at = what, block, row, at


@dataclass(frozen=True, slots=True)
class Kept:
    """A head that was kept outside the chain: a checkpoint or the file of a machine that seals; `name` says which."""

    name: str
    block: int
    digest: str
    events: int | None = None


@dataclass(slots=True)
class Verified:
    """What was looked at, when nothing was wrong."""

    blocks: int = 0
    events: int = 0
    removed: int = 0
    waiting_lists: int = 0
    waiting_groups: int = 0
    breaks: int = 0
    """Breaks that were acknowledged."""


def kept_of(checkpoint: Checkpoint, name: str) -> Kept:
    """Return the head a checkpoint tells."""
    return Kept(name, checkpoint.block, checkpoint.digest, checkpoint.events)


async def verify(
    connection: Any, seal: Seal, kept: Sequence[Kept], advance: Advance = lambda done, total: None
) -> Verified:
    """Verify everything as of one moment; `connection` has an open transaction, REPEATABLE READ.

    Parameters
    ----------
    kept : heads that the chain has to contain
    advance : is told how many blocks of how many are done

    Raises
    ------
    TamperedError
        The first bad place.
    """
    await connection.execute("SET LOCAL statement_timeout = 0")
    walk = _Walk(seal, {head.block: [k for k in kept if k.block == head.block] for head in kept})
    total = await audit_chain.block_count(connection)
    while found := await audit_chain.blocks(connection, walk.number, _BLOCKS):
        for block in found:
            walk.check(block)
            if block.rows:
                await _check_events(connection, block.algorithm, block.rows, block.digests or b"", block)
                walk.verified.events += len(block.rows)
        advance(walk.verified.blocks, total)
    walk.check_end()
    await _check_waiting(connection, seal, walk.verified)
    await _check_outside(connection)
    return walk.verified


class _Walk:
    """The links of the chain, block after block."""

    def __init__(self, seal: Seal, kept: dict[int, list[Kept]]) -> None:
        self._seal, self._kept = seal, kept
        self._digest = START
        self._stripped: dict[int, Block] = {}
        self._breaks: list[Block] = []
        self._sealed = 0
        self.number = 0
        self.verified = Verified()

    def check(self, block: Block) -> None:
        if block.number != self.number + 1:
            raise TamperedError("Blocks are missing before this one", block=block.number, at=block.at)
        if (block.kind == GENESIS) != (block.number == 1):
            raise TamperedError("This is not how a chain begins", block=block.number, at=block.at)
        if block.previous != self._digest:
            raise TamperedError("The block does not follow the one before it", block=block.number, at=block.at)
        if not knows(block.algorithm):
            raise TamperedError("The block names an unknown digest algorithm", block=block.number, at=block.at)
        if block_digest(block) != block.digest:
            raise TamperedError("The block was changed", block=block.number, at=block.at)
        if not self._seal.fits("block", block.algorithm, block.digest, block.mac):
            raise TamperedError("The block was not sealed by this server", block=block.number, at=block.at)
        self._check_list(block)
        if block.kind == REMOVAL:
            self._take_removal(block)
        elif block.kind == BREAK:
            self._breaks.append(block)
        elif block.kind == ACKNOWLEDGED:
            self._acknowledge(acknowledgement_of(block.note).up_to)
        self.number, self._digest = block.number, block.digest
        self._sealed += block.count
        self.verified.blocks += 1
        for kept in self._kept.pop(block.number, []):
            if kept.digest != block.digest.hex() or (kept.events is not None and kept.events != self._sealed):
                raise TamperedError(f"The chain is not the one of {kept.name}", block=block.number, at=block.at)

    def _check_list(self, block: Block) -> None:
        if block.rows is None or block.digests is None:
            self._stripped[block.number] = block
            return
        whole = len(block.rows) == block.count and len(block.digests) == block.count * SIZE
        if not whole or list_digest(block.algorithm, block.rows, block.digests) != block.list_digest:
            raise TamperedError("The block's list of events was changed", block=block.number, at=block.at)

    def _take_removal(self, block: Block) -> None:
        told = removal_of(block.note)
        gone = 0
        for number in range(told.first, told.last + 1):
            found = self._stripped.pop(number, None)
            gone += found.count if found is not None else 0
        if gone != told.events:
            text = "The events that a removal tells of are not those that are gone"
            raise TamperedError(text, block=block.number, at=block.at)
        self.verified.removed += gone

    def _acknowledge(self, up_to: int) -> None:
        open_breaks = [block for block in self._breaks if block.number > up_to]
        self.verified.breaks += len(self._breaks) - len(open_breaks)
        self._breaks = open_breaks

    def check_end(self) -> None:
        if self.number == 0:
            raise TamperedError("There is no chain")
        for block in self._breaks:
            told = break_of(block.note)
            text = (
                f"The chain broke: block {told.block}, which was sealed, is not in it"
                if told.reason == "lost"
                else f"The chain broke: block {told.block} was made without the secret"
            )
            raise TamperedError(text, block=block.number, at=block.at)
        for block in self._stripped.values():
            text = "The block's list of events is gone and no removal tells of it"
            raise TamperedError(text, block=block.number, at=block.at)
        for number, kept in sorted(self._kept.items()):
            raise TamperedError(f"The chain ends before the head of {kept[0].name}", block=number)


async def _check_events(
    connection: Any, algorithm: str, rows: list[int], digests: bytes, block: Block | None = None
) -> None:
    """Compare the bytes of events with their digests."""
    found = await audit_chain.events_of(connection, rows)
    number, at = (block.number, block.at) if block is not None else (None, None)
    for place, row in enumerate(rows):
        event = found.get(row)
        if event is None:
            raise TamperedError("An event was deleted", block=number, row=row, at=at)
        own = leaf(algorithm, row, event.logical_id, event.version, event.updated, event.content or b"")
        if own != digests[place * SIZE : (place + 1) * SIZE]:
            raise TamperedError("An event was changed", block=number, row=row, at=event.updated)


async def _check_waiting(connection: Any, seal: Seal, verified: Verified) -> None:
    """Lists that are not sealed yet, and records that are not indexed yet."""
    for found in await audit_chain.unsealed(connection):
        rows, digests = found["rows"], found["digests"]
        name = found["algorithm"]
        if len(digests) != SIZE * len(rows) or not seal.fits("batch", name, packed(rows, digests), found["mac"]):
            raise TamperedError(
                "A list that waits for its seal was not made by this server", row=next(iter(rows), None)
            )
        await _check_events(connection, found["algorithm"], rows, digests)
        verified.waiting_lists += 1
    async for number, at, group in audit_chain.waiting_groups(connection):
        try:
            seal.records(group)
        except BrokenSealError as exc:
            raise TamperedError(f"Group {number} of the audit log was changed or inserted", at=at) from exc
        verified.waiting_groups += 1


async def _check_outside(connection: Any) -> None:
    """Events that no list names, versions that cannot be, groups that could not be read."""
    async for event in audit_chain.unlisted(connection):
        raise TamperedError("An event was inserted past the server", row=event.row, at=event.updated)
    earlier = await audit_chain.earlier_versions(connection)
    if earlier is not None:
        raise TamperedError("There is an earlier version of an event", at=earlier)
    damaged = await audit_chain.damaged(connection)
    if damaged is not None:
        raise TamperedError("A group of the audit log was changed and set aside", at=damaged)
