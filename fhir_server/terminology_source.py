"""Terminology that users stored: finds ValueSet, CodeSystem and ConceptMap resources by canonical URL.

Read under the system's own right, for these three types alone: which codes are valid does not depend on who asks.
The terminology operations, which show what they find, ask in their caller's name (`shown_to`).
https://hl7.org/fhir/R4/references.html#canonical
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fhir_server.access.policy import Access
from fhir_server.canonical_search import CanonicalSearch
from fhir_server.settings import FhirSettings
from fhir_server.store.connections import Connections

TYPES = ("CodeSystem", "ValueSet", "ConceptMap")
_READER: ContextVar[Access | None] = ContextVar("terminology_reader", default=None)


@contextmanager
def shown_to(access: Access) -> Iterator[None]:
    """Let everything that is looked up inside be shown to a caller: of types they may not read, nothing is found.

    These types are in no patient's record, so that a patient scope reads none of them.
    """
    token = _READER.set(access)
    try:
        yield
    finally:
        _READER.reset(token)


def _may_see(resource_type: str) -> bool:
    access = _READER.get()
    if access is None:
        return True
    return access.sees_all(resource_type)


class StoredTerminology:
    """`terminology.sources.Source` over the record."""

    def __init__(self, connections: Connections, limits: FhirSettings, own_url: str) -> None:
        self._search = CanonicalSearch(connections, limits, own_url, name="terminology", types=TYPES)

    async def find(self, resource_type: str, url: str) -> dict[str, Any] | None:
        """Return the resource with this canonical (``url`` or ``url|version``) that was written last.

        Retired ones are taken only when there is no other.
        """
        if resource_type not in TYPES:
            raise ValueError("only terminology is read under the system's own right")
        if not _may_see(resource_type):
            return None
        name, _, version = url.partition("|")
        return await self._search.newest(resource_type, name, version)
