"""How background work of gateway and DIMSE process goes on: after faults of ours, and while others are down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log

_AGAIN_S = 1.0


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run background work for as long as the process lives: a fault of ours in it is logged and it begins again."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  logged, and the work begins again
            get_log().exception("background work failed", part=name)
        await asyncio.sleep(_AGAIN_S)


async def work_through(name: str, work_once: Callable[[], Awaitable[bool]], idle_s: float, waits_s: float) -> None:
    """Do one piece after the other, until cancelled.

    Parameters
    ----------
    work_once : whether there was a piece to work on
    idle_s : pause when there was none
    waits_s : pause when database, archive or record could not be asked
    """
    while True:
        try:
            if not await work_once():
                await asyncio.sleep(idle_s)
        except InteropError as error:
            get_log().warning("background work waits", part=name, reason=error.message)
            await asyncio.sleep(waits_s)
