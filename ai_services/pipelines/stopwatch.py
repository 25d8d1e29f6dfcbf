"""How long each stage of a run took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the seconds that a stage took; nothing where it raised."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 4)
