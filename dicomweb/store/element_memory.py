"""What elements of the same bytes were before: the slices of a series are the same in nine of ten.

What an element is to pydicom, in DICOM JSON and in the index follows from its bytes, the transfer syntax and the
character set alone; where it has no VR, perhaps also from one other element. DICOM PS3.5 §7.1, §7.8, PS3.18 Annex F.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from dicomweb.dicom_json import known_vr
from dicomweb.index.levels import Level, level_of
from dicomweb.instance_header import json_text, kept_in_index
from dicomweb.store.raw_elements import CHARACTERS, LONG_VRS, VRS, is_pixel_data, tag_at

LONGEST_KEPT_BYTES, LONGEST_SEQUENCE_BYTES = 256, 4096
_MOST_ELEMENTS, _MOST_BYTES = 16_384, 4 * 1024 * 1024
_MOST_KINDS, _MOST_CONTEXTS = 8192, 32
_MOST_OPENINGS = 8
"""Sequences of one tag that are tried before the end of one is looked for: one a series, of a few at once."""
_SYNTAX = 0x00083002
_FIRST_CREATOR, _LAST_CREATOR, _FIRST_PRIVATE = 0x10, 0xFF, 0x1000
PIXEL_REPRESENTATION = 0x00280103
_SIGNED_AS_PIXELS = frozenset((0x00280106, 0x00280107, 0x00280108, 0x00280109, 0x00280120, 0x00280121))
"""Smallest, largest and padding values: they come behind what decides about them."""
_LENGTHS = frozenset((0x00080000, 0x00080001))
_DECIDING = frozenset(
    (
        *(CHARACTERS, 0x00080016, 0x00080018, 0x00080060, 0x00080070, 0x00100020, 0x0020000D, 0x0020000E),
        *(0x00200013, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100),
    )
)
"""What checks and columns are made of: names, modality, manufacturer, patient, number, and the kind of pixels."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What elements of one tag and VR have in common.

    Parameters
    ----------
    number : the tag, to compare with: pydicom compares its tags in Python
    vr : as the file says it, if it does
    is_deciding : whether checks or columns ask for them
    is_sequence : of items
    decider : tag of the element that decides with their bytes what they are (private creator, (0028,0103)); 0: none
    is_decider : whether it is one
    """

    tag: BaseTag
    number: int
    vr: str | None
    is_long: bool
    is_deciding: bool
    is_sequence: bool
    decider: int
    is_decider: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What an element is.

    Parameters
    ----------
    raw : to pydicom, where a check may ask for it
    text : in the JSON object that is kept of the instance, with its key
    kept : in the index, on its level; None: it is not there
    """

    raw: RawDataElement | None
    key: str
    text: bytes
    level: Level
    kept: dict[str, Any] | None


class Memory:
    """Of one character set, with or without VRs: bytes of an element, and of what decides with them → `Seen`."""

    def __init__(self) -> None:
        self.known: dict[bytes, Seen] = {}
        self.bytes = 0
        self._openings: dict[int, OrderedDict[bytes, None]] = {}

    def keep(self, element: bytes, seen: Seen, opening: int) -> None:
        """Remember an element.

        Parameters
        ----------
        opening : tag of a sequence whose end is found by what it was before; 0: it says its length
        """
        _make_room()
        self.known[element] = seen
        self.bytes += len(element) + len(seen.text)
        if opening:
            before = self._openings.setdefault(opening, OrderedDict())
            before[element] = None
            if len(before) > _MOST_OPENINGS:
                before.popitem(last=False)

    def sequence_at(self, content: bytes, place: int, number: int) -> tuple[Seen, int] | None:
        """Return what a sequence of undefined length is that was seen before, and its size: it ends as it did then."""
        for element in tuple(self._openings.get(number, ())):
            if content.startswith(element, place) and (found := self.known.get(element)) is not None:
                return found, len(element)
        return None

    def forget(self) -> None:
        """Forget everything."""
        self.known.clear()
        self._openings.clear()
        self.bytes = 0


_kinds: dict[bytes, Kind | None] = {}
_memories: dict[tuple[bool, bytes], Memory] = {}


def memory_of(is_implicit: bool, character_set: bytes) -> Memory:
    """Return what is remembered under the bytes of the element that names a character set."""
    if (found := _memories.get((is_implicit, character_set))) is not None:
        return found
    if len(_memories) >= _MOST_CONTEXTS:
        _memories.clear()
    return _memories.setdefault((is_implicit, character_set), Memory())


def _make_room() -> None:
    """Forget everything before it is too much: what is of use is soon there again."""
    memories = list(_memories.values())  # other threads may add to it
    elements, size = sum(len(memory.known) for memory in memories), sum(memory.bytes for memory in memories)
    if elements >= _MOST_ELEMENTS or size >= _MOST_BYTES:
        for memory in memories:
            memory.forget()


def kind_of(name: bytes) -> Kind | None:
    """Tell what elements with a tag, and a VR where that is explicit, are; None: others have to say."""
    return _kinds[name] if name in _kinds else _learned(name)


def _learned(name: bytes) -> Kind | None:
    number = int.from_bytes(name[:2], "little") << 16 | int.from_bytes(name[2:4], "little")
    said, is_explicit = VRS.get(name[4:6]), len(name) > 4
    kind = None
    if not is_explicit or said is not None:
        vr = said if is_explicit else _vr_of(number)
        decider = _decider_of(number, vr)
        # What stands before the character set is not text; (0008,3002) would be there twice.
        is_placed = number >= CHARACTERS or (number in _LENGTHS and vr == "UL")
        if decider is not None and is_placed and number != _SYNTAX:
            is_decider = number == PIXEL_REPRESENTATION or _is_creator(number)
            flags = number in _DECIDING, vr == "SQ", decider, is_decider
            kind = Kind(tag_at(number), number, said, said in LONG_VRS, *flags)
    if len(_kinds) >= _MOST_KINDS:
        _kinds.clear()
    _kinds[name] = kind
    return kind


def _vr_of(number: int) -> str | None:
    """VR of an element that does not say it, as pydicom has it; None: its private creator decides, or nobody knows."""
    return known_vr(number) or (None if number & 0x1FFFF else "UL")


def _decider_of(number: int, vr: str | None) -> int | None:
    """Tag of the element that decides what one is; 0: its bytes do; None: others have to say."""
    if is_pixel_data(number, None):
        return 0
    if vr == "US or SS":
        return PIXEL_REPRESENTATION if number in _SIGNED_AS_PIXELS else None
    if vr is not None and vr != "UN":
        return None if " " in vr else 0
    if not number & 0x10000:
        return None
    inside = number & 0xFFFF
    if inside <= _LAST_CREATOR:
        return 0
    return number & 0xFFFF0000 | inside >> 8 if inside >= _FIRST_PRIVATE else None


def _is_creator(number: int) -> bool:
    return bool(number & 0x10000) and _FIRST_CREATOR <= number & 0xFFFF <= _LAST_CREATOR


def seen_as(key: str, attribute: dict[str, Any], raw: RawDataElement | None = None) -> Seen:
    """Return what an element of this DICOM JSON is."""
    return Seen(raw, key, json_text({key: attribute})[1:-1], level_of(key), kept_in_index(attribute))
