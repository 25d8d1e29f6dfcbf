"""Whether an answer that was put off may still be shown, to who is bounded by an institution (ADR 0030).

The answer lies there since the job ended; a patient may have gone to another institution meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from fhir_server.search.hashing import resource_key
from fhir_server.server import Call
from fhir_server.store import reading
from foramen.kernel.errors import NotFoundError


async def check_institutions(call: Call, content: bytes) -> None:
    """Refuse an answer that holds a resource which the caller's institution does not let them see now.

    Raises
    ------
    NotFoundError
        As if there were no such job.
    """
    if (wall := call.access.wall) is None:
        return
    keys = sorted({resource_key(*name) for name in _named(orjson.loads(content))})
    async with call.server.connections.lend() as connection:
        found = list((await reading.current(connection, keys)).values())
        await wall.learn_of(connection, found)
    if any(wall.hides(stored) for stored in found):
        raise NotFoundError("There is no such job, or it has expired")


def _named(item: Any) -> Iterator[tuple[str, str]]:
    """Yield (type, id) of all resources in an answer, those of nested Bundles too."""
    if isinstance(item, dict):
        if isinstance(item.get("resourceType"), str) and isinstance(item.get("id"), str):
            yield item["resourceType"], item["id"]
        for value in item.values():
            yield from _named(value)
    elif isinstance(item, list):
        for value in item:
            yield from _named(value)
