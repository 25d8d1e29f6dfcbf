"""What an importer gives: one release of a code system as streams of rows, and a list of the rows it could not use."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from foramen.kernel.errors import InvalidRequestError

_MAX_KEPT = 100_000


class ConceptRow(NamedTuple):
    """A concept; without display the first designation of use ``display`` in the release's language is taken."""

    code: str
    display: str
    active: bool = True
    definition: str = ""
    line: int = 0


class ParentRow(NamedTuple):
    """A concept is directly below another."""

    code: str
    parent: str
    line: int = 0


class DesignationRow(NamedTuple):
    """Another name; `use` is ``display`` for the preferred one of its language."""

    code: str
    language: str
    use: str
    value: str


class PropertyRow(NamedTuple):
    """A property of a concept."""

    code: str
    name: str
    value: str


class ValueSetRow(NamedTuple):
    """A value set that comes with the release."""

    url: str
    version: str
    resource: dict[str, Any]


class Release(Protocol):
    """One release; each method reads its files from the beginning."""

    kind: str
    url: str
    version: str
    name: str
    language: str

    def concepts(self) -> Iterator[ConceptRow]:
        """All concepts, in the order in which siblings are to be listed."""

    def parents(self) -> Iterator[ParentRow]:
        """The hierarchy."""

    def designations(self) -> Iterator[DesignationRow]:
        """Names in other languages and synonyms."""

    def properties(self) -> Iterator[PropertyRow]:
        """Everything else that is known."""

    def value_sets(self) -> Iterator[ValueSetRow]:
        """Value sets that belong to the release."""


class BadReleaseError(InvalidRequestError):
    """The files are not a release of this kind, or cannot be used as a whole."""


@dataclass(slots=True)
class Problems:
    """Rows that were left out: file, line (from 1), reason; never the row's content."""

    rows: dict[tuple[str, int, str], None] = field(default_factory=dict)
    count: int = 0

    def add(self, file: str, line: int, reason: str) -> None:
        """Note a row; the same row and reason counts once, however often the file is read."""
        key = (file, line, reason)
        if key in self.rows:
            return
        self.count += 1
        if len(self.rows) < _MAX_KEPT:
            self.rows[key] = None

    def write(self, path: Path) -> None:
        """Write the report as CSV."""
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("file", "line", "reason"))
            writer.writerows(self.rows)
