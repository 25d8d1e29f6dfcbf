"""The beginning of a file, read by what elements of the same bytes were before.

The bytes of each element are looked up, and only what was not seen yet is decoded. Gives what pydicom and `header_of`
give for such a file; whatever is odd in the least is left to them. DICOM PS3.5 §7.1, §7.5, §7.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomweb.instance_check import ENCAPSULATED
from dicomweb.instance_header import (
    AVAILABLE_SYNTAX,
    PIXEL_DATA,
    InstanceHeader,
    empty_levels,
    header_with,
    json_model,
    path_of,
    pixel_attribute,
    syntax_attribute,
    text_of,
)
from dicomweb.store.element_memory import (
    LONGEST_KEPT_BYTES,
    LONGEST_SEQUENCE_BYTES,
    PIXEL_REPRESENTATION,
    Kind,
    Memory,
    Seen,
    kind_of,
    memory_of,
    seen_as,
)
from dicomweb.store.nested_elements import UNDEFINED, end_of_sequence, is_unnamed_sequence
from dicomweb.store.raw_elements import (
    CHARACTERS,
    VRS,
    after_meta,
    dataset_of,
    is_character_set,
    is_pixel_data,
    tag_at,
    value_at,
)

_FIRST, _FIRST_PIXELS = 0x00080000, 0x7FE00000
_SYNTAXES = frozenset((ExplicitVRLittleEndian, ImplicitVRLittleEndian, *ENCAPSULATED))
_FRAGMENT, _FRAGMENTS_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
_BULK = b'"BulkDataURI"'


@dataclass(frozen=True, slots=True)
class _New:
    """An element that was not seen yet.

    Parameters
    ----------
    number : its tag
    raw : to pydicom; None: a sequence of undefined length, which it has to read
    key : bytes to remember it by; empty: it is not remembered
    """

    number: int
    raw: RawDataElement | None
    element: bytes
    key: bytes


class Beginning:
    """All of a file but its pixels.

    Parameters
    ----------
    dataset : what checks ask for, with pixel data as bytes, a view of them, or `Unread`
    seen : elements that are remembered
    new : the others
    deciders : what decides about some of the new (`Kind`)
    """

    def __init__(
        self,
        dataset: Dataset,
        seen: list[Seen],
        new: dict[BaseTag, _New],
        deciders: dict[BaseTag, RawDataElement],
        memory: Memory,
    ) -> None:
        self.dataset = dataset
        self._seen, self._new, self._deciders, self._memory = seen, new, deciders, memory

    def header(self, *, has_pixel_data: bool) -> InstanceHeader:
        """Return what `header_of` returns for the whole data set.

        Raises
        ------
        MalformedInstanceError
            Without the UIDs that name it.
        """
        path = path_of(*(text_of(self.dataset, f"{name}InstanceUID") for name in ("Study", "Series", "SOP")))
        syntax = str(self.dataset.file_meta.TransferSyntaxUID)
        everything = [*self._seen, *self._described(path, syntax), seen_as(AVAILABLE_SYNTAX, syntax_attribute(syntax))]
        if has_pixel_data:
            everything.append(seen_as(PIXEL_DATA, pixel_attribute(path)))
        levels, texts = empty_levels(), []
        for one in everything:
            texts.append(one.text)
            if one.kept is not None:
                levels[one.level][one.key] = one.kept
        texts.sort()  # by the tags, with which they begin
        return header_with(self.dataset, levels, b"{" + b",".join(texts) + b"}", has_pixel_data=has_pixel_data)

    def _described(self, path: str, syntax: str) -> list[Seen]:
        """What is new; remembered where that may be."""
        named = self.dataset.get_item(tag_at(CHARACTERS))
        elements: dict[BaseTag, RawDataElement | DataElement] = dict(self._deciders)
        if named is not None:
            elements[named.tag] = named
        dataset = dataset_of(elements, named, syntax)
        encodings = dataset.original_character_set
        for tag, new in self._new.items():
            elements[tag] = new.raw if new.raw is not None else _sequence(new.element, syntax, encodings)
        found = []
        for key, attribute in json_model(dataset_of(elements, named, syntax), path).items():
            tag = tag_at(int(key, 16))
            if tag not in self._new:
                continue
            new = self._new[tag]
            found.append(one := seen_as(key, attribute, new.raw if tag in self.dataset else None))
            if new.key and _BULK not in one.text:
                self._memory.keep(new.key, one, new.number if new.raw is None else 0)
        return found


def read_beginning(content: bytes, size: int) -> Beginning | None:
    """Read a little endian file by its beginning, or whole; encapsulated pixel data are read whole alone.

    Parameters
    ----------
    content : its first bytes
    size : of the whole file in bytes

    Returns
    -------
    None: it is to be read in another way, and may be sound.
    """
    place, syntax = after_meta(content) if content[128:132] == b"DICM" else (0, "")
    is_implicit = syntax == ImplicitVRLittleEndian
    if is_implicit == (content[place + 4 : place + 6] in VRS) or syntax not in _SYNTAXES:
        return None
    width, there, before = 4 if is_implicit else 6, len(content), _FIRST - 1
    memory = memory_of(is_implicit, b"")
    deciding: dict[BaseTag, RawDataElement] = {}
    seen: list[Seen] = []
    new: dict[BaseTag, _New] = {}
    deciders: dict[int, tuple[bytes, Kind, int, int]] = {}
    asked: dict[BaseTag, RawDataElement] = {}
    while place < size:
        kind = kind_of(content[place : place + width])
        if kind is None or kind.number <= before or there - place < (12 if kind.is_long else 8):
            return None
        tag, vr, start, before = kind.tag, kind.vr, place, kind.number
        if is_implicit:
            begin, length = place + 8, int.from_bytes(content[place + 4 : place + 8], "little")
        elif kind.is_long:
            begin, length = place + 12, int.from_bytes(content[place + 8 : place + 12], "little")
        else:
            begin, length = place + 8, content[place + 6] | content[place + 7] << 8
        place = begin + length
        if before >= _FIRST_PIXELS:
            pixels = _pixels(content, kind, begin, length, size)
            if pixels is None or (syntax in ENCAPSULATED) != (length == UNDEFINED):
                return None
            deciding[tag] = RawDataElement(tag, vr, length, pixels, begin, is_implicit, True)
            break
        if length == UNDEFINED:
            known = memory.sequence_at(content, start, before)
            if known is not None:
                seen.append(known[0])
                place = start + known[1]
                continue
            if not (kind.is_sequence or (is_implicit and is_unnamed_sequence(content, begin, before, length))):
                return None
            end = end_of_sequence(content, begin, length, is_implicit=is_implicit)
            if end is None:
                return None
            element, place = content[start:end], end
            new[tag] = _New(before, None, element, element if len(element) <= LONGEST_SEQUENCE_BYTES else b"")
            continue
        if place > there:
            return None
        element = content[start:place]
        if before == CHARACTERS:
            if not is_character_set(vr, content[begin:place]):
                return None
            memory = memory_of(is_implicit, element)
        decider = deciders.get(kind.decider) if kind.decider else None
        if kind.decider == PIXEL_REPRESENTATION and decider is None:
            return None
        if kind.is_decider:
            deciders[before] = element, kind, begin, length
        key = element if decider is None else element + decider[0]
        found = memory.known.get(key)
        if found is not None:
            seen.append(found)
            if found.raw is not None:
                deciding[tag] = found.raw
            continue
        if kind.is_sequence and end_of_sequence(content, begin, length, is_implicit=is_implicit) is None:
            return None
        raw = _raw(content, kind, begin, length, is_implicit)
        longest = LONGEST_SEQUENCE_BYTES if kind.is_sequence else LONGEST_KEPT_BYTES
        new[tag] = _New(before, raw, element, key if len(element) <= longest else b"")
        if decider is not None:
            asked[decider[1].tag] = _raw(content, *decider[1:], is_implicit)
        if kind.is_deciding:
            deciding[tag] = raw
    if not (seen or new or deciding):
        return None
    return Beginning(dataset_of(deciding, deciding.get(tag_at(CHARACTERS)), syntax), seen, new, asked, memory)


def _raw(content: bytes, kind: Kind, begin: int, length: int, is_implicit: bool) -> RawDataElement:
    """Return an element as pydicom has it before it is decoded."""
    value = value_at(content, kind.number, kind.vr, begin, length)
    return RawDataElement(kind.tag, kind.vr, length, value, begin, is_implicit, True)


def _pixels(content: bytes, kind: Kind, begin: int, length: int, size: int) -> Any:
    """Return the pixel data that end a file, native or encapsulated; None: something else does, or it is not whole."""
    if not is_pixel_data(kind.number, kind.vr):
        return None
    if length != UNDEFINED:
        return value_at(content, kind.number, kind.vr, begin, length) if begin + length == size else None
    place = begin
    while content.startswith(_FRAGMENT, place):
        place += 8 + int.from_bytes(content[place + 4 : place + 8], "little")
    is_whole = content[place:] == _FRAGMENTS_END and len(content) == size
    return content[begin:place] if is_whole else None


def _sequence(element: bytes, syntax: str, encodings: list[str]) -> DataElement:
    """Read a sequence of undefined length."""
    is_implicit = syntax == ImplicitVRLittleEndian
    found = next(data_element_generator(BytesIO(element), is_implicit, True, encoding=encodings))
    assert isinstance(found, DataElement)  # noqa: S101  as pydicom gives every sequence of undefined length
    return found
