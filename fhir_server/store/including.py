"""`_include` and `_revinclude`: what the matches refer to, and what refers to them; each under the caller's access.

Literal references name their target by id, and a version of it where they say so; canonical ones by its `url`, and
its version. https://hl7.org/fhir/R4/search.html#revinclude
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_server.access.policy import Access
from fhir_server.model.references import parse_reference
from fhir_server.search.conditions import AnyPosting, Condition, Include, Keys, SearchRequest, Selection
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import references_of
from fhir_server.search.parameters import Parameter, resource_types, type_parameters
from fhir_server.search.references import CANONICAL, LITERAL
from fhir_server.settings import FhirSettings
from fhir_server.store import reading, searching
from fhir_server.store.changes import Stored
from foramen.kernel.errors import InvalidRequestError

_MAX_HASHES = 50_000
"""Most postings that one `_revinclude` asks for: matches times parameters."""


async def included(
    connection: Any,
    access: Access,
    request: SearchRequest,
    matches: list[Stored],
    own_url: str,
    limits: FhirSettings,
) -> list[Stored]:
    """Return the resources that the includes of a search add, without those that are matches.

    Raises
    ------
    InvalidRequestError
        `too-costly`: more than the limit would come along.
    """
    steps = _Steps(connection, access, own_url, limits.max_included)
    seen = {stored.reference for stored in matches}
    found: list[Stored] = []
    frontier, first = matches, True
    for _ in range(limits.max_include_rounds):
        added: list[Stored] = []
        for include in request.includes:
            if first or include.iterate:
                for stored in await steps.step(include, frontier):
                    if stored.reference not in seen:
                        seen.add(stored.reference)
                        added.append(stored)
                _check(len(found) + len(added), limits.max_included)
        found += added
        if not added or not any(include.iterate for include in request.includes):
            break
        frontier, first = added, False
    return found


def _check(number: int, most: int) -> None:
    if number > most:
        raise InvalidRequestError(
            f"The search would include more than {most} resources",
            issue_code="too-costly",
            expression=("http._include",),
        )


def _parameters(include: Include, source_type: str) -> list[Parameter]:
    table = type_parameters(source_type).parameters
    if include.parameter != "*":
        return [table[include.parameter]]
    return [parameter for parameter in table.values() if parameter.kind == "reference"]


class _Wanted:
    """Targets of a step: keys by type, versions that references ask for, and canonical URLs."""

    def __init__(self) -> None:
        self.keys: dict[str, set[int]] = {}
        self.versions: dict[str, set[int]] = {}
        self.urls: dict[str, set[str]] = {}

    def add_key(self, resource_type: str, logical_id: str, version: int | None) -> None:
        """Want a resource, or one version of it."""
        if version is not None:
            self.versions.setdefault(f"{resource_type}/{logical_id}", set()).add(version)
        self.keys.setdefault(resource_type, set()).add(resource_key(resource_type, logical_id))


class _Steps:
    """One step along the includes, forwards or backwards."""

    def __init__(self, connection: Any, access: Access, own_url: str, most: int) -> None:
        self._connection = connection
        self._access = access
        self._own_url = own_url
        self._most = most

    async def step(self, include: Include, frontier: list[Stored]) -> list[Stored]:
        """Return what one include adds to these resources."""
        return await (self._backwards if include.reverse else self._forwards)(include, frontier)

    async def _forwards(self, include: Include, sources: list[Stored]) -> list[Stored]:
        wanted = _Wanted()
        for stored in sources:
            if include.source_type in ("*", stored.resource_type):
                for parameter in _parameters(include, stored.resource_type):
                    self._collect(stored, parameter, include.target_type, wanted)
        found: list[Stored] = []
        for resource_type, keys in wanted.keys.items():
            _check(len(keys), self._most)
            if self._access.may(resource_type, "r"):
                found += await self._select(resource_type, Keys(tuple(keys)), "r")
        found = [await self._of_version(stored, wanted) for stored in found]
        for resource_type, urls in wanted.urls.items():
            if self._access.may(resource_type, "r"):
                found += await self._by_url(resource_type, urls)
        return found

    def _collect(self, stored: Stored, parameter: Parameter, target_type: str | None, wanted: _Wanted) -> None:
        literal = not parameter.data_types or not parameter.data_types.isdisjoint(LITERAL)
        targets = (target_type,) if target_type else parameter.targets or tuple(sorted(resource_types()))
        versions = _versions(stored)
        for reference in references_of(stored.data(), parameter, self._own_url):
            parsed = parse_reference(reference, self._own_url)
            if parsed is not None:
                allowed = parsed[0] in resource_types() and parsed[0] in targets
                if allowed and (not parameter.targets or parsed[0] in parameter.targets):
                    wanted.add_key(*parsed, _version_of(versions.get(reference, "")))
            elif ":" in reference and (not literal or not parameter.data_types.isdisjoint(CANONICAL)):
                for name in targets:
                    if "url" in type_parameters(name).parameters:
                        wanted.urls.setdefault(name, set()).add(reference)

    async def _of_version(self, stored: Stored, wanted: _Wanted) -> Stored:
        """Return the version that the references ask for, when they agree on one that is not the current."""
        versions = wanted.versions.get(stored.reference, set())
        if len(versions) != 1 or stored.version in versions:
            return stored
        (version,) = versions
        older = await reading.vread(self._connection, stored.resource_type, stored.logical_id, version)
        await self._access.learn(self._connection, older)
        if older is None or older.is_deleted or not self._sees(older):
            return stored
        return older

    def _sees(self, stored: Stored) -> bool:
        key = self._access.compartment_key(stored.resource_type, "r")
        return (key is None or key in stored.patients) and not self._access.hides(stored)

    async def _by_url(self, resource_type: str, references: set[str]) -> list[Stored]:
        _check(len(references), self._most)
        hashes = tuple(
            base ^ hash64(reference.partition("|")[0])
            for base in type_parameters(resource_type).parameters["url"].bases()
            for reference in sorted(references)
        )
        found = await self._select(resource_type, AnyPosting(hashes), "r")
        return [stored for stored in found if _is_named(stored, references)]

    async def _backwards(self, include: Include, targets: list[Stored]) -> list[Stored]:
        # Audit trails refer to everything: who wants them along names them.
        everything = resource_types() - {"AuditEvent"}
        sources = sorted(everything) if include.source_type == "*" else [include.source_type]
        found: list[Stored] = []
        for source in sources:
            if self._access.may(source, "s"):
                found += await self._sources(replace(include, source_type=source), targets)
                _check(len(found), self._most)
        return found

    async def _sources(self, include: Include, targets: list[Stored]) -> list[Stored]:
        hashes: set[int] = set()
        canonical = False
        for parameter in _parameters(include, include.source_type):
            is_canonical = not parameter.data_types.isdisjoint(CANONICAL)
            for stored in targets:
                if parameter.targets and stored.resource_type not in parameter.targets:
                    continue
                if include.target_type not in (None, stored.resource_type):
                    continue
                values = [resource_key(stored.resource_type, stored.logical_id)]
                url = stored.data().get("url") if is_canonical else None
                if url:
                    canonical = True
                    values.append(hash64(url))
                hashes.update(base ^ value for base in parameter.bases() for value in values)
        if not hashes:
            return []
        if len(hashes) > _MAX_HASHES:
            raise InvalidRequestError("The _revinclude has too many targets", issue_code="too-costly")
        found = await self._select(include.source_type, AnyPosting(tuple(hashes)), "s")
        return [stored for stored in found if self._refers(stored, include, targets)] if canonical else found

    def _refers(self, source: Stored, include: Include, targets: list[Stored]) -> bool:
        """Whether a source names one of the targets: the index of canonicals forgets the version."""
        for parameter in _parameters(include, source.resource_type):
            for reference in references_of(source.data(), parameter, self._own_url):
                parsed = parse_reference(reference, self._own_url)
                if any(
                    parsed == (stored.resource_type, stored.logical_id) or _is_named(stored, {reference})
                    for stored in targets
                ):
                    return True
        return False

    async def _select(self, resource_type: str, condition: Condition, action: str) -> list[Stored]:
        bound = self._access.condition(resource_type, action)
        conditions = (condition,) if bound is None else (condition, bound)
        return await searching.matches(self._connection, Selection(resource_type, conditions), self._most + 1)


def _is_named(stored: Stored, references: set[str]) -> bool:
    """Whether canonical references mean this resource: by its url, and by its version where they name one."""
    data = stored.data()
    url, version = data.get("url"), data.get("version")
    return url is not None and (url in references or f"{url}|{version}" in references)


def _versions(stored: Stored) -> dict[str, str]:
    """Return what each reference to a version is called without it; most resources hold none."""
    if b"/_history/" not in (stored.content or b""):
        return {}
    found: dict[str, str] = {}
    waiting: list[Any] = [stored.data()]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, str) and "/_history/" in item:
            found[item.partition("/_history/")[0]] = item
    return found


def _version_of(reference: str) -> int | None:
    _, mark, version = reference.partition("/_history/")
    return int(version) if mark and version.isdecimal() and version.isascii() and len(version) < 10 else None
