"""Seals what was indexed: once a second one process adds a block to the chain; once a day it signs the chain's head.

ADR 0022. Writers only leave a list beside the events they write; the order is given here, behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from fhir_server.audit.chain import EVENTS, GENESIS, Block, Head, next_block
from fhir_server.audit.checkpoint import Checkpoint, checkpoint_signer, file_name
from fhir_server.audit.record import is_group
from fhir_server.audit.seal import Seal, leaf, packed
from fhir_server.store import audit_chain
from fhir_server.store.connections import Connections
from foramen.kernel.crypto import same
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log

_PAUSE_S = 1.0
_LISTS = 200
_EVENTS = 2000
"""Most lists and, but for the last list, events of one block: what is read and written in one step stays small."""
_CHECKPOINT_EVERY = timedelta(days=1)
_LOOK_EVERY_S = 60.0
HEAD_FILE = "head.json"


class AuditSealer:
    """The chain as one web process sees it; any number of processes may have one.

    Parameters
    ----------
    folder : FORAMEN_HOME/audit; gets the last head sealed here and the signed checkpoints
    """

    def __init__(self, connections: Connections, seal: Seal, home: Path, own_url: str) -> None:
        self._connections = connections
        self._seal = seal
        self._home = home
        self._own_url = own_url
        self.folder = home / "audit"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin the chain if there is none, then seal in the background."""
        await self.begin()
        self._task = asyncio.create_task(self._run(), name="fhir-audit-sealer")

    async def stop(self) -> None:
        """End; what is not sealed yet is sealed after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def begin(self) -> None:
        """Make the first block: it takes up the events that were there before the chain. Does nothing later."""
        async with self._connections.lend() as connection:
            if await audit_chain.head(connection) is not None:
                return
            async with connection.transaction():
                await audit_chain.lock(connection)
                head = await audit_chain.head(connection)
                if head is None:
                    head = await self._adopt(connection)
        self._remember(head)

    async def _adopt(self, connection: Any) -> Head:
        async for number, _, records in audit_chain.waiting_groups(connection):
            if not is_group(records):
                await audit_chain.replace_group(connection, number, self._seal.group(records))
        note = orjson.dumps({"chain": secrets.token_hex(16), "server": self._own_url})
        head = await self._add(connection, None, GENESIS, [], b"", note)
        rows: list[int] = []
        digests: list[bytes] = []
        name = self._seal.algorithm
        async for event in audit_chain.unlisted(connection):
            rows.append(event.row)
            digests.append(leaf(name, event.row, event.logical_id, event.version, event.updated, event.content or b""))
            if len(rows) == _EVENTS:
                head = await self._add(connection, head, EVENTS, rows, b"".join(digests))
                rows, digests = [], []
        return await self._add(connection, head, EVENTS, rows, b"".join(digests)) if rows else head

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
                    head, count = await self._seal_some(connection)
            if head is not None:
                self._remember(head)
            done += count

    async def _seal_some(self, connection: Any) -> tuple[Head | None, int]:
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
            if taken and (found["algorithm"] != taken[0]["algorithm"] or size + len(found["rows"]) > _EVENTS):
                break
            taken.append(found)
        if not taken:
            return None, 0
        rows = [row for one in taken for row in one["rows"]]
        digests = b"".join(one["digests"] for one in taken)
        head = await audit_chain.head(connection)
        made = await self._add(connection, head, EVENTS, rows, digests, algorithm=taken[0]["algorithm"])
        await audit_chain.forget_unsealed(connection, [one["number"] for one in taken])
        return made, len(rows)

    def _fits(self, found: Any) -> bool:
        code = self._seal.code("batch", found["algorithm"], packed(found["rows"], found["digests"]))
        return same(code, found["mac"])

    async def _add(
        self,
        connection: Any,
        head: Head | None,
        kind: str,
        rows: list[int],
        digests: bytes,
        note: bytes = b"",
        algorithm: str = "",
    ) -> Head:
        name = algorithm or self._seal.algorithm
        block = next_block(head, kind, datetime.now(UTC), self._seal, rows, digests, name, note)
        await audit_chain.insert(connection, block)
        return Head(block.number, block.digest)

    async def add_removal(self, connection: Any, note: bytes) -> Block:
        """Add a block that tells of a removal, in the caller's transaction that holds the lock of the chain."""
        head = await audit_chain.head(connection)
        name = self._seal.algorithm
        block = next_block(head, "removal", datetime.now(UTC), self._seal, [], b"", name, note)
        await audit_chain.insert(connection, block)
        return block

    def _remember(self, head: Head) -> None:
        """Keep the head outside the database, so that a chain that was cut off at its end is found.

        A later head is never replaced by an earlier one: a chain that begins anew contradicts it.
        """
        path = self.folder / HEAD_FILE
        text = orjson.dumps({"block": head.number, "digest": head.digest.hex()})
        try:
            if not path.is_file() or orjson.loads(path.read_bytes())["block"] <= head.number:
                _replace(path, text)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            get_log().error("the file with the head of the audit chain was damaged and is left as it is")
        except OSError as exc:
            get_log().error("the head of the audit chain could not be written to a file", exception=type(exc).__name__)

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
            head = await audit_chain.head(connection)
            if head is None or (due_only and newest is not None and now - newest < _CHECKPOINT_EVERY):
                return None
            events = await audit_chain.event_count(connection)
            signer = checkpoint_signer(self._home)
            text = Checkpoint(self._own_url, now, head.number, head.digest.hex(), events).sign(signer)
            await audit_chain.add_checkpoint(connection, now, head.number, text)
        path = self.folder / file_name(now, head.number)
        _replace(path, text.encode() + b"\n")
        _replace(self.folder / "checkpoint-key.jwk.json", orjson.dumps(signer.public(), option=orjson.OPT_INDENT_2))
        return path

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = 0.0
        while True:
            try:
                await self.seal()
                if loop.time() >= next_look:
                    await self.checkpoint(due_only=True)
                    next_look = loop.time() + _LOOK_EVERY_S
            except UpstreamError:
                pass  # The database is away: what waits is sealed when it is back.
            except Exception as exc:  # noqa: BLE001 - the task must live on; what is not sealed stays in its list
                get_log().error("audit events could not be sealed", exception=type(exc).__name__)
            await asyncio.sleep(_PAUSE_S)


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
