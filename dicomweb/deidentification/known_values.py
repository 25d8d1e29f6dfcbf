"""The patient's own values as the original has them, looked for in whatever text stays.

The table names attributes; the same name or number can stand in any other (a protocol named after a patient). PS3.15
E.1 asks the same of whoever de-identifies: to make sure that no identifying information remains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.dataelem import DataElement

from dicomweb.deidentification.profile import Profile, rules

TEXT_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_NUMBER_VRS = frozenset({"DS", "IS", "TM", "AS"})
_SHORTEST = 4
_SHORTEST_NAME, _SHORTEST_OTHER_SCRIPT = 3, 2
_AS_PART = 6
"""Shorter values count as whole words alone: LEE is in SLEEVE."""
_PARTS = re.compile(r"[\^=\s,;]+")


def element_values(element: DataElement) -> list[str]:
    """All values of an element as text."""
    value = element.value
    if value is None:
        return []
    many = value if element.VM > 1 and not isinstance(value, str | bytes) else [value]
    return [str(item) for item in many]


def walk(dataset: Dataset, depth: int = 64) -> Iterator[DataElement]:
    """Every element that can be read, those of items too; what cannot be read is removed anyway."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            items = list(element.value) if element.VR == "SQ" else []
        except Exception:  # noqa: BLE001, S112  pydicom raises many kinds for values it cannot parse
            continue
        yield element
        if depth:
            for item in items:
                yield from walk(item, depth - 1)


class KnownValues:
    """Identifying values of one original."""

    def __init__(self, dataset: Dataset, profile: Profile) -> None:
        found: set[str] = set()
        for element in walk(dataset):
            if element.tag.is_private or element.VR not in TEXT_VRS:
                continue
            if element.VR == "PN":
                for text in element_values(element):
                    found |= {part for part in _PARTS.split(text) if _long_enough(part, _SHORTEST_NAME)}
            elif profile.identifies(element.tag):
                found |= {text.strip() for text in element_values(element) if _long_enough(text.strip(), _SHORTEST)}
        common = rules()["common_values"]
        self._words = {text.casefold() for text in found if text.upper() not in common}
        self._parts = [text for text in self._words if len(text) >= _AS_PART or not text.isascii()]

    def stand_in(self, element: DataElement) -> bool:
        """Whether the text of an element has one of them."""
        if element.VR not in TEXT_VRS and element.VR not in _NUMBER_VRS:
            return False
        for text in element_values(element):
            folded = text.strip().casefold()
            if folded in self._words or not self._words.isdisjoint(re.split(r"[\W_]+", folded)):
                return True
            if element.VR in TEXT_VRS and any(part in folded for part in self._parts):
                return True
        return False


def _long_enough(text: str, ascii_least: int) -> bool:
    return len(text) >= (ascii_least if text.isascii() else _SHORTEST_OTHER_SCRIPT)
