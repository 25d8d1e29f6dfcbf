"""Where conformance resources come from: HL7's content, our own, and what users stored (through a port).

https://hl7.org/fhir/R4/references.html#canonical
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Protocol

import orjson

from terminology.code_systems import MemoryCodeSystem
from terminology.own.resources import own_resources

_CONTENT = Path(__file__).with_name("content") / "core.json.gz"


_LISTED = ("complete", "example", "fragment")


class Source(Protocol):
    """Finds resources that users stored; implemented by the record."""

    async def find(self, resource_type: str, url: str) -> dict[str, Any] | None:
        """Return the newest ValueSet, CodeSystem or ConceptMap with this canonical (``url`` or ``url|version``)."""


class NoSource:
    """Stands for a record without stored terminology."""

    async def find(self, resource_type: str, url: str) -> dict[str, Any] | None:
        """Find nothing."""
        return None


def split_canonical(canonical: str) -> tuple[str, str | None]:
    """Split ``url|version``."""
    url, _, version = canonical.partition("|")
    return url, version or None


class Library:
    """HL7's R4, v3 and v2 content and Foramen's own; read at first use, kept as text until a resource is asked for."""

    def __init__(self, content: Path = _CONTENT) -> None:
        self._content = content
        self._lines: dict[tuple[str, str], bytes] | None = None
        self._systems: dict[str, MemoryCodeSystem] = {}
        self._versions: dict[str, str | None] | None = None

    def _load(self) -> dict[tuple[str, str], bytes]:
        if self._lines is None:
            index, *lines = gzip.decompress(self._content.read_bytes()).split(b"\n")
            names = orjson.loads(index)["resources"]
            found = {(kind, url): line for (kind, url), line in zip(names, lines, strict=True)}
            for resource in own_resources():
                found[resource["resourceType"], resource["url"]] = orjson.dumps(resource)
            self._lines = found
        return self._lines

    def find(self, resource_type: str, canonical: str) -> dict[str, Any] | None:
        """Return a resource by its canonical; another version than ours is not found."""
        lines = self._load()
        # Six code systems of v2 have a URL that ends in "|" and a version.
        url, version = (canonical, None) if (resource_type, canonical) in lines else split_canonical(canonical)
        line = lines.get((resource_type, url))
        if line is None:
            return None
        resource: dict[str, Any] = orjson.loads(line)
        return resource if version in (None, resource.get("version")) else None

    def code_system(self, url: str, version: str | None = None) -> MemoryCodeSystem | None:
        """Return a code system, built once; those without content (SNOMED CT) are not here."""
        if version and ("CodeSystem", f"{url}|{version}") in self._load():
            url, version = f"{url}|{version}", None
        system = self._systems.get(url)
        if system is None:
            resource = self.find("CodeSystem", url)
            if resource is None or resource.get("content") not in _LISTED:
                return None
            system = self._systems[url] = MemoryCodeSystem(resource)
        return system if version in (None, system.version) else None

    def versions(self) -> dict[str, str | None]:
        """Return the version of every code system with content."""
        if self._versions is None:
            found = ((url, self.find("CodeSystem", url) or {}) for url in self.names("CodeSystem"))
            self._versions = {url: item.get("version") for url, item in found if item.get("content") in _LISTED}
        return self._versions

    def names(self, resource_type: str) -> list[str]:
        """URLs of all resources of a type."""
        return [url for kind, url in self._load() if kind == resource_type]
