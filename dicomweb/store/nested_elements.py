"""Where a sequence ends, if it is nested as it should be throughout. Pure; keeps nothing and never recurses.

What these bytes are to pydicom then follows from them and the character set around them, wherever they stand: no length
in them leads out, and no element in them is decided by one outside. Everything else is left to pydicom on the whole.
DICOM PS3.5 §7.5.
"""

from __future__ import annotations

from dicomweb.dicom_json import known_vr
from dicomweb.store.raw_elements import LONG_VRS, VRS, is_character_set

UNDEFINED = 0xFFFFFFFF
MOST_DEPTH = 12
"""Deepest nesting that is followed: structured reports of practice stay below it."""
MOST_ELEMENTS = 4096
"""Elements and items that are followed: beyond, others see to it that they are not too many."""
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_DELIMITERS, _CHARACTERS = b"\xfe\xff", b"\x08\x00\x05\x00"


def end_of_sequence(content: bytes, place: int, length: int, *, is_implicit: bool) -> int | None:
    """Return where a sequence ends, its delimiter included.

    Parameters
    ----------
    content : little endian; perhaps the beginning of a file
    place : where its value begins
    length : of its value in bytes, or `UNDEFINED`

    Returns
    -------
    None: it is not whole, not as it should be, or holds what is not decided by its own bytes.
    """
    there, left = len(content), MOST_ELEMENTS
    # Each open level: where it ends (-1: at its delimiter) and whether it is an item.
    open_ = [(-1 if length == UNDEFINED else place + length, False)]
    while open_:
        end, is_item = open_[-1]
        if place == end:
            open_.pop()
            continue
        left -= 1
        if there - place < 8 or (end >= 0 and place > end) or not left:
            return None
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if name[:2] == _DELIMITERS:
            place += 8
            if name == _ITEM and not is_item:
                open_.append((-1 if size == UNDEFINED else place + size, True))
            elif end < 0 and size == 0 and name == (_ITEM_END if is_item else _SEQUENCE_END):
                open_.pop()
            else:
                return None
            continue
        if not is_item:
            return None
        found = _element(content, place, is_implicit)
        if found is None:
            return None
        begin, size, is_sequence = found
        if name == _CHARACTERS and not is_character_set("CS", content[begin : begin + size]):
            return None
        place = begin
        if is_sequence:
            if len(open_) >= 2 * MOST_DEPTH:
                return None
            open_.append((-1 if size == UNDEFINED else place + size, False))
        elif size == UNDEFINED:
            return None
        else:
            place += size
    return place if place <= there else None


def is_unnamed_sequence(content: bytes, place: int, number: int, length: int) -> bool:
    """Whether a private element of implicit VR shows by its undefined length, and an item, that it is a sequence."""
    return length == UNDEFINED and bool(number & 0x10000) and content.startswith(_ITEM, place)


def _element(content: bytes, place: int, is_implicit: bool) -> tuple[int, int, bool] | None:
    """Where the value of an element begins, its length, and whether it is a sequence; None: others decide about it."""
    number = int.from_bytes(content[place : place + 2], "little") << 16
    number |= int.from_bytes(content[place + 2 : place + 4], "little")
    is_private = bool(number & 0x10000)
    vr = VRS.get(content[place + 4 : place + 6])
    if is_implicit:
        if vr is not None:  # looks explicit
            return None
        length, vr = int.from_bytes(content[place + 4 : place + 8], "little"), known_vr(number)
        if (vr is None and not is_private) or (vr is not None and " " in vr):
            return None
        return place + 8, length, vr == "SQ" or is_unnamed_sequence(content, place + 8, number, length)
    if vr is None or (vr == "UN" and not is_private):
        return None
    if vr in LONG_VRS:
        return place + 12, int.from_bytes(content[place + 8 : place + 12], "little"), vr == "SQ"
    return place + 8, content[place + 6] | content[place + 7] << 8, False
