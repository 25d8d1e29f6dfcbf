"""Where the batches of an import are prepared: in a thread, or for a large input in a process forked for it.

The child shares what its parent has loaded (tables, search parameters), so it is at work within milliseconds, uses a
core of its own and keeps the parent free for requests. It only reads its input and computes: it closes every other
descriptor at once, touches no database and no event loop, and ends with its input, or when its parent is gone.
https://docs.python.org/3.11/library/os.html#os.fork
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

from fhir_server.bulk.preparing import Prepared, Preparer
from foramen.kernel.errors import InteropError, InvalidRequestError, PayloadTooLargeError, UpstreamError
from foramen.kernel.log import get_log

LARGE_BYTES = 256 * 1024
"""Size of an input from which a process of its own is worth its start."""
_NICE = 5
_LONGEST_S = 120.0
"""No batch takes this long: its bytes are limited."""
_TELLING = {error.__name__: error for error in (InvalidRequestError, PayloadTooLargeError)}


class Preparation(Protocol):
    """Gives the batches of one input."""

    async def next(self, numbers: Sequence[int]) -> Prepared | None:
        """Return the next batch; see `Preparer.next`."""

    async def close(self) -> None:
        """Let go of the input."""


class InThread:
    """Prepares in a thread of this process."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer
        self._asked: asyncio.Future[Any] | None = None

    async def next(self, numbers: Sequence[int]) -> Prepared | None:
        """Return the next batch; see `Preparer.next`."""
        self._asked = asyncio.ensure_future(asyncio.to_thread(self._preparer.next, numbers))
        found: Prepared | None = await asyncio.shield(self._asked)
        return found

    async def close(self) -> None:
        """Let go of the input, once the thread is done with it."""
        if self._asked is not None:
            await asyncio.gather(self._asked, return_exceptions=True)
        self._preparer.close()


class InProcess:
    """Prepares in a child process."""

    def __init__(self, preparer: Preparer) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._pid = os.fork()
            if self._pid == 0:
                _child(theirs.detach(), preparer)
            self._connection = Connection(ours.detach())
        self._asked: asyncio.Future[Any] | None = None

    async def next(self, numbers: Sequence[int]) -> Prepared | None:
        """Return the next batch; see `Preparer.next`."""
        self._asked = asyncio.ensure_future(asyncio.to_thread(self._ask, numbers))
        kind, found = await asyncio.shield(self._asked)
        if kind == "batch":
            return None if found is None else _prepared(found)
        error, message, issue_code = found
        raise _TELLING.get(error, InteropError)(message, issue_code=issue_code)

    def _ask(self, numbers: Sequence[int]) -> Any:
        try:
            self._connection.send(numbers)
            if not self._connection.poll(_LONGEST_S):  # A lock that another thread held at the fork, for instance.
                os.kill(self._pid, signal.SIGKILL)
            return pickle.loads(self._connection.recv_bytes())  # noqa: S301 - written by our own child
        except (EOFError, OSError) as exc:
            raise UpstreamError("The process that prepares the import has ended") from exc

    async def close(self) -> None:
        """End the child."""
        os.kill(self._pid, signal.SIGKILL)
        if self._asked is not None:
            await asyncio.gather(self._asked, return_exceptions=True)
        self._connection.close()
        with contextlib.suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, self._pid, 0)


def _prepared(found: Any) -> Prepared:
    if not isinstance(found, Prepared):
        raise TypeError("the child sent something else")
    return found


def prepare(preparer: Preparer, size: int) -> Preparation:
    """Prepare the input where it is best done, by its size in bytes."""
    if size >= LARGE_BYTES and sys.platform == "linux":
        try:
            return InProcess(preparer)
        except OSError:  # No memory or no process left: slower, and just as good.
            get_log().warning("an import is prepared without a process of its own")
    return InThread(preparer)


def _child(descriptor: int, preparer: Preparer) -> None:
    """Answer the parent's requests until it closes the connection; never returns."""
    status = 1
    try:
        # What belongs to the parent: its sockets would stay open as long as a child holds them.
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.nice(_NICE)
        gc.freeze()  # The parent's objects are never garbage here; looking at them would copy their pages.
        gc.disable()
        _answer(Connection(descriptor), preparer)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0
    except BaseException as exc:  # noqa: BLE001 - nothing may run on into the parent's code
        get_log().error("an import's preparation ended", exc_info=exc)
    finally:
        os._exit(status)


def _answer(connection: Connection, preparer: Preparer) -> None:
    while True:
        numbers = connection.recv()
        try:
            answer: Any = "batch", preparer.next(numbers)
        except InteropError as exc:
            answer = "error", (type(exc).__name__, exc.message, exc.issue_code)
        connection.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        del answer, numbers
        gc.collect()
