"""A few codec processes, started when needed, killed when they take too long, replaced when they die.

Own protocol of JSON and bytes instead of `multiprocessing`: what a process that a hostile file took over sends back is
never unpickled here (ADR 0034).
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import Any

import orjson

from foramen.kernel.errors import NotAcceptableError, NotFoundError, UpstreamError
from foramen.kernel.log import get_log

_START_S = 60.0
_LARGEST_ANSWER = 1024 * 1024 * 1024
_LINE_BYTES = 4 * 1024 * 1024


class UndecodableError(NotAcceptableError):
    """The stored pixel data cannot be had in this form; the stored bytes can still be retrieved."""


class _DiedError(Exception):
    """The process ended before it answered."""


@dataclass(frozen=True, slots=True)
class CodecAnswer:
    """What a codec process answered."""

    head: dict[str, Any]
    blobs: list[bytes]


class CodecPool:
    """Runs codec requests, at most `processes` at the same time.

    Parameters
    ----------
    processes : number of child processes
    memory_bytes : address space of each
    timeout_s : seconds one request may take
    """

    def __init__(self, processes: int, memory_bytes: int, timeout_s: float) -> None:
        self._limit = asyncio.Semaphore(processes)
        self._memory_bytes, self._timeout_s = memory_bytes, timeout_s
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children."""
        return [process.pid for process in self._all if process.returncode is None]

    async def ask(self, operation: str, **request: Any) -> CodecAnswer:
        """Have one request done.

        Raises
        ------
        UndecodableError
            The file cannot be decoded, or not in the form asked for, or its decoder crashed (406).
        UpstreamError
            It took longer than it may (503).
        NotFoundError
            The file is not there any more.
        """
        line = orjson.dumps({"operation": operation, **request}) + b"\n"
        async with self._limit:
            process = await self._take()
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await _exchange(process, line)
            except TimeoutError as exc:
                await self._end(process)
                get_log().warning("codec process timed out", part=operation)
                raise UpstreamError(
                    "Decoding takes too long", issue_code="timeout", headers={"Retry-After": "30"}
                ) from exc
            except _DiedError as exc:
                await self._end(process)
                get_log().warning("codec process died", part=operation, status=process.returncode)
                raise _undecodable() from exc
            except BaseException:  # Cancelled halfway: the next request must not get this one's answer.
                await self._end(process)
                raise
            if found.head.get("fault") == "memory":
                await self._end(process)
            else:
                self._idle.append(process)
        return _judged(found)

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            self._all.discard(process)
        environment = {
            **{
                name: os.environ[name]
                for name in ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH")
                if name in os.environ
            },
            **{"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            "MALLOC_ARENA_MAX": "2",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dicomweb.retrieve.codec_worker", str(self._memory_bytes), str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            limit=_LINE_BYTES,
        )
        self._all.add(process)
        try:
            async with asyncio.timeout(_START_S):
                ready = await process.stdout.readline() if process.stdout else b""
        except BaseException:
            await self._end(process)
            raise
        if not ready:
            await self._end(process)
            raise UpstreamError("The codec process does not start", headers={"Retry-After": "30"})
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._all.discard(process)
        if process.returncode is None:
            process.kill()
        await asyncio.shield(process.wait())

    async def close(self) -> None:
        """End the processes."""
        for process in list(self._all):
            await self._end(process)
        self._idle = []


async def _exchange(process: asyncio.subprocess.Process, line: bytes) -> CodecAnswer:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
    try:
        process.stdin.write(line)
        await process.stdin.drain()
        head = orjson.loads(await process.stdout.readline())
        sizes = [int(size) for size in head["sizes"]]
        if min(sizes, default=0) < 0 or sum(sizes) > _LARGEST_ANSWER:
            raise _DiedError
        return CodecAnswer(head, [await process.stdout.readexactly(size) for size in sizes])
    except (OSError, ValueError, KeyError, TypeError, asyncio.IncompleteReadError) as exc:
        raise _DiedError from exc


def _judged(found: CodecAnswer) -> CodecAnswer:
    fault = found.head.get("fault")
    if fault is None:
        return found
    if fault == "gone":
        raise NotFoundError("Not in the image archive")
    raise _undecodable()


def _undecodable() -> UndecodableError:
    return UndecodableError("The stored object cannot be had in this form; ask for transfer-syntax=*")
