"""Fill a page of a history when each version has to be looked at: old versions are in no index.

A page holds what may be seen and nothing else tells of the rest: not its length, not the place where it ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError

Cursor = tuple[datetime, int, int]
Fetch = Callable[[Cursor | None, int], Awaitable[list[Stored]]]
_LEAST_BLOCK = 100


async def visible_versions(
    fetch: Fetch, is_hidden: Callable[[Stored], bool], *, before: Cursor | None, wanted: int, most: int
) -> list[Stored]:
    """Return the next versions that are not hidden.

    Parameters
    ----------
    fetch : returns up to so many versions behind a place, newest first
    wanted : most that are returned
    most : most that are looked at

    Raises
    ------
    InvalidRequestError
        `too-costly`: the page was not full after `most`. A link to go on behind a hidden version would tell of it.
    """
    found: list[Stored] = []
    looked_at = 0
    while True:
        size = max(wanted, _LEAST_BLOCK)
        block = await fetch(before, size)
        found += [stored for stored in block if not is_hidden(stored)]
        looked_at += len(block)
        if len(found) >= wanted or len(block) < size:
            return found[:wanted]
        if looked_at >= most:
            text = "Too many versions to look at; narrow the history with _since or ask for one type or resource"
            raise InvalidRequestError(text, issue_code="too-costly")
        before = (block[-1].updated, block[-1].row, block[-1].version)
