"""The chain of blocks: each seals a list of events, or tells of a removal or a break, and holds the digest before it.

Pure; ADR 0022 has the form, ADR 0029 the blocks that tell of a break.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from struct import pack

import orjson

from fhir_server.audit.seal import SIZE, Seal, knows, micros, packed
from foramen.kernel.crypto import digest_algorithm

GENESIS, EVENTS, REMOVAL, BREAK, ACKNOWLEDGED = "genesis", "events", "removal", "break", "acknowledged"
START = bytes(SIZE)
"""Digest before the first block."""
_FORM = b"foramen audit block 1\n"


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `rows` and `digests` are None when the events were removed by rule; `list_digest` stays."""

    number: int
    kind: str
    at: datetime
    algorithm: str
    count: int
    rows: list[int] | None
    digests: bytes | None
    list_digest: bytes
    note: bytes
    previous: bytes
    digest: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block: what the next one is linked to, and the code that a holder of the secret made of it."""

    number: int
    digest: bytes
    algorithm: str = ""
    mac: bytes = b""


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal block tells: blocks `first`…`last` lost their events, by whom, and what was the limit."""

    first: int
    last: int
    events: int
    subject: str
    client_id: str
    before: str
    trace_id: str

    def note(self) -> bytes:
        """Write it as the note of a block."""
        return orjson.dumps(self)


def removal_of(note: bytes) -> Removal:
    """Read the note of a removal block."""
    return Removal(**orjson.loads(note))


@dataclass(frozen=True, slots=True)
class Break:
    """What a break block tells: which head the chain should hold and does not.

    `reason` is "lost" (a head kept outside the database is not in the chain: its end was cut off, or it was exchanged)
    or "forged" (its newest block was made without the secret). `chain` names the chain the head was of, "" if unknown.
    """

    reason: str
    chain: str
    block: int
    digest: str

    def note(self) -> bytes:
        """Write it as the note of a block."""
        return orjson.dumps(self)


def break_of(note: bytes) -> Break:
    """Read the note of a break block."""
    return Break(**orjson.loads(note))


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What an acknowledgement tells: the breaks up to block `up_to` are known, to whom and why they came."""

    up_to: int
    by: str
    reason: str

    def note(self) -> bytes:
        """Write it as the note of a block."""
        return orjson.dumps(self)


def acknowledgement_of(note: bytes) -> Acknowledgement:
    """Read the note of an acknowledgement."""
    return Acknowledgement(**orjson.loads(note))


def list_digest(algorithm: str, rows: list[int], digests: bytes) -> bytes:
    """Digest of a block's list of events."""
    return digest_algorithm(algorithm).digest(packed(rows, digests))


def block_digest(block: Block) -> bytes:
    """Digest of a block, without its own `digest` and `mac`; it holds when the list is gone."""
    kind, algorithm = block.kind.encode(), block.algorithm.encode()
    head = pack(">qqiHH", block.number, micros(block.at), block.count, len(kind), len(algorithm))
    return digest_algorithm(block.algorithm).digest(
        b"".join((_FORM, head, kind, algorithm, block.previous, block.list_digest, block.note))
    )


def is_whole(block: Block, seal: Seal) -> bool:
    """Whether a block, its list of events included, is what a holder of the secret made."""
    if not knows(block.algorithm) or not seal.fits("block", block.algorithm, block.digest, block.mac):
        return False
    listed = block.rows is None or list_digest(block.algorithm, block.rows, block.digests or b"") == block.list_digest
    return listed and block_digest(block) == block.digest


def next_block(
    head: Head | None, kind: str, at: datetime, seal: Seal, rows: list[int], digests: bytes, algorithm: str, note: bytes
) -> Block:
    """Make the block that follows `head` (None: the first)."""
    number, previous = (head.number + 1, head.digest) if head is not None else (1, START)
    listed = list_digest(algorithm, rows, digests)
    block = Block(number, kind, at, algorithm, len(rows), rows, digests, listed, note, previous, b"", b"")
    digest = block_digest(block)
    return replace(block, digest=digest, mac=seal.code("block", algorithm, digest))
