"""The terminology service: validate, expand, look up, subsume, translate; one object for each process.

https://hl7.org/fhir/R4/terminology-service.html
"""

from __future__ import annotations

from typing import Any

from foramen.kernel.errors import InvalidRequestError, NotFoundError
from terminology.code_systems import CodeSystem
from terminology.concept_maps import Translator
from terminology.evaluate import Evaluator
from terminology.expand import Expander
from terminology.intervals import IntervalSet
from terminology.members import Membership
from terminology.model import Coding, Concept, Expansion, Lookup, Translation, Validation
from terminology.resolve import Resolver
from terminology.sources import Library, NoSource, Source
from terminology.store.imported import ImportedSystems, Lender
from terminology.syntax_systems import SYNTAX_SYSTEMS

DEFAULT_MAX_EXPANSION = 10_000
MAX_SUBSUMED = 200_000
EXPANSION_PARAMETERS = (
    *("activeOnly", "count", "displayLanguage", "excludeNested", "excludeNotForUI", "excludePostCoordinated", "filter"),
    *("includeDefinition", "includeDesignations", "offset", "url", "valueSet", "valueSetVersion"),
)
"""Parameters that `$expand` takes; every other is refused."""
_RELATED = 200
"""Most children that a look-up names."""


class Terminology:
    """The terminology service.

    Parameters
    ----------
    connections : lends connections to the database that holds imported code systems; None: none are imported
    source : finds resources that users stored
    max_expansion : most codes of one answer of `expand`
    """

    def __init__(
        self,
        connections: Lender | None = None,
        source: Source | None = None,
        *,
        max_expansion: int = DEFAULT_MAX_EXPANSION,
    ) -> None:
        self.library = Library()
        self.imported = ImportedSystems(connections)
        evaluator = Evaluator()
        self._resolver = Resolver(self.library, self.imported, source or NoSource())
        self._members = Membership(self._resolver, evaluator)
        self._expander = Expander(self._resolver, evaluator, max_expansion)
        self._translator = Translator(self._resolver)

    def contains(self, value_set: str, system: str, code: str) -> bool | None:
        """Whether one of HL7's or our own value sets has a code, at once and from memory alone.

        Returns
        -------
        None when it cannot be said here: `validate_code` may know it.
        """
        return self._members.contains_now(value_set, system, code)

    async def validate_code(
        self,
        *,
        value_set: str | None,
        system: str | None,
        code: str,
        display: str | None = None,
        version: str | None = None,
        resource: dict[str, Any] | None = None,
    ) -> Validation:
        """Check a code against a value set, or against its code system when no value set is named.

        Parameters
        ----------
        value_set : canonical of the value set (``url`` or ``url|version``)
        system : URL of the code system; None: any system of the value set that has the code
        version : version of the code system; None: the current one
        resource : a ValueSet or CodeSystem to check against instead of a known one

        Returns
        -------
        Validation with result True or False, or None when a value set or system is not known here.

        Source: https://hl7.org/fhir/R4/valueset-operation-validate-code.html
        """
        return await self._members.validate(value_set, system, code, display, version, resource)

    async def expand(
        self,
        url: str | None,
        *,
        resource: dict[str, Any] | None = None,
        filter: str = "",  # noqa: A002 - the operation's own word
        count: int | None = None,
        offset: int = 0,
        active_only: bool = False,
        designations: bool = False,
        language: str | None = None,
    ) -> Expansion:
        """List the codes of a value set, one page of them.

        Raises
        ------
        NotFoundError
            The value set, or a part that it needs, is not known here.
        InvalidRequestError
            `too-costly`: too many codes without `count`, or a grammar that cannot be listed.

        Source: https://hl7.org/fhir/R4/valueset-operation-expand.html
        """
        return await self._expander.expand(
            url,
            resource,
            text=filter,
            count=count,
            offset=offset,
            active_only=active_only,
            designations=designations,
            language=language,
        )

    async def capabilities(self) -> dict[str, Any]:
        """Return what a TerminologyCapabilities says of this service: systems, expansion, validation, translation.

        Source: https://hl7.org/fhir/R4/terminologycapabilities.html
        """
        versions: dict[str, list[str | None]] = {url: [None] for url in SYNTAX_SYSTEMS}
        versions |= {url: [version] for url, version in self.library.versions().items()}
        for release in await self.imported.all():
            if release.url in versions and versions[release.url] != [None]:
                versions[release.url].append(release.version)
            else:
                versions[release.url] = [release.version]
        return {
            "codeSystem": [
                _listed(url, found, subsumption=url not in SYNTAX_SYSTEMS) for url, found in versions.items()
            ],
            "expansion": {
                "hierarchical": False,
                "paging": True,
                "incomplete": False,
                "parameter": [{"name": name} for name in EXPANSION_PARAMETERS],
                "textFilter": "Each word begins a word of a name or code; Chinese, Japanese, Korean: anywhere",
            },
            "codeSearch": "all",
            "validateCode": {"translations": True},
            "translation": {"needsMap": False},
            "closure": {"translation": False},
        }

    async def code_system(self, system: str, version: str | None = None) -> CodeSystem:
        """Return a code system.

        Raises
        ------
        NotFoundError
            It is not known here, or not in this version.
        """
        found = await self._resolver.code_system(system, version)
        if found is None:
            raise NotFoundError("The code system is not known here")
        return found

    async def _number(self, system: CodeSystem, code: str) -> int:
        number = (await system.find([code])).get(code)
        if number is None:
            raise NotFoundError("The code system does not have this code")
        return number

    async def subsumed(self, system: str, code: str) -> frozenset[str]:
        """Return a code and all its descendants; a code that the system lacks has none but itself.

        Raises
        ------
        NotFoundError
            The code system is not known here.
        InvalidRequestError
            `too-costly`: more than 200,000 descendants.
        """
        found = await self.code_system(system)
        number = (await found.find([code])).get(code)
        if number is None:
            return frozenset((code,))
        return await self._codes(found, code, await found.descendants(number))

    async def ancestors(self, system: str, code: str) -> frozenset[str]:
        """Return a code and all its ancestors; a code that the system lacks has none but itself.

        Raises
        ------
        NotFoundError
            The code system is not known here.
        """
        found = await self.code_system(system)
        number = (await found.find([code])).get(code)
        if number is None:
            return frozenset((code,))
        return await self._codes(found, code, await found.ancestors(number))

    @staticmethod
    async def _codes(system: CodeSystem, code: str, numbers: IntervalSet) -> frozenset[str]:
        if numbers.size > MAX_SUBSUMED:
            raise InvalidRequestError("The code has too many descendants", issue_code="too-costly")
        return frozenset((code, *await system.codes(numbers)))

    async def subsumes(
        self,
        system: str,
        code_a: str,
        code_b: str,
        version: str | None = None,
        resource: dict[str, Any] | None = None,
    ) -> str:
        """Compare two codes.

        Parameters
        ----------
        resource : a CodeSystem to ask instead of the known one

        Returns
        -------
        ``equivalent``, ``subsumes`` (A is above B), ``subsumed-by`` or ``not-subsumed``.

        Raises
        ------
        NotFoundError
            The code system, or one of the codes in it, is not known here.

        Source: https://hl7.org/fhir/R4/codesystem-operation-subsumes.html
        """
        found = self._resolver.stored(resource) if resource else await self.code_system(system, version)
        first, second = await self._number(found, code_a), await self._number(found, code_b)
        if first == second:
            return "equivalent"
        if second in await found.descendants(first):
            return "subsumes"
        return "subsumed-by" if first in await found.descendants(second) else "not-subsumed"

    async def lookup(self, system: str, code: str, version: str | None = None, *, related: bool = True) -> Lookup:
        """Return what is known about a code.

        Parameters
        ----------
        related : also find parents and children (at most 200)

        Raises
        ------
        NotFoundError
            The code system, or the code in it, is not known here.

        Source: https://hl7.org/fhir/R4/codesystem-operation-lookup.html
        """
        grammar = SYNTAX_SYSTEMS.get(system)
        if grammar is not None:
            display = grammar.display(code)
            if display is None:
                raise NotFoundError("The code system does not have this code")
            return Lookup(grammar.name, None, Concept(0, code, display))
        found = await self.code_system(system, version)
        number = await self._number(found, code)
        concept = (await found.concepts([number]))[0]
        if not related:
            return Lookup(found.name, found.version, concept)
        parents = await found.concepts(await found.parents(number))
        children = await found.concepts((await found.children(number))[:_RELATED])
        return Lookup(found.name, found.version, concept, tuple(parents), tuple(children))

    async def translate(
        self,
        *,
        system: str,
        code: str,
        url: str | None = None,
        resource: dict[str, Any] | None = None,
        target_system: str | None = None,
        source: str | None = None,
        target: str | None = None,
        reverse: bool = False,
    ) -> Translation:
        """Find the codes that concept maps give for a code.

        Parameters
        ----------
        url : canonical of one ConceptMap; None: all of ours and HL7's that fit
        target_system, source, target : keep only maps into this system, from or to this value set
        reverse : read the maps from target to source

        Raises
        ------
        NotFoundError
            The concept map is not known here.

        Source: https://hl7.org/fhir/R4/conceptmap-operation-translate.html
        """
        return await self._translator.translate(
            Coding(system, code), url, resource, target_system, source, target, reverse=reverse
        )


def _listed(url: str, versions: list[str | None], *, subsumption: bool) -> dict[str, Any]:
    numbers = [version for version in versions if version]
    named = [{"code": version, "isDefault": place == 0} for place, version in enumerate(numbers)]
    return {"uri": url, **({"version": named} if named else {}), "subsumption": subsumption}
