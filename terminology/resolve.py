"""Which code system or value set a canonical means: HL7's and our own, then imported, then those that users stored.

A value set of HL7's of which a part is withheld (its codes are licensed) gives way to a stored one with the same URL.
https://hl7.org/fhir/R4/references.html#canonical
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from terminology.code_systems import CodeSystem, MemoryCodeSystem
from terminology.implicit import implicit_value_set
from terminology.sources import Library, Source, split_canonical
from terminology.store.imported import ImportedSystems
from terminology.value_sets import Compiler, Rules

_KEPT_SYSTEMS = 32
_LISTED = ("complete", "fragment", "example")


class Resolver:
    """Finds code systems, value sets and concept maps."""

    def __init__(self, library: Library, imported: ImportedSystems, source: Source) -> None:
        self.library = library
        self.imported = imported
        self._source = source
        self._stored: OrderedDict[Hashable, MemoryCodeSystem] = OrderedDict()
        self._rules: dict[str, Rules] = {}

    async def code_system(self, url: str, version: str | None = None) -> CodeSystem | None:
        """Return a code system with content, or None."""
        own = self.library.code_system(url, version)
        if own is not None:
            return own
        imported = await self.imported.find(url, version)
        if imported is not None:
            return imported
        resource = await self._source.find("CodeSystem", f"{url}|{version}" if version else url)
        if resource is None or resource.get("content") not in _LISTED:
            return None
        return self.stored(resource)

    def stored(self, resource: dict[str, Any]) -> MemoryCodeSystem:
        """Return a stored CodeSystem, built once for each of its versions."""
        meta = resource.get("meta", {})
        key = (resource.get("id"), meta.get("versionId"), meta.get("lastUpdated"))
        if None in key:
            return MemoryCodeSystem(resource)
        system = self._stored.get(key)
        if system is None:
            system = self._stored[key] = MemoryCodeSystem(resource)
            if len(self._stored) > _KEPT_SYSTEMS:
                self._stored.popitem(last=False)
        self._stored.move_to_end(key)
        return system

    async def value_set(self, canonical: str) -> dict[str, Any] | None:
        """Return a ValueSet, or None."""
        own = self.library.find("ValueSet", canonical)
        if own is not None and not _is_withheld(own):
            return own
        implicit = implicit_value_set(canonical)
        if implicit is not None:
            return implicit
        url, version = split_canonical(canonical)
        imported = await self.imported.value_set(url, version)
        if imported is not None:
            return imported
        stored = await self._source.find("ValueSet", canonical)
        if stored is not None:
            return stored
        return own or await self._all_codes_of(url)

    async def _all_codes_of(self, url: str) -> dict[str, Any] | None:
        """Return the value set that an imported code system names as its own (`CodeSystem.valueSet`)."""
        for system in await self.imported.all():
            if url == f"{system.url}?vs":
                return {"resourceType": "ValueSet", "url": url, "compose": {"include": [{"system": system.url}]}}
        return None

    async def concept_map(self, canonical: str) -> dict[str, Any] | None:
        """Return a ConceptMap; a stored one goes before ours, as a hospital's coders correct it."""
        stored = await self._source.find("ConceptMap", canonical)
        return stored if stored is not None else self.library.find("ConceptMap", canonical)

    def library_rules(self, canonical: str) -> Rules | None:
        """Return the rules of one of HL7's or our own value sets, from memory alone and built once."""
        rules = self._rules.get(canonical)
        if rules is None:
            resource = self.library.find("ValueSet", canonical)
            if resource is None or _is_withheld(resource):
                return None
            rules = run_now(Compiler(self._library_value_set).compile(resource))
            self._rules[canonical] = rules
        return rules

    async def _library_value_set(self, canonical: str) -> dict[str, Any] | None:
        return self.library.find("ValueSet", canonical)

    async def rules(self, canonical: str) -> Rules | None:
        """Return the rules of a value set, or None when it is not known.

        Raises
        ------
        InvalidRequestError
            The value set cannot be used (cycle, filter, too many imports).
        """
        rules = self.library_rules(canonical)
        if rules is not None and not rules.incomplete and not rules.unsure:
            return rules
        resource = await self.value_set(canonical)
        return None if resource is None else await self.rules_of(resource)

    async def rules_of(self, resource: dict[str, Any]) -> Rules:
        """Return the rules of a ValueSet that is at hand."""
        return await Compiler(self.value_set, resource.get("url")).compile(resource)


def _is_withheld(resource: dict[str, Any]) -> bool:
    compose = resource.get("compose", {})
    return any(part.get("withheld") for name in ("include", "exclude") for part in compose.get(name, []))


def run_now(coroutine: Any) -> Any:
    """Run a coroutine that never waits (everything it asks is in memory) and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("the coroutine waited")
