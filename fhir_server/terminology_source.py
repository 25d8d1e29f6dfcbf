"""Terminology that users stored: finds ValueSet, CodeSystem and ConceptMap resources by canonical URL.

Read under the system's own right, for these three types alone: which codes are valid does not depend on who asks.
https://hl7.org/fhir/R4/references.html#canonical
"""

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.access.policy import Access
from fhir_server.search.parse import SearchParser
from fhir_server.settings import FhirSettings
from fhir_server.store import searching
from fhir_server.store.connections import Connections
from foramen.kernel.access_context import AccessContext, parse_scopes

TYPES = ("CodeSystem", "ValueSet", "ConceptMap")
_CANDIDATES = 20


class StoredTerminology:
    """`terminology.sources.Source` over the record."""

    def __init__(self, connections: Connections, limits: FhirSettings, own_url: str) -> None:
        self._connections = connections
        scopes = parse_scopes(" ".join(f"system/{resource_type}.rs" for resource_type in TYPES))
        access = Access(AccessContext("terminology", "", scopes))
        self._parser = SearchParser(limits, own_url, access)

    async def find(self, resource_type: str, url: str) -> dict[str, Any] | None:
        """Return the resource with this canonical (``url`` or ``url|version``) that was written last.

        Retired ones are taken only when there is no other.
        """
        if resource_type not in TYPES:
            raise ValueError("only terminology is read under the system's own right")
        name, _, version = url.partition("|")
        pairs = [("url", _escaped(name)), *([("version", _escaped(version))] if version else [])]
        selection = self._parser.parse(resource_type, pairs, strict=True).selection
        async with self._connections.lend() as connection:
            found = await searching.matches(connection, selection, _CANDIDATES)
        resources = [(item.updated, orjson.loads(item.content)) for item in found if item.content is not None]
        if not resources:
            return None
        resource: dict[str, Any] = max(resources, key=lambda item: (item[1].get("status") != "retired", item[0]))[1]
        return resource


def _escaped(text: str) -> str:
    """Escape what separates values in a search (https://hl7.org/fhir/R4/search.html#escaping)."""
    for sign in ("\\", ",", "$", "|"):
        text = text.replace(sign, f"\\{sign}")
    return text
