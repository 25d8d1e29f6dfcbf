"""Whether the chain in the database still is the one that was sealed; a break is told in the chain, never passed over.

Asked at the start and before each block. ADR 0029.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client import Gauge

from fhir_server.audit.beginning import add_block
from fhir_server.audit.chain import (
    ACKNOWLEDGED,
    BREAK,
    Block,
    Break,
    Head,
    acknowledgement_of,
    break_of,
)
from fhir_server.audit.head_file import HeadFile, KeptHead
from fhir_server.audit.seal import SECRET, Seal, knows
from fhir_server.store import audit_chain
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log

_BREAKS = Gauge("foramen_audit_chain_breaks", "Breaks of the audit chain that nobody has acknowledged")


async def check_secret(connection: Any, seal: Seal) -> bool:
    """Whether there is a chain; one that was sealed with another secret stops the start.

    When either the first block or the newest fits, the secret is the right one and the other block was tampered with:
    that is told (`Continuity`), and the server serves.

    Raises
    ------
    InteropError
        Neither fits: everything written from now on would be found forged.
    """
    found = [await audit_chain.head_at(connection, 1), await audit_chain.head(connection)]
    heads = [head for head in found if head is not None]
    if not heads:
        return False
    if any(_sealed_here(seal, head) for head in heads):
        return True
    if not any(knows(head.algorithm) for head in heads):
        raise InteropError("The audit chain names digest algorithms that this version does not know")
    raise InteropError(
        f"The audit chain of this database was sealed with another secret than FORAMEN_HOME/secrets/{SECRET}: "
        "put the secret of this database's servers there (docs/how-to/audit.md)"
    )


def _sealed_here(seal: Seal, head: Head) -> bool:
    return seal.fits("block", head.algorithm, head.digest, head.mac)


async def chain_name(connection: Any) -> str:
    """Return the name that the first block gave the chain, "" when there is none."""
    try:
        note: Any = orjson.loads(await audit_chain.first_note(connection) or b"null")
    except orjson.JSONDecodeError:  # Somebody changed the first block.
        return ""
    return str(note.get("chain", "")) if isinstance(note, dict) else ""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found: the newest block, the chain's name, and kept heads that the chain itself tells it lacks."""

    head: Head
    chain: str
    told: frozenset[KeptHead]


class Continuity:
    """What this process knows of the chain's end, by its own memory and by the file, against what the table says."""

    def __init__(self, seal: Seal, file: HeadFile) -> None:
        self._seal, self._file = seal, file
        self._last: KeptHead | None = None
        self._logged: set[Break] = set()

    async def look(self, connection: Any, head: Head, *, beginning: bool = False) -> Look:
        """Compare, and tell what breaks there are by blocks of their own; inside a transaction with the chain's lock.

        Parameters
        ----------
        head : the newest block
        beginning : compare with the file also when it is of another chain; later that one may be of a second database
            that shares the folder, and this process's own memory tells of an exchanged chain
        """
        chain = await chain_name(connection)
        lost = [kept for kept in self._kept(chain, beginning=beginning) if not await _holds(connection, kept)]
        breaks = {Break("lost", kept.chain, kept.block, kept.digest): None for kept in lost}
        if not _sealed_here(self._seal, head):
            breaks[Break("forged", chain, head.number, head.digest.hex())] = None
        known = [break_of(block.note) for block in await self._own(connection, BREAK)] if breaks else []
        for found in breaks:
            if found not in known:
                head = await self._tell(connection, head, found)
        return Look(head, chain, frozenset(lost))

    def _kept(self, chain: str, *, beginning: bool) -> list[KeptHead]:
        filed = self._file.read()
        if filed is not None and filed.chain not in ("", chain) and not beginning:
            filed = None
        return list(dict.fromkeys(kept for kept in (self._last, filed) if kept is not None))

    async def _tell(self, connection: Any, head: Head, found: Break) -> Head:
        if found not in self._logged:
            self._logged.add(found)
            get_log().error(
                "THE AUDIT CHAIN IS BROKEN: run `foramen audit verify`", reason=found.reason, block=found.block
            )
        return await add_block(connection, self._seal, head, BREAK, [], b"", found.note())

    def remember(self, look: Look, head: Head) -> None:
        """Keep a head after the transaction that looked and made it has committed, in memory and in the file."""
        self._last = KeptHead(head.number, head.digest.hex(), look.chain)
        self._file.keep(head, look.chain, look.told)

    async def open_breaks(self, connection: Any) -> list[Block]:
        """Return the blocks of breaks that nobody has acknowledged; the metric shows how many. Needs no lock."""
        done = [acknowledgement_of(block.note).up_to for block in await self._own(connection, ACKNOWLEDGED)]
        found = [block for block in await self._own(connection, BREAK) if block.number > max(done, default=0)]
        _BREAKS.set(len(found))
        return found

    async def _own(self, connection: Any, kind: str) -> list[Block]:
        """Blocks of breaks or acknowledgements that a holder of the secret made."""
        return [
            block
            for block in await audit_chain.told_breaks(connection)
            if block.kind == kind and self._seal.fits("block", block.algorithm, block.digest, block.mac)
        ]


async def _holds(connection: Any, kept: KeptHead) -> bool:
    found = await audit_chain.head_at(connection, kept.block)
    return found is not None and found.digest.hex() == kept.digest
