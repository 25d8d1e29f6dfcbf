"""The beginning of a file of the common kind, read by what elements of the same bytes were before.

The slices of a series are the same in nine of ten elements. What such an element is to pydicom, in DICOM JSON and in
the index follows from its bytes, the transfer syntax and the character set alone. So its bytes are looked up, and only
what was not seen yet is decoded. Gives what `read_plain` and `header_of` give for such a file; whatever is odd in the
least is left to them. DICOM PS3.5 §7.1, PS3.18 Annex F.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomweb.dicom_json import DECIDED_BY_THEIR_BYTES, LONGEST_KEPT_BYTES, known_vr
from dicomweb.index.levels import Level, level_of
from dicomweb.instance_header import (
    AVAILABLE_SYNTAX,
    PIXEL_DATA,
    InstanceHeader,
    empty_levels,
    header_with,
    json_model,
    json_text,
    kept_in_index,
    path_of,
    pixel_attribute,
    syntax_attribute,
    text_of,
)
from dicomweb.store.plain_file import (
    CHARACTERS,
    LONG_VRS,
    VRS,
    after_meta,
    dataset_of,
    is_character_set,
    is_pixel_data,
    tag_at,
    value_at,
)

_SYNTAX, _FIRST_PIXELS = 0x00083002, 0x7FE00000
_MOST_ELEMENTS, _MOST_KINDS, _MOST_CONTEXTS = 16_384, 8192, 32
_DECIDING = frozenset(
    (
        *(CHARACTERS, 0x00080016, 0x00080018, 0x00080060, 0x00080070, 0x00100020, 0x0020000D, 0x0020000E),
        *(0x00200013, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100),
    )
)
"""What checks and columns are made of: names, modality, manufacturer, patient, number, and the kind of pixels."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What elements of one tag and VR have in common.

    Parameters
    ----------
    number : the tag, to compare with: pydicom compares its tags in Python
    vr : as the file says it, if it does
    is_remembered : whether their bytes decide what they are
    is_deciding : whether checks or columns ask for them
    """

    tag: BaseTag
    number: int
    vr: str | None
    is_long: bool
    is_remembered: bool
    is_deciding: bool
    is_nested: bool


@dataclass(frozen=True, slots=True)
class _Seen:
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


Memory = dict[bytes, _Seen]
_kinds: dict[bytes, _Kind | None] = {}
_memories: dict[tuple[str, bytes], Memory] = {}
"""Transfer syntax and character set → bytes of an element → what it is."""


class Beginning:
    """All of a file but its pixels.

    Parameters
    ----------
    dataset : what checks ask for, with pixel data as `read_plain` gives them
    is_flat : whether nothing of it can be nested
    seen : elements that are remembered
    new : the others, and bytes by which they are to be remembered
    """

    def __init__(
        self,
        dataset: Dataset,
        is_flat: bool,
        seen: list[_Seen],
        new: dict[BaseTag, tuple[RawDataElement, bytes]],
        memory: Memory,
    ) -> None:
        self.dataset, self.is_flat = dataset, is_flat
        self._seen, self._new, self._memory = seen, new, memory

    def header(self, *, has_pixel_data: bool) -> InstanceHeader:
        """Return what `header_of` returns for the whole data set."""
        path = path_of(*(text_of(self.dataset, f"{name}InstanceUID") for name in ("Study", "Series", "SOP")))
        syntax = str(self.dataset.file_meta.TransferSyntaxUID)
        everything = [*self._seen, *self._described(path, syntax), _seen(AVAILABLE_SYNTAX, syntax_attribute(syntax))]
        if has_pixel_data:
            everything.append(_seen(PIXEL_DATA, pixel_attribute(path)))
        levels, texts = empty_levels(), []
        for one in everything:
            texts.append(one.text)
            if one.kept is not None:
                levels[one.level][one.key] = one.kept
        texts.sort()  # by the tags, with which they begin
        return header_with(self.dataset, levels, b"{" + b",".join(texts) + b"}", has_pixel_data=has_pixel_data)

    def _described(self, path: str, syntax: str) -> list[_Seen]:
        """What is new; remembered where that may be."""
        elements = {tag: raw for tag, (raw, _) in self._new.items()}
        named = self.dataset.get_item(tag_at(CHARACTERS))
        if named is not None:
            elements[named.tag] = named
        found = []
        for key, attribute in json_model(dataset_of(elements, named, syntax), path).items():
            tag = tag_at(int(key, 16))
            if tag in self._new:
                raw, content = self._new[tag]
                found.append(one := _seen(key, attribute, raw if raw.tag in self.dataset else None))
                if content:
                    _make_room()
                    self._memory[content] = one
        return found


def read_beginning(content: bytes, size: int) -> Beginning | None:
    """Read a file of the common kind by its beginning.

    Parameters
    ----------
    content : its first bytes
    size : of the whole file in bytes

    Returns
    -------
    None: it is to be read in another way, and may be sound.
    """
    if content[128:132] != b"DICM":
        return None
    place, syntax = after_meta(content)
    if syntax == ExplicitVRLittleEndian:
        width, is_implicit = 6, False
    elif syntax == ImplicitVRLittleEndian and content[place + 4 : place + 6] not in VRS:
        width, is_implicit = 4, True
    else:
        return None
    memory = _memory_of(syntax, b"")
    deciding: dict[BaseTag, RawDataElement] = {}
    seen: list[_Seen] = []
    new: dict[BaseTag, tuple[RawDataElement, bytes]] = {}
    is_flat, before, there = True, CHARACTERS - 1, len(content)
    while place < size:
        if there - place < 12:
            return None
        name = content[place : place + width]
        kind = _kinds[name] if name in _kinds else _learned(name)
        if kind is None:
            return None
        tag, number, start = kind.tag, kind.number, place
        if is_implicit:
            begin, length = place + 8, int.from_bytes(content[place + 4 : place + 8], "little")
        elif kind.is_long:
            begin, length = place + 12, int.from_bytes(content[place + 8 : place + 12], "little")
        else:
            begin, length = place + 8, content[place + 6] | content[place + 7] << 8
        place = begin + length
        if number <= before or place > size:
            return None
        before = number
        if number >= _FIRST_PIXELS:
            if not is_pixel_data(number, kind.vr) or place != size:
                return None
            value = value_at(content, number, kind.vr, begin, length)
            deciding[tag] = RawDataElement(tag, kind.vr, length, value, begin, is_implicit, True)
            break
        if place > there:
            return None
        element = content[start:place]
        if number == CHARACTERS:
            if not is_character_set(kind.vr, content[begin:place]):
                return None
            memory = _memory_of(syntax, element)
        found = memory.get(element)
        if found is not None:
            seen.append(found)
            if found.raw is not None:
                deciding[tag] = found.raw
            continue
        is_flat = is_flat and not kind.is_nested
        value = value_at(content, number, kind.vr, begin, length)
        raw = RawDataElement(tag, kind.vr, length, value, begin, is_implicit, True)
        new[tag] = raw, element if kind.is_remembered and length <= LONGEST_KEPT_BYTES else b""
        if kind.is_deciding:
            deciding[tag] = raw
    if not (seen or new or deciding):
        return None
    dataset = dataset_of(deciding, deciding.get(tag_at(CHARACTERS)), syntax)
    return Beginning(dataset, is_flat, seen, new, memory)


def _memory_of(syntax: str, character_set: bytes) -> Memory:
    if (found := _memories.get((syntax, character_set))) is not None:
        return found
    if len(_memories) >= _MOST_CONTEXTS:
        _memories.clear()
    return _memories.setdefault((syntax, character_set), {})


def _make_room() -> None:
    """Forget everything before it is too much: what is of use is soon there again."""
    memories = list(_memories.values())  # other threads may add to it
    if sum(map(len, memories)) >= _MOST_ELEMENTS:
        for memory in memories:
            memory.clear()


def _learned(name: bytes) -> _Kind | None:
    """Tell what elements with a tag, and a VR where that is explicit, are; None: their context decides."""
    number = int.from_bytes(name[:2], "little") << 16 | int.from_bytes(name[2:4], "little")
    said = VRS.get(name[4:6])
    vr = said if len(name) > 4 else known_vr(number)
    kind = None
    # What has no VR of its own, or one of two, is decided by other elements; (0008,3002) would be there twice.
    if vr is not None and vr != "UN" and " " not in vr and number != _SYNTAX:
        is_remembered = vr in DECIDED_BY_THEIR_BYTES
        kind = _Kind(tag_at(number), number, said, said in LONG_VRS, is_remembered, number in _DECIDING, vr == "SQ")
    if len(_kinds) >= _MOST_KINDS:
        _kinds.clear()
    _kinds[name] = kind
    return kind


def _seen(key: str, attribute: dict[str, Any], raw: RawDataElement | None = None) -> _Seen:
    return _Seen(raw, key, json_text({key: attribute})[1:-1], level_of(key), kept_in_index(attribute))
