"""Pauses of background tasks: until something is to do, or a while has passed."""

import asyncio


async def woken_within(wake: asyncio.Event, seconds: float) -> None:
    """Wait until ``wake`` is set, or ``seconds`` have passed.

    A cancellation always ends the wait: ``asyncio.wait_for`` of Python 3.11 loses one that comes in the moment the
    event is set (cpython issue 86296), and the task it was meant for would run for ever.
    """
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
