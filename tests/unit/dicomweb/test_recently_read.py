"""What the record said counts for a second: read anew before that without anybody waiting, and never used beyond it."""

from __future__ import annotations

import asyncio
import time

import pytest

from dicomweb.recently_read import MAX_AGE_S, RecentlyRead
from foramen.kernel.errors import UpstreamError


class Record:
    """What is read: each reading takes its time, or fails."""

    def __init__(self) -> None:
        self.readings, self.takes_s, self.fails = 0, 0.0, False
        self.recent = RecentlyRead(self.read, "reading", "not now")

    async def read(self) -> None:
        self.readings += 1
        await asyncio.sleep(self.takes_s)
        if self.fails:
            raise UpstreamError("it is gone")

    def let_pass(self, seconds: float) -> None:
        """Make what was read older."""
        self.recent.read_at -= seconds


async def test_what_is_asked_for_all_the_time_is_read_anew_while_nobody_waits() -> None:
    record = Record()
    await record.recent.ensure()
    await record.recent.ensure()
    assert record.readings == 1
    record.takes_s = 30.0
    record.let_pass(0.9 * MAX_AGE_S)
    async with asyncio.timeout(5):
        await asyncio.gather(*(record.recent.ensure() for _ in range(5)))
    await asyncio.sleep(0)
    assert record.readings == 2
    await record.recent.stop()


async def test_what_is_too_old_is_waited_for_by_all_at_once() -> None:
    record = Record()
    await record.recent.ensure()
    record.let_pass(MAX_AGE_S)
    record.takes_s = 0.05
    asked = time.monotonic()
    await asyncio.gather(*(record.recent.ensure() for _ in range(5)))
    assert record.readings == 2
    assert record.recent.read_at >= asked


async def test_a_reading_that_began_too_early_does_not_count() -> None:
    record = Record()
    await record.recent.ensure()
    record.let_pass(0.9 * MAX_AGE_S)
    record.takes_s = 1.4 * MAX_AGE_S
    await record.recent.ensure()
    await asyncio.sleep(1.1 * MAX_AGE_S)
    record.takes_s, asked = 0.0, time.monotonic()
    await record.recent.ensure()
    assert record.recent.read_at >= asked
    assert record.readings == 3


async def test_what_cannot_be_read_shows_nothing_beyond_its_time() -> None:
    record = Record()
    await record.recent.ensure()
    record.fails = True
    record.let_pass(0.9 * MAX_AGE_S)
    await record.recent.ensure()
    await asyncio.sleep(0.01)
    await record.recent.ensure()  # Still young enough, although the reading ahead failed.
    record.let_pass(0.2 * MAX_AGE_S)
    with pytest.raises(UpstreamError, match="not now"):
        await record.recent.ensure()
    record.fails = False
    await record.recent.ensure()
