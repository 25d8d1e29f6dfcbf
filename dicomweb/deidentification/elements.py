"""One element under the profile: what stays, what it becomes. Pure; nothing here says a value in a message.

DICOM PS3.15 Table E.1-1a (actions), PS3.5 §6.2 (value representations).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement

from dicomweb.deidentification.dates import kept_time, moved_date, moved_instant
from dicomweb.deidentification.identity import Identity
from dicomweb.deidentification.known_values import TEXT_VRS, element_values
from dicomweb.deidentification.profile import Action, Profile, rules

_BYTES_VRS = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})
_OLDEST = 90
_AGE = re.compile(r"(\d{3})([DWMY])")
_CODE_TEXT = re.compile(r"[A-Z0-9 _]{0,16}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORD = re.compile(r"[^\s_/,;:()\[\]+.*-]+")
_LEVEL = re.compile(r"[clts]\d{1,2}|\d{1,3}(mm|d)?")
_CODE_TAGS = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080105, 0x00080119, 0x00080120, 0x0008010F})
"""Code Sequence Macro (PS3.3 Table 8.8-1); items of schemes that the rules do not name are gone before."""
_DUMMY_TEXT = "REMOVED"
_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"), _DUMMY_TEXT),
    **{"DA": "19000101", "DT": "19000101", "TM": "000000", "AS": "000D", "UR": "urn:removed"},
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"), 0),
}
_REMOVED: tuple[str, Any] = ("removed", None)

Result = tuple[str, Any]
"""What was done (removed, emptied, replaced, cleaned, shifted, mapped, kept) and the value that stays."""


class ElementRules:
    """Applies the profile to elements that are no sequences."""

    def __init__(self, profile: Profile, identity: Identity) -> None:
        self._profile, self._identity = profile, identity
        self._days = identity.shift_days
        self._words: frozenset[str] = rules()["words"]
        self._of: dict[Action, Callable[[DataElement], Result]] = {
            "X": lambda _: _REMOVED,
            "Z": lambda element: ("emptied", None if element.VR not in TEXT_VRS else ""),
            "D": self._dummy,
            "K": self._kept,
            "C": self._cleaned,
            "U": self._mapped,
        }

    def apply(self, element: DataElement) -> Result:
        """Return what was done with an element, and the value that stays."""
        action = self._profile.action(element.tag)
        return self._of[action](element) if action is not None else self._unnamed(element)

    def _unnamed(self, element: DataElement) -> Result:
        """An attribute that the table does not name: codes, numbers and moved dates stay, text and bytes do not."""
        tag, vr = element.tag, element.VR
        if not dictionary_has_tag(tag):
            return _REMOVED
        if vr in _BYTES_VRS:
            return ("kept", element.value) if tag in rules()["kept_bytes"] else _REMOVED
        if vr in ("DA", "DT", "TM"):
            return self._cleaned(element) if self._profile.options.modified_dates else _REMOVED
        if vr == "UI":
            return self._mapped(element)
        if vr == "CS" or (vr in TEXT_VRS and (tag in _CODE_TAGS or tag in rules()["kept_text"])):
            return self._kept(element)
        if tag in rules()["cleaned_text"]:
            return "cleaned", [self._known_words(text) or _DUMMY_TEXT for text in element_values(element)]
        return _REMOVED if vr in TEXT_VRS or vr == "AS" else self._kept(element)

    def _kept(self, element: DataElement) -> Result:
        """Keep a value that is what its representation promises: a name cannot hide in a number or a code."""
        vr, values = element.VR, element_values(element)
        if vr == "UI":
            return ("kept", element.value) if self._profile.options.uids else self._mapped(element)
        if vr == "PN" or vr in _BYTES_VRS:
            return _REMOVED
        if vr == "CS" and not all(_CODE_TEXT.fullmatch(text.strip()) for text in values):
            return _REMOVED
        if vr in ("DS", "IS") and not all(not text or _NUMBER.fullmatch(text.strip()) for text in values):
            return _REMOVED
        if vr in ("DA", "DT", "TM"):
            return self._cleaned(element)
        return ("kept", _capped_age(values)) if vr == "AS" else ("kept", element.value)

    def _dummy(self, element: DataElement) -> Result:
        if element.VR == "UI":
            return self._mapped(element)
        if element.VR == "PN":
            return "replaced", self._identity.pseudonym
        if element.VR in _BYTES_VRS:
            return "replaced", b"\x00\x00"
        return ("replaced", _DUMMIES[element.VR]) if element.VR in _DUMMIES else _REMOVED

    def _cleaned(self, element: DataElement) -> Result:
        vr, values = element.VR, element_values(element)
        move = {"DA": moved_date, "DT": moved_instant}.get(vr)
        if move is not None:
            moved = [move(text, self._days) for text in values if text.strip()]
            return ("emptied", None) if None in moved else ("shifted", moved)
        if vr == "TM":
            times = [kept_time(text) for text in values if text.strip()]
            return ("emptied", None) if None in times else ("kept", times)
        if vr in TEXT_VRS and vr not in ("PN", "UR", "AE"):
            return "cleaned", [self._known_words(text) for text in values]
        if vr in TEXT_VRS or vr in _BYTES_VRS:
            return _REMOVED
        return self._kept(element)

    def _mapped(self, element: DataElement) -> Result:
        values = [text.strip().rstrip("\x00") for text in element_values(element)]
        if self._profile.options.uids:
            return ("kept", values) if all(re.fullmatch(r"[0-9.]{0,64}", text) for text in values) else _REMOVED
        if element.VR != "UI":
            return _REMOVED
        return "mapped", [self._identity.uid(text) for text in values]

    def _known_words(self, text: str) -> str:
        """Only words of the reviewed list, numbers and vertebral levels, in their order."""
        found = _WORD.findall(text)
        return " ".join(
            word for word in found if word.lower() in self._words or _LEVEL.fullmatch(word.lower()) is not None
        )


def _capped_age(values: list[str]) -> list[str]:
    """Ages as they are up to 89 years, older ones as 90 (as in the record's export)."""
    found = []
    for text in values:
        match = _AGE.fullmatch(text.strip())
        if match is None:
            continue
        number, unit = int(match[1]), match[2]
        years = number / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[unit]
        found.append(text.strip() if years < _OLDEST else f"{_OLDEST:03d}Y")
    return found
