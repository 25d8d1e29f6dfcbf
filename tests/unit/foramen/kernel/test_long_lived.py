"""What a process has loaded is exempt from collections, also what the first requests load."""

from __future__ import annotations

import asyncio
import gc

from foramen.kernel.long_lived import set_apart_what_is_loaded


async def test_what_is_loaded_after_the_start_is_set_apart_too() -> None:
    thresholds = gc.get_threshold()
    try:
        setting_apart = asyncio.create_task(set_apart_what_is_loaded((0.05,)))
        await asyncio.sleep(0)
        before = gc.get_freeze_count()
        loaded = [[number] for number in range(10_000)]
        await setting_apart
        assert gc.get_freeze_count() > before + len(loaded) / 2
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
