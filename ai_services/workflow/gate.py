"""One study at a time at the models, the most urgent first: memory stays bounded and an emergency waits for one study.

Runs retrieve and publish beside each other; only the models are passed one by one (stage 4).
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets holders of the lowest rank pass first, and within a rank in order of arrival.

    Parameters
    ----------
    places : how many may be inside at the same time
    """

    def __init__(self, places: int = 1) -> None:
        self._free = places
        self._changed = threading.Condition()
        self._line: list[tuple[int, int]] = []
        self._arrivals = itertools.count()

    @contextmanager
    def turn(self, rank: int) -> Iterator[None]:
        """Wait for a place, and hold it."""
        with self._changed:
            ticket = (rank, next(self._arrivals))
            heapq.heappush(self._line, ticket)
            self._changed.wait_for(lambda: self._free > 0 and self._line[0] == ticket)
            heapq.heappop(self._line)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
