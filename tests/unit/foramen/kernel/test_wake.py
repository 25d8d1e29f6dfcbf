"""A pause of a background task ends when it is woken, when it is cancelled, and by itself."""

import asyncio
import time

import pytest

from foramen.kernel.wake import woken_within


async def test_woken_and_by_itself() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    started = time.monotonic()
    await woken_within(event, 30)
    assert time.monotonic() - started < 10
    await woken_within(asyncio.Event(), 0.01)


@pytest.mark.parametrize("turns", range(5))
async def test_cancelled_in_the_moment_it_is_woken(turns: int) -> None:
    event = asyncio.Event()

    async def for_ever() -> None:
        while True:
            event.clear()
            await woken_within(event, 0.2)

    task = asyncio.create_task(for_ever())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2)
    assert done, "the cancellation was lost"
