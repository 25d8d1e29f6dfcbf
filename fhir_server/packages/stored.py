"""Profiles that users stored as StructureDefinition resources: found by canonical URL, the newest first."""

from __future__ import annotations

from typing import Any

from fhir_server.canonical_search import CanonicalSearch
from fhir_server.settings import FhirSettings
from fhir_server.store.connections import Connections

_TYPE = "StructureDefinition"


class StoredDefinitions:
    """StructureDefinitions of the record."""

    def __init__(self, connections: Connections, limits: FhirSettings, own_url: str) -> None:
        self._search = CanonicalSearch(connections, limits, own_url, name="profiles", types=(_TYPE,))

    async def find(self, url: str, version: str) -> dict[str, Any] | None:
        """Return the definition that was written last; a retired one only when there is no other."""
        return await self._search.newest(_TYPE, url, version)
