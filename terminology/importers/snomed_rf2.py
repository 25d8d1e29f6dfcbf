"""SNOMED CT, release format 2: the Snapshot of one edition, as a folder or the zip as downloaded.

SNOMED CT Release File Specifications §4 (Release Format 2); https://hl7.org/fhir/R4/snomedct.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from terminology import systems
from terminology.importers.files import Files
from terminology.importers.release import (
    BadReleaseError,
    ConceptRow,
    DesignationRow,
    ParentRow,
    Problems,
    PropertyRow,
    ValueSetRow,
)

_IS_A = "116680003"
_SYNONYM = "900000000000013009"
_FULLY_SPECIFIED = "900000000000003001"
_PREFERRED = "900000000000548007"
_US_ENGLISH = "900000000000509007"
_INTERNATIONAL = "900000000000207008"
_DEFINED = "900000000000073002"
_DATE = re.compile(r"_(\d{8})\.txt$")
_CODE = re.compile(r"[0-9]{6,18}")


class SnomedRelease:
    """One edition; its version is the URI ``http://snomed.info/sct/MODULE/version/DATE``."""

    kind = "snomed"
    name = "SNOMED CT"
    language = "en"

    def __init__(self, path: Path, problems: Problems, version: str | None = None, url: str | None = None) -> None:
        self._files = Files(path)
        self._problems = problems
        self._concepts = self._required(r"x?sct2_Concept_Snapshot_.*\.txt", "sct2_Concept_Snapshot")
        self._relationships = self._required(r"x?sct2_Relationship_Snapshot_.*\.txt", "sct2_Relationship_Snapshot")
        self._descriptions = self._required(r"x?sct2_Description_Snapshot.*\.txt", "sct2_Description_Snapshot")
        self._languages = self._files.matching(r"x?der2_cRefset_Language.*Snapshot.*\.txt")
        self._simple = self._files.matching(r"x?der2_Refset_.*Simple.*Snapshot.*\.txt")
        self.url = url or systems.SNOMED
        self.version = version or self._version()

    def _required(self, pattern: str, shown: str) -> list[str]:
        found = self._files.matching(pattern)
        if not found:
            raise BadReleaseError(f"No file {shown}_….txt: the Snapshot of an RF2 release is needed")
        return found

    def _version(self) -> str:
        match = _DATE.search(self._concepts[0])
        if match is None or "_INT_" not in self._concepts[0]:
            text = "Name the edition with --version http://snomed.info/sct/MODULE/version/DATE"
            raise BadReleaseError(text, issue_code="required")
        return f"{systems.SNOMED}/{_INTERNATIONAL}/version/{match[1]}"

    def concepts(self) -> Iterator[ConceptRow]:
        """id, effectiveTime, active, moduleId, definitionStatusId."""
        for name in self._concepts:
            for line, row in self._files.lines(name, 5, self._problems):
                if not _CODE.fullmatch(row[0]):
                    self._problems.add(name, line, "not a SNOMED CT identifier")
                    continue
                yield ConceptRow(row[0], "", row[2] == "1", line=line)

    def _active_relationships(self) -> Iterator[tuple[int, list[str]]]:
        for name in self._relationships:
            for line, row in self._files.lines(name, 10, self._problems):
                if row[2] == "1":
                    yield line, row

    def parents(self) -> Iterator[ParentRow]:
        """id, effectiveTime, active, moduleId, sourceId, destinationId, relationshipGroup, typeId, …"""
        for line, row in self._active_relationships():
            if row[7] == _IS_A:
                yield ParentRow(row[4], row[5], line)

    @cached_property
    def _preferred(self) -> set[int]:
        """Ids of descriptions that are preferred; of the English ones those of US English, where it is there."""
        found: dict[str, set[int]] = {}
        for name in self._languages:
            for _, row in self._files.lines(name, 7, self._problems):
                if row[2] == "1" and row[6] == _PREFERRED and row[5].isdecimal():
                    found.setdefault(row[4], set()).add(int(row[5]))
        if _US_ENGLISH in found:
            found.pop("900000000000508004", None)
        return set().union(*found.values()) if found else set()

    def designations(self) -> Iterator[DesignationRow]:
        """id, effectiveTime, active, moduleId, conceptId, languageCode, typeId, term, caseSignificanceId."""
        for name in self._descriptions:
            for line, row in self._files.lines(name, 9, self._problems):
                if row[2] != "1":
                    continue
                if not row[7].strip():
                    self._problems.add(name, line, "the term is empty")
                    continue
                preferred = row[0].isdecimal() and int(row[0]) in self._preferred
                use = row[6]
                if use == _SYNONYM and (preferred or not self._languages):
                    use = "display"
                yield DesignationRow(row[4], row[5], use, row[7])

    def properties(self) -> Iterator[PropertyRow]:
        """Module, definition status, attributes (typeId = destinationId) and membership of simple reference sets."""
        for name in self._concepts:
            for _, row in self._files.lines(name, 5, self._problems):
                yield PropertyRow(row[0], "moduleId", row[3])
                yield PropertyRow(row[0], "sufficientlyDefined", "true" if row[4] == _DEFINED else "false")
        for _, row in self._active_relationships():
            if row[7] != _IS_A:
                yield PropertyRow(row[4], row[7], row[5])
        for name in self._simple:
            for _, row in self._files.lines(name, 6, self._problems):
                if row[2] == "1":
                    yield PropertyRow(row[5], "refset", row[4])

    def value_sets(self) -> Iterator[ValueSetRow]:
        """None: SNOMED CT's value sets are implicit in their URL."""
        yield from ()
