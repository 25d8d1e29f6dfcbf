"""Instances of a request are looked at while the rest of it still comes; nothing else is done with them before.

What was found at the beginning of a file holds whatever follows: should the body turn out malformed, it is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dicomweb.instance_check import RejectedInstanceError
from dicomweb.multipart import Part
from dicomweb.store.inspect import HEAD_BYTES, Inspected, inspect_head

_AT_ONCE = 16
_MOST_WAITING = 64
"""More are left for later: a sender of many small parts would fill the memory with their beginnings."""
Outcome = Inspected | RejectedInstanceError | None
"""What `inspect_head` returned or raised."""


class EarlyLook:
    """Looks at the parts of one request.

    Parameters
    ----------
    parsing : how many may parse at once
    """

    def __init__(self, parsing: asyncio.Semaphore) -> None:
        self._parsing = parsing
        self._waiting: list[tuple[int, bytes, int]] = []
        self._found: dict[int, Outcome] = {}
        self._looking: asyncio.Task[None] | None = None

    def whole(self, part: Part) -> None:
        """Take a part that came to its end."""
        if len(self._waiting) >= _MOST_WAITING:
            return
        self._waiting.append((part.start, part.head(HEAD_BYTES), part.size))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while self._waiting:
            async with self._parsing:
                some, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                self._found.update(await asyncio.to_thread(_inspect, some))

    async def end(self) -> dict[int, Outcome]:
        """Look at no more of them, and return what was found, by where in the spool the part begins."""
        self._waiting = []
        if self._looking is not None:
            await self._looking
        return self._found


def _inspect(heads: Sequence[tuple[int, bytes, int]]) -> dict[int, Outcome]:
    return {start: outcome_of(head, size) for start, head, size in heads}


def outcome_of(head: bytes, size: int) -> Outcome:
    """Return what `inspect_head` returns or raises."""
    try:
        return inspect_head(head, size)
    except RejectedInstanceError as error:
        return error
