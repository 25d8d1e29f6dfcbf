"""LOINC: the release as folder or zip (`Loinc.csv` and, where present, hierarchy, answer lists, linguistic variants).

LOINC Users' Guide, appendix A (table structure); https://hl7.org/fhir/R4/loinc.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

_CODE = re.compile(r"[0-9]{1,7}-[0-9]")
_AXES = ("COMPONENT", "PROPERTY", "TIME_ASPCT", "SYSTEM", "SCALE_TYP", "METHOD_TYP", "CLASS")
_PROPERTIES = (*_AXES, "CLASSTYPE", "ORDER_OBS", "STATUS", "EXAMPLE_UCUM_UNITS", "VersionLastChanged")
_VARIANT = re.compile(r"([a-z]{2})([A-Z]{2})\d+LinguisticVariant\.csv")
_INACTIVE = {"DEPRECATED", "DISCOURAGED"}


class LoincRelease:
    """One release of LOINC."""

    kind = "loinc"
    name = "LOINC"
    language = "en"

    def __init__(self, path: Path, problems: Problems, version: str | None = None, url: str | None = None) -> None:
        self._files = Files(path)
        self._problems = problems
        tables = self._files.matching(r"Loinc\.csv")
        if not tables:
            raise BadReleaseError("No file Loinc.csv: the release of LOINC as CSV is needed")
        self._table = min(tables, key=len)
        self._hierarchies = self._files.matching(r"(ComponentHierarchyBySystem|MultiAxialHierarchy)\.csv")[:1]
        self._answers = self._files.matching(r"AnswerList\.csv")[:1]
        self._variants = self._files.matching(r"[a-z]{2}[A-Z]{2}\d+LinguisticVariant\.csv")
        self.url = url or systems.LOINC
        self.version = version or self._version()

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        required = ("LOINC_NUM", "COMPONENT", "STATUS", "LONG_COMMON_NAME")
        for line, row in self._files.records(self._table, required, self._problems):
            if not _CODE.fullmatch(row["LOINC_NUM"]):
                self._problems.add(self._table, line, "not a LOINC number")
                continue
            yield line, row

    def _version(self) -> str:
        """Return the newest version of a change: that of the release."""
        numbers = {row.get("VersionLastChanged", "") for _, row in self._rows()}
        found = [
            (tuple(int(part) for part in text.split(".")), text)
            for text in numbers
            if re.fullmatch(r"\d+(\.\d+)*", text)
        ]
        if not found:
            raise BadReleaseError("The release does not say its version: name it with --version", issue_code="required")
        return max(found)[1]

    def concepts(self) -> Iterator[ConceptRow]:
        """Terms, then the parts of the hierarchy, then answers."""
        for line, row in self._rows():
            display = row["LONG_COMMON_NAME"] or row["COMPONENT"]
            definition = row.get("DefinitionDescription", "")
            yield ConceptRow(row["LOINC_NUM"], display, row["STATUS"] not in _INACTIVE, definition, line)
        seen: set[str] = set()
        for line, row in self._parts():
            if row["CODE"].startswith("LP") and row["CODE"] not in seen:
                seen.add(row["CODE"])
                yield ConceptRow(row["CODE"], row["CODE_TEXT"], line=line)
        for line, row in self._answer_rows():
            if row["AnswerStringId"] not in seen:
                seen.add(row["AnswerStringId"])
                yield ConceptRow(row["AnswerStringId"], row["DisplayText"], line=line)

    def _parts(self) -> Iterator[tuple[int, dict[str, str]]]:
        for name in self._hierarchies:
            yield from self._files.records(name, ("IMMEDIATE_PARENT", "CODE", "CODE_TEXT"), self._problems)

    def _answer_rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        required = ("AnswerListId", "AnswerListName", "AnswerStringId", "DisplayText")
        for name in self._answers:
            for line, row in self._files.records(name, required, self._problems):
                if row["AnswerStringId"].startswith("LA"):
                    yield line, row

    def parents(self) -> Iterator[ParentRow]:
        """Hierarchy of parts, with the terms as leaves."""
        for line, row in self._parts():
            if row["IMMEDIATE_PARENT"]:
                yield ParentRow(row["CODE"], row["IMMEDIATE_PARENT"], line)

    def designations(self) -> Iterator[DesignationRow]:
        """Short names, and the names of the linguistic variants (``zhCN5LinguisticVariant.csv`` is Chinese)."""
        for _, row in self._rows():
            if row.get("SHORTNAME"):
                yield DesignationRow(row["LOINC_NUM"], "en", "SHORTNAME", row["SHORTNAME"])
        for name in self._variants:
            match = _VARIANT.search(name)
            language = f"{match[1]}-{match[2]}" if match else ""
            for _, row in self._files.records(name, ("LOINC_NUM",), self._problems):
                value = row.get("LinguisticVariantDisplayName") or row.get("LONG_COMMON_NAME")
                value = value or ":".join(row.get(axis, "") for axis in _AXES[:6]).strip(":")
                if value:
                    yield DesignationRow(row["LOINC_NUM"], language, "display", value)

    def properties(self) -> Iterator[PropertyRow]:
        """Return the axes and what filters use (https://hl7.org/fhir/R4/loinc.html#filters)."""
        for _, row in self._rows():
            for name in _PROPERTIES:
                if row.get(name):
                    yield PropertyRow(row["LOINC_NUM"], name, row[name])

    def value_sets(self) -> Iterator[ValueSetRow]:
        """Answer lists, as ``http://loinc.org/vs/LL…``."""
        lists: dict[str, dict[str, Any]] = {}
        for _, row in self._answer_rows():
            entry = lists.setdefault(row["AnswerListId"], {"name": row["AnswerListName"], "codes": {}})
            entry["codes"].setdefault(row["AnswerStringId"], row["DisplayText"])
        for identity, entry in lists.items():
            url = f"{systems.LOINC}/vs/{identity}"
            concepts = [{"code": code, "display": display} for code, display in entry["codes"].items()]
            resource = {
                "resourceType": "ValueSet",
                "url": url,
                "version": self.version,
                "name": identity,
                "title": entry["name"],
                "status": "active",
                "compose": {"include": [{"system": self.url, "concept": concepts}]},
            }
            yield ValueSetRow(url, self.version, resource)
