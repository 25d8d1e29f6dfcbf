"""Look up what the filters of an export need first: value sets, hierarchies, Lists, the targets of chains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_server.search.conditions import Selection
from fhir_server.server import Server
from fhir_server.store.arranging import arrange
from fhir_server.store.bulk import Wanted
from fhir_server.store.resolving import Resolver


async def resolved(connection: Any, server: Server, wanted: list[Wanted], *, arranged: bool) -> list[Wanted]:
    """Return the same with filters that SQL can ask.

    Parameters
    ----------
    arranged : also put their conditions in order, for which chains are followed now

    Raises
    ------
    NotFoundError
        A value set, List or code system does not exist for this caller.
    InvalidRequestError
        `too-costly`.
    """
    resolver = Resolver(connection, server.terminology, server.own_url, server.limits.max_expansion)

    async def one(selection: Selection) -> Selection:
        found = await resolver.selection(selection)
        return await arrange(connection, found) if arranged else found

    async def each(item: Wanted) -> Wanted:
        filters = tuple([await one(selection) for selection in item.filters])
        return replace(item, filters=filters, about=tuple([await each(target) for target in item.about]))

    return [await each(item) for item in wanted]
