"""First pages of simple searches, gathered: what is asked while a statement runs is answered by one next statement.

A lone search goes to the database at once; under load one round trip answers many (as `current.py` does for reads).
Searches share a statement only with those of the same shape, and only as long as that shape answers fast: nobody waits
long for another's question.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fhir_server.store.page_shapes import GatheredPages, PageQuestion
from fhir_server.store.replicas import Searches
from foramen.kernel.errors import UpstreamError

_GROUP = 32
_MATCHES = 2000
"""Matches that the pages of one statement may come to, beyond the first."""
_AT_ONCE = 2
"""Statements of a fast shape under way at once: the next group gathers while they run."""
_SLOW_S = 0.05
"""A search that takes longer than this is not gathered with others, until one of its shape was faster again.

Who has waited so long for those under way waits no longer: each free connection takes one (`_relieve`).
"""
_MOST_SHAPES = 1000

Waiting = tuple[PageQuestion, "asyncio.Future[list[Any]]"]


class _Shape:
    """What waits for one statement."""

    __slots__ = ("running", "seconds", "timer", "under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.running = 0
        self.seconds = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.under_way: list[float] = []
        """By when each statement under way should be done if this shape is fast."""

    @property
    def is_slow(self) -> bool:
        """Whether it took long last time, or each statement under way takes longer than it should."""
        now = time.monotonic()
        late = bool(self.under_way) and max(self.under_way) < now
        return late or self.seconds > _SLOW_S


def _together(shape: _Shape) -> int:
    """How many of those who wait go together: a statement holds all their pages at once."""
    if shape.is_slow:
        return 1
    count, matches = 0, 0
    for question, _ in shape.waiting[:_GROUP]:
        matches += question.most
        if count and matches > _MATCHES:
            break
        count += 1
    return count


def _is_away(exc: Exception) -> bool:
    """Whether the database cannot be asked now, by anybody."""
    return isinstance(exc, UpstreamError) and exc.issue_code != "timeout"


class GatheredPageReader:
    """Reads first pages.

    Parameters
    ----------
    searches : where searches run; what has to run on the primary is gathered apart
    """

    def __init__(self, searches: Searches) -> None:
        self._searches = searches
        self._shapes: dict[tuple[GatheredPages, bool], _Shape] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, question: PageQuestion, *, primary: bool) -> list[Any]:
        """Return the records of one page, in order: place, id, content and the sort keys k0, k1, …

        Parameters
        ----------
        primary : as in `Searches.run`

        Raises
        ------
        UpstreamError
            The database is away, or the search takes too long.
        """
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        key = question.statement, primary
        shape = self._shape(key)
        shape.waiting.append((question, future))
        if shape.running < _AT_ONCE:
            self._begin(key, shape)
        else:
            self._relieve(key, shape)
        return await future

    def _begin(self, key: tuple[GatheredPages, bool], shape: _Shape) -> None:
        shape.running += 1
        task = asyncio.create_task(self._run(key, shape), name="fhir-pages")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _relieve(self, key: tuple[GatheredPages, bool], shape: _Shape) -> None:
        """Of a slow shape, let each free connection but one take one of those that wait; look again in a while."""
        if shape.is_slow:
            begun = max(0, shape.running - len(shape.under_way))
            free = self._searches.free(primary=key[1]) - 1 - begun  # What is not of this shape finds one at once.
            for _ in range(min(free, len(shape.waiting) - begun)):
                self._begin(key, shape)
        if shape.timer is None:
            shape.timer = asyncio.get_running_loop().call_later(_SLOW_S, self._look_again, key, shape)

    def _look_again(self, key: tuple[GatheredPages, bool], shape: _Shape) -> None:
        shape.timer = None
        if shape.waiting:
            self._relieve(key, shape)

    def _shape(self, key: tuple[GatheredPages, bool]) -> _Shape:
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes = {k: found for k, found in self._shapes.items() if found.running}
            shape = self._shapes[key] = _Shape()
        return shape

    async def _run(self, key: tuple[GatheredPages, bool], shape: _Shape) -> None:
        try:
            while shape.waiting:
                most = _together(shape)
                group, shape.waiting = shape.waiting[:most], shape.waiting[most:]
                await self._answer(key, shape, group)
        finally:
            shape.running -= 1
            if shape.timer is not None and not shape.waiting:
                shape.timer.cancel()
                shape.timer = None

    async def _answer(self, key: tuple[GatheredPages, bool], shape: _Shape, group: list[Waiting]) -> None:
        try:
            pages = await self._ask(key, shape, [question for question, _ in group])
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the answer to each who waits
            if len(group) > 1 and not _is_away(exc):  # One may be the reason: each alone, so that no other suffers.
                await asyncio.gather(*(self._answer(key, shape, [waiting]) for waiting in group))
                return
            pages = [exc] * len(group)
        for (_, future), page in zip(group, pages, strict=True):
            if future.done():
                continue
            if isinstance(page, Exception):
                future.set_exception(page)
            else:
                future.set_result(page)

    async def _ask(self, key: tuple[GatheredPages, bool], shape: _Shape, questions: list[PageQuestion]) -> list[Any]:
        statement, primary = key
        columns = [[question.values[slot] for question in questions] for slot in statement.slots]

        async def work(connection: Any) -> list[Any]:
            began = time.monotonic()
            due = began + _SLOW_S * len(questions)
            shape.under_way.append(due)
            try:
                found: list[Any] = await connection.fetch(statement.text, *columns)
            finally:
                shape.under_way.remove(due)
                shape.seconds = (time.monotonic() - began) / len(questions)
            return found

        pages: list[list[Any]] = [[] for _ in questions]
        for record in await self._searches.run(work, primary=primary):
            pages[record[0] - 1].append(record)
        return pages
