"""Elements of a file as pydicom has them before they are decoded, without its reader. Pure.

DICOM PS3.5 §7.1; PS3.10 §7.1 (File Meta Information).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ImplicitVRLittleEndian
from pydicom.valuerep import VR

CHARACTERS = 0x00080005
_PIXEL_DATA = 0x7FE00010
_PIXEL_DATA_TAG = b"\xe0\x7f\x10\x00"
VRS = {vr.value.encode("ascii"): vr.value for vr in VR if len(vr.value) == 2}
LONG_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
_SYNTAX = b"\x02\x00\x10\x00UI"
_CHARACTER_SETS = re.compile(rb"[A-Z0-9_ \\]*")


class Unread:
    """Stands for pixel data of a file of which only the beginning is there: they have a length and no content."""

    __slots__ = ("_length",)

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


def dataset_of(elements: dict[BaseTag, RawDataElement], named: RawDataElement | None, syntax: str) -> Dataset:
    """Return a data set of elements not decoded yet, with its transfer syntax.

    Parameters
    ----------
    named : the element that names its character set
    """
    is_implicit = syntax == ImplicitVRLittleEndian
    dataset = Dataset(elements)
    dataset.file_meta = _meta_of(syntax)
    encodings = list(_encodings(named.VR, named.value, is_implicit)) if named is not None else default_encoding
    dataset.set_original_encoding(is_implicit, True, encodings)
    return dataset


def is_character_set(vr: str | None, value: bytes | None) -> bool:
    """Whether (0008,0005) is written as it should be: as a number it would name nothing."""
    return vr in (None, "CS") and _CHARACTER_SETS.fullmatch(value or b"") is not None


def announced_size(head: bytes) -> int | None:
    """Bytes of a file of the common kind that ends with its pixel data, as its beginning says; None: it says nothing.

    Only `read_plain` shows whether that is so.
    """
    place = head.find(_PIXEL_DATA_TAG, 132)
    if place < 0 or len(head) - place < 12:
        return None
    is_explicit = head[place + 4 : place + 6] in (b"OW", b"OB")
    begin = place + (12 if is_explicit else 8)
    return begin + int.from_bytes(head[begin - 4 : begin], "little")


def after_meta(content: bytes) -> tuple[int, str]:
    """Where the data set begins, and its transfer syntax; empty where the meta information is not as it should be."""
    place, syntax = 132, ""
    while content[place : place + 2] == b"\x02\x00":
        vr = VRS.get(content[place + 4 : place + 6])
        if vr is None:
            return 0, ""
        if vr in LONG_VRS:
            begin, length = place + 12, int.from_bytes(content[place + 8 : place + 12], "little")
        else:
            begin, length = place + 8, int.from_bytes(content[place + 6 : place + 8], "little")
        if content[place : place + 6] == _SYNTAX:
            syntax = content[begin : begin + length].rstrip(b"\0 ").decode("ascii", "replace")
        place = begin + length
    return place, syntax


def value_at(content: bytes, tag: int, vr: str | None, place: int, length: int) -> Any:
    """Value of an element, not decoded; of pixel data a view, or `Unread`."""
    if not length:
        return empty_value_for_VR(vr, raw=True)
    if is_pixel_data(tag, vr):  # not copied: it is measured, and taken out
        return memoryview(content)[place : place + length] if place + length <= len(content) else Unread(length)
    return content[place : place + length]


@lru_cache(maxsize=16384)
def tag_at(tag: int) -> BaseTag:
    """Return the one object of a tag: dictionaries find it by identity, else pydicom compares tags in Python."""
    return BaseTag(tag)


def is_pixel_data(tag: int, vr: str | None) -> bool:
    """Whether an element is pixel data in the VR that these may have."""
    return tag == _PIXEL_DATA and vr in (None, "OB", "OW")


@lru_cache(maxsize=8)
def _meta_of(syntax: str) -> FileMetaDataset:
    """File meta information of all files of one transfer syntax; nobody changes it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    return meta


@lru_cache(maxsize=64)
def _encodings(vr: str | None, value: bytes | None, is_implicit: bool) -> tuple[str, ...]:
    """Python's names of the character sets that an element names."""
    element = RawDataElement(BaseTag(CHARACTERS), vr, len(value or b""), value, 0, is_implicit, True)
    return tuple(convert_encodings(convert_raw_data_element(element).value))
