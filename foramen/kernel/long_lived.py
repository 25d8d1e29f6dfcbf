"""Tables and modules live as long as their process: looking for garbage among them finds none, and stops all requests.

A full collection of a web process takes a tenth of a second. https://docs.python.org/3/library/gc.html#gc.freeze
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

_LOADED_AFTER_S = (5.0, 30.0, 300.0)
"""Much is read by the first request that needs it; what is there by then stays."""


def set_apart() -> None:
    """Exempt all that is alive from collections to come."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def set_apart_what_is_loaded(after_s: Sequence[float] = _LOADED_AFTER_S) -> None:
    """Do so now and again some seconds after the start of a process."""
    set_apart()
    waited = 0.0
    for seconds in after_s:
        await asyncio.sleep(seconds - waited)
        waited = seconds
        set_apart()
