"""Find conformance resources by canonical URL: ours, R4's, installed packages', then stored ones.

https://hl7.org/fhir/R4/references.html#canonical. Each web process keeps what it has read until the counter in the
database says that the packages changed; it is asked at most once in `check_every_s`.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from fhir_server.packages.stored import StoredDefinitions
from fhir_server.packages.versions import version_key
from fhir_server.profiles.shipped import base_keys, own_definitions, r4_binding, r4_definition, r4_elements
from fhir_server.store import packages
from fhir_server.store.connections import Connections
from fhir_server.validation.profile import R4, Profile, compile_profile
from fhir_server.validation.snapshot import generate_snapshot
from foramen.kernel.errors import InvalidResourceError

_MAX_BASES = 20
_MAX_NESTED = 500
_MAX_KEPT = 2000
_PACKAGED = "_packaged"
"""Marks, in memory only, a definition that changes with the installed packages alone."""


class Catalogue:
    """Conformance resources of this server.

    Parameters
    ----------
    connections : to the database that holds installed packages; None: there are none
    stored : finds what users stored; None: nothing
    check_every_s : longest time for which another process's installation, or a stored definition, may stay unseen
    """

    def __init__(
        self,
        connections: Connections | None,
        stored: StoredDefinitions | None = None,
        check_every_s: float = 1.0,
    ) -> None:
        self._connections = connections
        self._stored = stored
        self._check_every_s = check_every_s
        self._checked = 0.0
        self._counter = -1
        self._profiles: dict[str, Profile | None] = {}
        self._lasting: set[str] = set()

    async def refresh(self, *, now: bool = False) -> None:
        """Forget what was read when another process installed or removed a package.

        Raises
        ------
        UpstreamError
            The database is away: what holds now cannot be known.
        """
        if self._connections is None:
            return
        moment = time.monotonic()
        if not now and moment - self._checked < self._check_every_s:
            return
        async with self._connections.lend() as connection:
            counter = await packages.counter(connection)
        self._checked = moment
        if counter != self._counter:
            self._counter = counter
            self._lasting.clear()
        # What users store can change at any time, and what is not known can become known.
        self._profiles = {url: found for url, found in self._profiles.items() if url in self._lasting}

    async def find(self, resource_type: str, canonical: str) -> dict[str, Any] | None:
        """Return a conformance resource.

        Parameters
        ----------
        canonical : ``url`` (the newest version) or ``url|version``
        """
        url, _, version = canonical.partition("|")
        if resource_type == "StructureDefinition":
            own = own_definitions().get(url)
            if own is not None and version in ("", own.get("version", "")):
                return own
            if url.startswith(R4):
                found = r4_definition(url)
                if found is not None:
                    return found
        packaged = await self._packaged(resource_type, url, version)
        if packaged is None and resource_type == "StructureDefinition" and self._stored is not None:
            return await self._stored.find(url, version)
        return packaged

    async def _packaged(self, resource_type: str, url: str, version: str) -> dict[str, Any] | None:
        if self._connections is None:
            return None
        async with self._connections.lend() as connection:
            candidates = await packages.find(connection, resource_type, url)
        wanted = [c for c in candidates if version in ("", c[1])]
        if not wanted:
            return None
        newest = max(wanted, key=lambda c: (version_key(c[1]), version_key(c[0])))
        resource: dict[str, Any] = {**orjson.loads(newest[2]), _PACKAGED: True}
        return resource

    async def structure(self, canonical: str, depth: int = 0) -> dict[str, Any] | None:
        """Return a StructureDefinition with a snapshot, made from its differential where it has none.

        Raises
        ------
        InvalidResourceError
            Its base is not known, or its differential does not fit the base.
        """
        structure = await self.find("StructureDefinition", canonical)
        if structure is None or structure.get("snapshot", {}).get("element"):
            return structure
        return await self.with_snapshot(structure, depth)

    async def with_snapshot(self, structure: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        """Return a copy of a StructureDefinition that has a snapshot."""
        base = structure.get("baseDefinition")
        found = await self.structure(base, depth + 1) if isinstance(base, str) and depth < _MAX_BASES else None
        if found is None:
            raise InvalidResourceError(
                "It has no snapshot, and its base is not known here",
                issue_code="not-found",
                expression=("StructureDefinition.baseDefinition",),
            )
        differential = structure.get("differential", {}).get("element", [])
        elements = generate_snapshot(differential, found["snapshot"]["element"], r4_elements)
        return {**structure, "snapshot": {"element": elements}}

    async def profile(self, canonical: str) -> Profile | None:
        """Return a compiled profile, or None when it is not known.

        Raises
        ------
        InvalidResourceError
            The definition cannot be used.
        """
        if canonical in self._profiles:
            return self._profiles[canonical]
        structure = await self.structure(canonical)
        profile = compile_profile(structure, base_keys(), r4_binding) if structure is not None else None
        if profile is not None:
            await self._name_targets(profile)
        if len(self._profiles) >= _MAX_KEPT:
            self._profiles.clear()
        self._profiles[canonical] = profile
        url = canonical.partition("|")[0]
        if structure is not None and (structure.get(_PACKAGED) or url in own_definitions() or r4_definition(url)):
            self._lasting.add(canonical)
        return profile

    async def _name_targets(self, profile: Profile) -> None:
        for url in profile.targets:
            definition = await self.find("StructureDefinition", url)
            profile.targets[url] = str(definition["type"]) if definition is not None else ""

    async def with_nested(self, canonicals: list[str]) -> dict[str, Profile | None]:
        """Return profiles and every profile that their elements need, by canonical as it is written there."""
        found: dict[str, Profile | None] = {}
        waiting = list(canonicals)
        while waiting and len(found) < _MAX_NESTED:
            canonical = waiting.pop()
            if canonical in found:
                continue
            profile = await self.profile(canonical)
            found[canonical] = profile
            if profile is not None:
                waiting += profile.nested
        return found
