"""Row numbers: unique, handed out from blocks of the database's sequence, placed by patient.

Bits 62…53 are the bucket of the patient, bits 52…0 the sequence (9·10^15 rows).
"""

from __future__ import annotations

import asyncio
from typing import Any

_BLOCK = 1000
_BUCKET_BITS = 10
_SEQUENCE_BITS = 53


class RowNumbers:
    """Allocates row numbers; a block that is not used up leaves a gap, which is harmless."""

    def __init__(self) -> None:
        self._next = 0
        self._end = 0
        self._lock = asyncio.Lock()

    async def take(self, connection: Any, count: int) -> list[int]:
        """Return `count` new sequence numbers."""
        async with self._lock:
            taken: list[int] = []
            while len(taken) < count:
                if self._next >= self._end:
                    self._next = await connection.fetchval("SELECT nextval('fhir.row_number')")
                    self._end = self._next + _BLOCK
                step = min(count - len(taken), self._end - self._next)
                taken.extend(range(self._next, self._next + step))
                self._next += step
            return taken


def place(number: int, placement_key: int) -> int:
    """Row number of a resource: its patient's bucket (or its own key's) above the sequence."""
    bucket = placement_key & ((1 << _BUCKET_BITS) - 1)
    return (bucket << _SEQUENCE_BITS) | number
