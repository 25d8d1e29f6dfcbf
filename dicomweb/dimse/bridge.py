"""From pynetdicom's threads to the event loop that owns database, archive and record, and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from foramen.kernel.errors import UpstreamError

Answer = TypeVar("Answer")
_LONGEST_S = 120.0


class Bridge:
    """Runs coroutines on one loop for callers in other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, Answer], timeout_s: float = _LONGEST_S) -> Answer:
        """Return what the coroutine returns.

        Raises
        ------
        UpstreamError
            It did not end in time, or the process is being stopped.
        """
        return self.result(self.start(work), timeout_s)

    def start(self, work: Coroutine[Any, Any, Answer]) -> concurrent.futures.Future[Answer]:
        """Begin; `result` waits for the end.

        Raises
        ------
        UpstreamError
            The process is being stopped.
        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as exc:
            work.close()
            raise UpstreamError("The process is being stopped") from exc

    def tell(self, work: Callable[..., object], *values: Any) -> None:
        """Have the loop call something, and do not wait for it.

        Raises
        ------
        UpstreamError
            The process is being stopped.
        """
        try:
            self._loop.call_soon_threadsafe(work, *values)
        except RuntimeError as exc:
            raise UpstreamError("The process is being stopped") from exc

    @staticmethod
    def result(future: concurrent.futures.Future[Answer], timeout_s: float = _LONGEST_S) -> Answer:
        """Return what was started comes to, as `run` does."""
        try:
            return future.result(timeout_s)
        except (TimeoutError, concurrent.futures.TimeoutError) as exc:
            future.cancel()
            raise UpstreamError("It took too long") from exc
        except concurrent.futures.CancelledError as exc:
            raise UpstreamError("The process is being stopped") from exc
