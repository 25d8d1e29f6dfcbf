"""Find stored conformance resources by canonical URL, the newest first.

Read under the system's own right, for the types it is made for alone: what a profile or a value set says does not
depend on who asks. https://hl7.org/fhir/R4/references.html#canonical
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

_CANDIDATES = 20


class CanonicalSearch:
    """Conformance resources of the record.

    Parameters
    ----------
    name : who asks, for the access context
    types : the only resource types that are read
    """

    def __init__(
        self, connections: Connections, limits: FhirSettings, own_url: str, *, name: str, types: tuple[str, ...]
    ) -> None:
        self._connections = connections
        scopes = parse_scopes(" ".join(f"system/{resource_type}.rs" for resource_type in types))
        self._parser = SearchParser(limits, own_url, Access(AccessContext(name, "", scopes)))

    async def newest(self, resource_type: str, url: str, version: str = "") -> dict[str, Any] | None:
        """Return the resource that was written last; a retired one only when there is no other."""
        pairs = [("url", _escaped(url)), *([("version", _escaped(version))] if version else [])]
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
