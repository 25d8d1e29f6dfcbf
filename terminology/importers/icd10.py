"""ICD-10 of WHO: ClaML (XML), or the tabular text files (`…_chapters.txt`, `…_groups.txt`, `…_codes.txt`).

ClaML 2.0 (EN 14463); the text files are described in the notes that WHO ships with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

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

_YEAR = re.compile(r"icd10(\d{4})", re.IGNORECASE)
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class _Release:
    kind = "icd10"
    name = "ICD-10"
    language = "en"

    def designations(self) -> Iterator[DesignationRow]:
        """None."""
        yield from ()

    def value_sets(self) -> Iterator[ValueSetRow]:
        """None."""
        yield from ()


class ClamlRelease(_Release):
    """A classification in ClaML."""

    def __init__(self, path: Path, problems: Problems, version: str | None = None, url: str | None = None) -> None:
        self._files = Files(path)
        self._problems = problems
        found = self._files.matching(r".*\.xml")
        if not found:
            raise BadReleaseError("No ClaML file (.xml)")
        self._file = found[0]
        self.url = url or systems.ICD10
        title = next(self._elements("Title"), None)
        if title is None:
            raise BadReleaseError("The file is not ClaML: it has no Title")
        self.version = version or title.get("version", "")
        if not self.version:
            raise BadReleaseError("The release does not say its version: name it with --version", issue_code="required")

    def _elements(self, name: str) -> Iterator[ET.Element]:
        with self._files.binary(self._file) as file:
            try:
                # Expat of Python 3.11 bounds entity expansion; what was read is dropped, so memory stays small.
                for _, element in ET.iterparse(file, events=("end",)):  # noqa: S314
                    if element.tag == name:
                        yield element
                    if element.tag in ("Class", "Modifier", "ModifierClass", "Title"):
                        element.clear()
            except ET.ParseError as exc:
                raise BadReleaseError(f"The XML breaks off at line {exc.position[0]}") from exc

    def concepts(self) -> Iterator[ConceptRow]:
        """Chapters, blocks and categories with their preferred label."""
        for number, element in enumerate(self._elements("Class"), start=1):
            code = (element.get("code") or "").strip()
            label = _label(element, "preferred")
            if not code or not label:
                self._problems.add(self._file, number, "a Class without code or preferred label (counted by Class)")
                continue
            yield ConceptRow(code, label, definition=_label(element, "definition"), line=number)

    def parents(self) -> Iterator[ParentRow]:
        """SuperClass."""
        for number, element in enumerate(self._elements("Class"), start=1):
            for above in element.iterfind("SuperClass"):
                yield ParentRow(element.get("code", ""), above.get("code", ""), number)

    def properties(self) -> Iterator[PropertyRow]:
        """Kind of class (chapter, block, category) and dagger or asterisk."""
        for element in self._elements("Class"):
            for name in ("kind", "usage"):
                if element.get(name):
                    yield PropertyRow(element.get("code", ""), name, element.get(name, ""))

    def designations(self) -> Iterator[DesignationRow]:
        """Preferred labels in further languages."""
        for element in self._elements("Class"):
            for rubric in element.iterfind("Rubric"):
                if rubric.get("kind") == "preferred":
                    for label in list(rubric.iterfind("Label"))[1:]:
                        text = " ".join("".join(label.itertext()).split())
                        yield DesignationRow(element.get("code", ""), label.get(_LANGUAGE, ""), "display", text)


def _label(element: ET.Element, kind: str) -> str:
    for rubric in element.iterfind("Rubric"):
        label = rubric.find("Label")
        if rubric.get("kind") == kind and label is not None:
            return " ".join("".join(label.itertext()).split())
    return ""


class WhoTextRelease(_Release):
    """The semicolon-separated files of WHO."""

    def __init__(self, path: Path, problems: Problems, version: str | None = None, url: str | None = None) -> None:
        self._files = Files(path)
        self._problems = problems
        self._found = {kind: self._files.matching(rf".*_{kind}\.txt") for kind in ("chapters", "groups", "codes")}
        if not self._found["codes"]:
            raise BadReleaseError("No ClaML file (.xml) and no file …_codes.txt")
        self.url = url or systems.ICD10
        match = _YEAR.search(self._found["codes"][0])
        self.version = version or (match[1] if match else "")
        if not self.version:
            raise BadReleaseError("The release does not say its version: name it with --version", issue_code="required")

    def _rows(self, kind: str, columns: int) -> Iterator[tuple[int, list[str]]]:
        for name in self._found[kind]:
            with self._files.text(name) as file:
                for line, text in enumerate(file, start=1):
                    row = text.rstrip("\r\n").split(";")
                    if row == [""]:
                        continue
                    if len(row) < columns:
                        self._problems.add(name, line, f"{len(row)} columns instead of {columns}")
                        continue
                    yield line, row

    def concepts(self) -> Iterator[ConceptRow]:
        """Chapters (number; title), groups (first; last; chapter; title), codes."""
        for line, row in self._rows("chapters", 2):
            yield ConceptRow(row[0], row[1], line=line)
        for line, row in self._rows("groups", 4):
            yield ConceptRow(f"{row[0]}-{row[1]}", row[3], line=line)
        for line, row in self._rows("codes", 9):
            yield ConceptRow(_code(row), row[8], line=line)

    def parents(self) -> Iterator[ParentRow]:
        """Groups below chapters, three-character codes below groups, longer codes below shorter ones."""
        blocks: dict[str, str] = {}
        for line, row in self._rows("groups", 4):
            blocks[row[0]] = f"{row[0]}-{row[1]}"
            yield ParentRow(blocks[row[0]], row[2], line)
        for line, row in self._rows("codes", 9):
            code = _code(row)
            if len(code) <= 3:
                yield ParentRow(code, blocks.get(row[4], row[3]), line)
            else:
                yield ParentRow(code, code[:-1].rstrip("."), line)

    def properties(self) -> Iterator[PropertyRow]:
        """Level, and whether the code may be used (terminal)."""
        for _, row in self._rows("codes", 9):
            yield PropertyRow(_code(row), "level", row[0])
            yield PropertyRow(_code(row), "terminal", "true" if row[1] == "T" else "false")


def _code(row: list[str]) -> str:
    return row[6].strip().rstrip("+*").rstrip(".-")


def icd10_release(path: Path, problems: Problems, version: str | None = None, url: str | None = None) -> _Release:
    """Return the release in whichever of the two layouts it is."""
    kind = ClamlRelease if Files(path).matching(r".*\.xml") else WhoTextRelease
    return kind(path, problems, version, url)
