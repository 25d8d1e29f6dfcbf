"""Terminology that users stored, and after it what packages brought: `terminology.sources.Source`."""

from __future__ import annotations

from typing import Any

from fhir_server.packages.catalogue import Catalogue
from terminology.sources import Source


class StoredOrPackaged:
    """Looks in the record first: a hospital may correct what a package says."""

    def __init__(self, stored: Source, packages: Catalogue) -> None:
        self._stored = stored
        self._packages = packages

    async def find(self, resource_type: str, url: str) -> dict[str, Any] | None:
        """Return the ValueSet, CodeSystem or ConceptMap with this canonical."""
        return await self._stored.find(resource_type, url) or await self._packages.find(resource_type, url)
