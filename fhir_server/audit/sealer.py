"""Seals what was indexed: once a second one process adds a block to the chain; once a day it signs the chain's head.

ADR 0022, 0029. Writers only leave a list beside the events they write; the order is given here, behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from fhir_server.audit.beginning import MOST_EVENTS, add_block, adopt, code_groups
from fhir_server.audit.chain import ACKNOWLEDGED, EVENTS, REMOVAL, Acknowledgement, Block, Head
from fhir_server.audit.checkpoint import Checkpoint, checkpoint_signer, file_name
from fhir_server.audit.continuity import Continuity, Look, check_secret
from fhir_server.audit.head_file import HeadFile, write_whole
from fhir_server.audit.record import audit_record, encode
from fhir_server.audit.seal import Seal, packed
from fhir_server.store import audit_chain, audit_log
from fhir_server.store.connections import Connections
from foramen.kernel.access_context import AccessContext
from foramen.kernel.crypto.signatures import SignatureName
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

_PAUSE_S = 1.0
_LISTS = 200
"""Most lists of one block."""
_CHECKPOINT_EVERY = timedelta(days=1)
_LOOK_EVERY_S = 60.0
_START_S = 1.0
"""Longest the start waits for a chain to begin."""


class AuditSealer:
    """The chain as one web process sees it; any number of processes may have one.

    Parameters
    ----------
    signature : algorithm that signs checkpoints; that this machine has it is tried here
    folder : FORAMEN_HOME/audit; gets the last head sealed here and the signed checkpoints
    """

    def __init__(
        self, connections: Connections, seal: Seal, home: Path, own_url: str, signature: SignatureName = "ES256"
    ) -> None:
        self._connections = connections
        self._seal = seal
        self._home = home
        self._own_url = own_url
        self._signature = signature
        if signature != "ES256":
            checkpoint_signer(home, signature)
        self.folder = home / "audit"
        self._continuity = Continuity(seal, HeadFile(self.folder))
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin the chain if there is none, then seal, all in the background: nobody waits for old events.

        Raises
        ------
        InteropError
            The chain was sealed with another secret.
        """
        async with self._connections.lend() as connection:
            begun = await check_secret(connection, self._seal)
            if not begun:
                await code_groups(connection, self._seal)
        self._task = asyncio.create_task(self._run(), name="fhir-audit-sealer")
        with contextlib.suppress(TimeoutError):  # A chain without a past is there at once.
            await asyncio.wait_for(self._begun.wait(), _START_S)

    async def stop(self) -> None:
        """End; what is not sealed yet is sealed after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def begin(self) -> None:
        """Make the first block, with the events that were there before the chain; compare a chain that is there.

        Another process may be at it, for minutes: this waits.

        Raises
        ------
        InteropError
            The chain was sealed with another secret.
        """
        async with self._connections.lend() as connection:
            if not await check_secret(connection, self._seal):
                await code_groups(connection, self._seal)
            async with connection.transaction():
                await audit_chain.lock(connection)
                look = await self._look(connection, beginning=True)
            self._continuity.remember(look, look.head)
            await self._continuity.open_breaks(connection)
        self._begun.set()

    async def _look(self, connection: Any, *, beginning: bool = False) -> Look:
        """Return the newest block, of a chain that was compared with what was kept of it."""
        head = await audit_chain.head(connection)
        if head is None:  # Nothing was sealed yet, or somebody emptied the table: then the comparison tells.
            head = await adopt(connection, self._seal, self._own_url)
        return await self._continuity.look(connection, head, beginning=beginning)

    async def seal(self) -> int:
        """Seal all that waits; returns how many events were sealed, 0 when another process is at it."""
        done = 0
        while True:
            async with self._connections.lend() as connection:
                if not await audit_chain.anything_unsealed(connection):
                    return done
                async with connection.transaction():
                    if not await audit_chain.try_lock(connection):
                        return done
                    look = await self._look(connection)
                    head, count = await self._seal_some(connection, look.head)
            self._continuity.remember(look, head)
            done += count

    async def _seal_some(self, connection: Any, head: Head) -> tuple[Head, int]:
        lists, refused = [], []
        for found in await audit_chain.unsealed(connection, _LISTS):
            if self._fits(found):
                lists.append(found)
            else:
                refused.append(found["number"])
        if refused:
            get_log().error("lists of audit events were not made by this server and are not sealed", count=len(refused))
            await audit_chain.refuse(connection, refused)
        taken: list[Any] = []
        for found in lists:
            size = sum(len(one["rows"]) for one in taken)
            if taken and (found["algorithm"] != taken[0]["algorithm"] or size + len(found["rows"]) > MOST_EVENTS):
                break
            taken.append(found)
        if not taken:
            return head, 0
        rows = [row for one in taken for row in one["rows"]]
        digests = b"".join(one["digests"] for one in taken)
        made = await add_block(connection, self._seal, head, EVENTS, rows, digests, algorithm=taken[0]["algorithm"])
        await audit_chain.forget_unsealed(connection, [one["number"] for one in taken])
        return made, len(rows)

    def _fits(self, found: Any) -> bool:
        listed = packed(found["rows"], found["digests"])
        return self._seal.fits("batch", found["algorithm"], listed, found["mac"])

    async def add_removal(self, connection: Any, note: bytes) -> None:
        """Add a block that tells of a removal, in the caller's transaction that holds the lock of the chain."""
        look = await self._look(connection)
        await add_block(connection, self._seal, look.head, REMOVAL, [], b"", note)

    async def acknowledge(self, by: str, reason: str) -> list[Block]:
        """Add a block that says the breaks so far are known; returns the blocks that told of them.

        Parameters
        ----------
        by : who says so
        reason : how the break came about, e.g. a restored backup; never names a patient
        """
        async with self._connections.lend() as connection:
            async with connection.transaction():
                await audit_chain.lock(connection)
                look = await self._look(connection, beginning=True)
                head, breaks = look.head, await self._continuity.open_breaks(connection)
                if breaks:
                    note = Acknowledgement(head.number, by, reason).note()
                    head = await add_block(connection, self._seal, head, ACKNOWLEDGED, [], b"", note)
                    context = AccessContext(by, "foramen", ())
                    event = audit_record(
                        interaction="operation",
                        status=200,
                        trace_id=secrets.token_hex(16),
                        context=context,
                        operation="audit-acknowledge",
                    )
                    await audit_log.append(connection, encode([event]), 1)
            self._continuity.remember(look, head)
            await self._continuity.open_breaks(connection)
        return breaks

    async def checkpoint(self, *, due_only: bool = False) -> Path | None:
        """Sign the chain's head, in the table and in a file; returns the file.

        Parameters
        ----------
        due_only : only when the newest checkpoint is a day old, and unless another process is at it (then None)
        """
        now = datetime.now(UTC)
        async with self._connections.lend() as connection, connection.transaction():
            if not due_only:
                await audit_chain.lock(connection)
            elif not await audit_chain.try_lock(connection):
                return None
            newest = await audit_chain.newest_checkpoint(connection)
            if due_only and newest is not None and now - newest < _CHECKPOINT_EVERY:
                return None
            look = await self._look(connection)
            head = look.head
            events = await audit_chain.event_count(connection)
            signer = checkpoint_signer(self._home, self._signature)
            told = Checkpoint(self._own_url, now, head.number, head.digest.hex(), events)
            text = await asyncio.to_thread(told.sign, signer)  # SM2 is a process of its own.
            await audit_chain.add_checkpoint(connection, now, head.number, text)
        self._continuity.remember(look, head)
        path = self.folder / file_name(now, head.number)
        write_whole(path, text.encode() + b"\n")
        name = "checkpoint-key.jwk.json" if self._signature == "ES256" else "checkpoint-key-sm2.json"
        write_whole(self.folder / name, orjson.dumps(signer.public(), option=orjson.OPT_INDENT_2))
        return path

    async def _count_breaks(self) -> None:
        """Bring the metric up to date: another process may have told of a break, or somebody acknowledged one."""
        async with self._connections.lend() as connection:
            await self._continuity.open_breaks(connection)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = 0.0
        while True:
            try:
                if not self._begun.is_set():
                    await self.begin()
                await self.seal()
                if loop.time() >= next_look:
                    await self.checkpoint(due_only=True)
                    await self._count_breaks()
                    next_look = loop.time() + _LOOK_EVERY_S
            except UpstreamError:
                pass  # The database is away: what waits is sealed when it is back.
            except Exception as exc:  # noqa: BLE001 - the task must live on; what is not sealed stays in its list
                get_log().error("audit events could not be sealed", exception=type(exc).__name__)
            await asyncio.sleep(_PAUSE_S)
