"""Table E.1-1 and the reviewed rules as values: what happens to an attribute under a project's options.

DICOM PS3.15 Annex E: https://dicom.nema.org/medical/dicom/current/output/chtml/part15/chapter_E.html#table_E.1-1
Actions: D dummy, Z empty (or dummy), X remove, K keep, C clean, U map the UID.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from foramen.kernel.errors import InvalidRequestError

Action = Literal["D", "Z", "X", "K", "C", "U"]
_HERE = Path(__file__).parent
_NARROWED: dict[str, Action] = {
    # The table leaves the choice to the IOD's type of the attribute. Empty is good for types 2 and 3, a dummy for all.
    "X": "X",
    "Z": "Z",
    "D": "D",
    "U": "U",
    "X/Z": "Z",
    "X/D": "D",
    "Z/D": "D",
    "X/Z/D": "D",
    "X/Z/U*": "U",
}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the profile; the names are those of the table's columns."""

    modified_dates: bool = True
    clean_descriptors: bool = True
    clean_structured_content: bool = True
    clean_pixel_data: bool = True
    uids: bool = False
    device_identity: bool = False
    patient_characteristics: bool = False
    safe_private: bool = False

    @classmethod
    def of(cls, on: Iterable[str] = (), off: Iterable[str] = ()) -> Options:
        """Return the rules' defaults with some options on and others off.

        Raises
        ------
        InvalidRequestError
            A name that is no option, or one both on and off.
        """
        chosen = dict(rules()["options"])
        named, dropped = set(on), set(off)
        if not (named | dropped) <= {one.name for one in fields(cls)} or named & dropped:
            raise InvalidRequestError("Not an option of the confidentiality profile", issue_code="value")
        chosen |= dict.fromkeys(named, True) | dict.fromkeys(dropped, False)
        return cls(**chosen)

    def names(self) -> list[str]:
        """Names of the options that are on."""
        return [one.name for one in fields(self) if getattr(self, one.name)]


@lru_cache(maxsize=1)
def rules() -> Mapping[str, Any]:
    """Return the reviewed rules."""
    import yaml

    found: dict[str, Any] = yaml.safe_load((_HERE / "rules.yaml").read_text(encoding="utf-8"))
    found["words"] = frozenset(found["words"].lower().split())
    found["common_values"] = frozenset(found["common_values"])
    for name in ("kept_text", "cleaned_text", "kept_bytes"):
        tags = [tag_for_keyword(keyword) for keyword in found[name]]
        found[name] = frozenset(tag for tag in tags if tag is not None)
    return found


@lru_cache(maxsize=1)
def _table() -> dict[int, dict[str, str]]:
    """Rows by tag; those of whole groups (curves, overlays, private) are rules of `actions_of` itself."""
    with (_HERE / "profile_attributes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["tag"], 16): row for row in rows if "x" not in row["tag"] and row["tag"] != "private"}


def table_editions() -> list[str]:
    """Return the editions of the standard that the rows are of."""
    return sorted({row["edition"] for row in _table().values()})


@dataclass(frozen=True)
class Profile:
    """The table under one set of options."""

    options: Options
    _actions: dict[int, Action] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for tag, row in _table().items():
            self._actions[tag] = self._chosen(row)

    def action(self, tag: int) -> Action | None:
        """Return what the table says of a standard attribute; None: it does not name it."""
        return self._actions.get(tag)

    def identifies(self, tag: int) -> bool:
        """Whether the original text of an attribute may name somebody: it is in the table, and no mere description."""
        row = _table().get(tag)
        return row is not None and not row["clean_descriptors"] and self._actions[tag] != "K"

    def _chosen(self, row: dict[str, str]) -> Action:
        chosen: Action = _NARROWED[row["basic"]]
        for option in ("uids", "device_identity", "patient_characteristics", "modified_dates"):
            if getattr(self.options, option) and row[option]:
                return "K" if row[option] == "K" else "C"
        cleans = self.options.clean_descriptors and row["clean_descriptors"]
        content = self.options.clean_structured_content and row["clean_structured_content"]
        return "C" if cleans or content else chosen


def describe(tag: int) -> str:
    """Return keyword of a standard attribute; private ones of a group are one (their numbers are many, and theirs)."""
    if tag >> 16 & 1:
        return f"private ({tag >> 16:04x},xxxx)"
    return keyword_for_tag(tag) or f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
