"""Profiles that users stored as StructureDefinition resources: found by canonical URL, the newest first.

Read under the system's own right, for this type alone: what a profile says does not depend on who asks.
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

_TYPE = "StructureDefinition"
_CANDIDATES = 20


class StoredDefinitions:
    """StructureDefinitions of the record."""

    def __init__(self, connections: Connections, limits: FhirSettings, own_url: str) -> None:
        self._connections = connections
        self._parser = SearchParser(
            limits, own_url, Access(AccessContext("profiles", "", parse_scopes(f"system/{_TYPE}.rs")))
        )

    async def find(self, url: str, version: str) -> dict[str, Any] | None:
        """Return the definition that was written last; a retired one only when there is no other."""
        pairs = [("url", _escaped(url)), *([("version", _escaped(version))] if version else [])]
        selection = self._parser.parse(_TYPE, pairs, strict=True).selection
        async with self._connections.lend() as connection:
            found = await searching.matches(connection, selection, _CANDIDATES)
        resources = [(item.updated, orjson.loads(item.content)) for item in found if item.content is not None]
        if not resources:
            return None
        newest: dict[str, Any] = max(resources, key=lambda item: (item[1].get("status") != "retired", item[0]))[1]
        return newest


def _escaped(text: str) -> str:
    for sign in ("\\", ",", "$", "|"):
        text = text.replace(sign, f"\\{sign}")
    return text
