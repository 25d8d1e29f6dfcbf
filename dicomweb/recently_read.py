"""What was read of the record counts for a second; while it is asked for it is read anew before that, and nobody waits.

Once a second one of many searches waited for the record, and for what the record had to do besides: of 200 the two that
were slow. ADR 0040
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from foramen.kernel.errors import InteropError, UpstreamError

MAX_AGE_S = 1.0
"""A change in the record counts after this time at the latest."""
_AHEAD_S = 0.4
"""So long before it would be too old it is read anew: several times what that takes."""
_WAIT_S = 10.0


class RecentlyRead:
    """Sees to it that something was read at most `MAX_AGE_S` ago.

    Parameters
    ----------
    read : reads it, and keeps it where its owner looks; raises `InteropError` when it cannot
    name : of the task
    refusal : what a caller is told when it cannot be read
    """

    def __init__(self, read: Callable[[], Awaitable[None]], name: str, refusal: str) -> None:
        self._read, self._name, self._refusal = read, name, refusal
        self._reading: asyncio.Task[None] | None = None
        self.read_at = -math.inf
        """When the last reading that succeeded began (`time.monotonic`)."""

    async def ensure(self) -> None:
        """Return when it is young enough; all who ask meanwhile wait for the same reading.

        Raises
        ------
        UpstreamError
            It cannot be read: nothing that depends on it may be shown.
        """
        asked = time.monotonic()
        if asked - self.read_at < MAX_AGE_S - _AHEAD_S:
            return
        self._begin()
        try:
            async with asyncio.timeout(_WAIT_S):
                while self.read_at <= asked - MAX_AGE_S:
                    # One that took long began too early: then once more. It goes on when nobody waits any more.
                    await asyncio.shield(self._begin())
        except (InteropError, TimeoutError) as exc:
            raise UpstreamError(self._refusal, headers={"Retry-After": "2"}) from exc

    def _begin(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_once(), name=self._name)
            self._reading.add_done_callback(_taken_note)
        return self._reading

    async def _read_once(self) -> None:
        began = time.monotonic()
        await self._read()
        self.read_at = began

    async def stop(self) -> None:
        """End what is being read."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait([self._reading])


def _taken_note(task: asyncio.Task[None]) -> None:
    """Take note of how it ended: whoever waited was told, and perhaps nobody did."""
    if not task.cancelled():
        task.exception()
