"""Translate codes with concept maps, forwards and backwards.

https://hl7.org/fhir/R4/conceptmap-operation-translate.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foramen.kernel.errors import InvalidRequestError, NotFoundError
from terminology.model import Coding, Match, Translation
from terminology.resolve import Resolver

_MAX_MAPS = 10
_NO_MATCH = {"unmatched", "disjoint"}
# https://hl7.org/fhir/R4/valueset-concept-map-equivalence.html: what a relation is when it is read backwards.
_REVERSED = {"wider": "narrower", "narrower": "wider", "subsumes": "specializes", "specializes": "subsumes"}


class Translator:
    """Asks concept maps."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def translate(
        self,
        coding: Coding,
        url: str | None,
        resource: dict[str, Any] | None,
        target_system: str | None,
        source: str | None,
        target: str | None,
        *,
        reverse: bool,
    ) -> Translation:
        """See `Terminology.translate`."""
        maps = [resource] if resource is not None else await self._maps(url)
        matches: list[Match] = []
        for item in maps:
            if not _fits(item, source, target):
                continue
            matches += await self._matches(item, coding, target_system, reverse=reverse, followed=())
        result = any(match.equivalence not in _NO_MATCH for match in matches)
        return Translation(result, "" if result else "No map gives a match for this code", tuple(matches))

    async def _maps(self, url: str | None) -> list[dict[str, Any]]:
        if url is not None:
            found = await self._resolver.concept_map(url)
            if found is None:
                raise NotFoundError("The concept map is not known here")
            return [found]
        library = self._resolver.library
        return [item for name in library.names("ConceptMap") if (item := await self._resolver.concept_map(name))]

    async def _matches(
        self,
        concept_map: dict[str, Any],
        coding: Coding,
        target_system: str | None,
        *,
        reverse: bool,
        followed: tuple[str, ...],
    ) -> list[Match]:
        found: list[Match] = []
        name = concept_map.get("url", "")
        for group in concept_map.get("group", []):
            own, other = group.get("source"), group.get("target")
            if reverse:
                own, other = other, own
            if own != coding.system or target_system not in (None, other):
                continue
            answer = list((_backwards if reverse else _forwards)(group, coding.code, name, other or ""))
            if not answer and not reverse and group.get("unmapped"):
                answer = await self._unmapped(group, coding, name, target_system, followed)
            found += answer
        return found

    async def _unmapped(
        self, group: dict[str, Any], coding: Coding, name: str, target_system: str | None, followed: tuple[str, ...]
    ) -> list[Match]:
        rule = group["unmapped"]
        target = group.get("target", "")
        match rule.get("mode"):
            case "provided":
                return [Match("equal", Coding(target, coding.code, coding.display), name)]
            case "fixed" if rule.get("code"):
                return [Match("inexact", Coding(target, rule["code"], rule.get("display")), name)]
            case "other-map" if rule.get("url"):
                if rule["url"] in (*followed, name) or len(followed) >= _MAX_MAPS:
                    raise InvalidRequestError("The concept map leads back to itself", issue_code="processing")
                other = await self._resolver.concept_map(rule["url"])
                if other is None:
                    raise NotFoundError("The concept map names another one that is not known here")
                return await self._matches(
                    other, coding, target_system, reverse=False, followed=(*followed, name, rule["url"])
                )
        return []


def _fits(concept_map: dict[str, Any], source: str | None, target: str | None) -> bool:
    own = (concept_map.get("sourceUri"), concept_map.get("sourceCanonical"))
    other = (concept_map.get("targetUri"), concept_map.get("targetCanonical"))
    return (source is None or source in own) and (target is None or target in other)


def _forwards(group: dict[str, Any], code: str, name: str, system: str) -> Iterator[Match]:
    for element in group.get("element", []):
        if element.get("code") != code:
            continue
        for target in element.get("target", []):
            products = tuple(
                {"element": item.get("property"), "system": item.get("system"), "code": item.get("value")}
                for item in target.get("product", [])
            )
            coding = Coding(system, target.get("code", ""), target.get("display"), group.get("targetVersion"))
            yield Match(target.get("equivalence", "relatedto"), coding, name, target.get("comment", ""), products)


def _backwards(group: dict[str, Any], code: str, name: str, system: str) -> Iterator[Match]:
    for element in group.get("element", []):
        for target in element.get("target", []):
            if target.get("code") == code:
                equivalence = target.get("equivalence", "relatedto")
                coding = Coding(system, element.get("code", ""), element.get("display"), group.get("sourceVersion"))
                yield Match(_REVERSED.get(equivalence, equivalence), coding, name, target.get("comment", ""))
