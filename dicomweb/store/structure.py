"""How a file is built, looked at before anything parses it: nesting, number of elements, what it inflates to.

A parser that follows a file recursively, or makes an object of every element, can be made to fall over by a file of a
few megabytes. This walk keeps no element and never recurses. It refuses what is beyond the limits and nothing else:
what it does not understand is left to the parser. DICOM PS3.5 §7.1, §7.5, Annex A.5 (deflated).
"""

from __future__ import annotations

import struct
import zlib
from typing import IO

from pydicom._dicom_dict import DicomDictionary

from dicomweb.instance_check import FailureReason, RejectedInstanceError
from dicomweb.multipart import Slice, Spool

MAX_DEPTH = 32
"""Deepest nesting of sequences; structured reports of practice stay below a dozen."""
MAX_ELEMENTS = 1_000_000
"""Most elements and items of one file: an enhanced object of 20,000 frames has some 600,000."""
MAX_INFLATED_BYTES = 512 * 1024 * 1024
"""Longest data set that a deflated file may inflate to."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_IMPLICIT = b"1.2.840.10008.1.2"
_BIG_ENDIAN = b"1.2.840.10008.1.2.2"
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UNDEFINED = 0xFFFFFFFF
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_WINDOW = 64 * 1024
_CHUNK = 1024 * 1024


class _Window:
    """Bytes of a file at any place, read in stretches."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._base, self._data = file, 0, b""

    def at(self, place: int, size: int) -> bytes:
        start = place - self._base
        if start < 0 or start + size > len(self._data):
            self._file.seek(place)
            self._base, self._data, start = place, self._file.read(_WINDOW), 0
        return self._data[start : start + size]


def check_structure(file: IO[bytes]) -> None:
    """Refuse a file that is nested too deep, has too many elements or inflates to too much.

    Raises
    ------
    RejectedInstanceError
        Beyond one of the limits.
    """
    window = _Window(file)
    if window.at(128, 4) != b"DICM":
        return
    place, syntax = _after_meta(window)
    if syntax == _DEFLATED:
        with _inflated(file, place) as spool:
            _walk(_Window(_as_file(spool)), 0, spool.size, "<", explicit=True)
    else:
        order = ">" if syntax == _BIG_ENDIAN else "<"
        _walk(window, place, file.seek(0, 2), order, explicit=syntax != _IMPLICIT)


def _after_meta(window: _Window) -> tuple[int, bytes]:
    """Where the data set begins, and its transfer syntax; File Meta Information is explicit VR little endian."""
    place, syntax = 132, b""
    while True:
        head = window.at(place, 12)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return place, syntax
        if head[4:6] in _LONG_VRS:
            length, place = int.from_bytes(head[8:12], "little"), place + 12
        else:
            length, place = int.from_bytes(head[6:8], "little"), place + 8
        if head[:4] == b"\x02\x00\x10\x00":
            syntax = window.at(place, min(length, 64)).rstrip(b"\0 ")
        place += length


class _inflated:
    """The inflated data set in a spool, as far as the limit allows."""

    def __init__(self, file: IO[bytes], place: int) -> None:
        self._file, self._place, self._spool = file, place, Spool()

    def __enter__(self) -> Spool:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._file.seek(self._place)
        try:
            while not inflate.eof and (chunk := self._file.read(_CHUNK)):
                while chunk:
                    self._spool.write(inflate.decompress(chunk, _CHUNK))
                    if self._spool.size > MAX_INFLATED_BYTES:
                        text = f"The deflated data set is longer than {MAX_INFLATED_BYTES} bytes"
                        raise RejectedInstanceError(FailureReason.OUT_OF_RESOURCES, text)
                    chunk = inflate.unconsumed_tail
        except zlib.error as exc:
            self._spool.close()
            raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The data set cannot be inflated") from exc
        except BaseException:
            self._spool.close()
            raise
        return self._spool

    def __exit__(self, *_: object) -> None:
        self._spool.close()


def _as_file(spool: Spool) -> IO[bytes]:
    return Slice(spool, 0, spool.size)  # type: ignore[return-value]


def _walk(window: _Window, place: int, end: int, order: str, *, explicit: bool) -> None:
    """Visit every element.

    `open_` holds for each open sequence or item where it ends and how its content is coded.
    """
    open_: list[tuple[int, bool]] = []
    sequences, seen = 0, 0
    tag_format, long_format = struct.Struct(order + "HH"), struct.Struct(order + "I")
    kinds: list[bool] = []  # of each open level: whether it is a sequence (else an item)
    while place < end:
        while open_ and place >= open_[-1][0]:
            open_.pop()
            sequences -= kinds.pop()
        head = window.at(place, 12)
        if len(head) < 8:
            return
        group, element = tag_format.unpack_from(head)
        tag = group << 16 | element
        seen += 1
        if seen > MAX_ELEMENTS:
            raise RejectedInstanceError(FailureReason.OUT_OF_RESOURCES, f"More than {MAX_ELEMENTS} elements")
        coded = open_[-1][1] if open_ else explicit
        if group == 0xFFFE:
            (length,) = long_format.unpack_from(head, 4)
            place += 8
            if tag == _ITEM:
                open_.append((end if length == _UNDEFINED else place + length, coded))
                kinds.append(False)
            elif open_:
                open_.pop()
                sequences -= kinds.pop()
            continue
        length, place, inside = _element(head, tag, place, long_format, explicit=coded)
        if inside is None:
            if length == _UNDEFINED:  # Encapsulated pixel data: fragments to skip, then its delimiter.
                place = _after_fragments(window, place, end, long_format)
            else:
                place += length
            continue
        open_.append((end if length == _UNDEFINED else place + length, inside))
        kinds.append(True)
        sequences += 1
        if sequences > MAX_DEPTH:
            text = f"Sequences are nested more than {MAX_DEPTH} deep"
            raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, text)


def _element(
    head: bytes, tag: int, place: int, long_format: struct.Struct, *, explicit: bool
) -> tuple[int, int, bool | None]:
    """Length of an element's value, where the value begins, and how its items are coded (None: it is no sequence)."""
    if not explicit:
        (length,) = long_format.unpack_from(head, 4)
        is_sequence = tag in _SEQUENCES or (length == _UNDEFINED and tag != 0x7FE00010)
        return length, place + 8, False if is_sequence else None
    vr = head[4:6]
    if vr not in _LONG_VRS:
        length = int.from_bytes(head[6:8], "little" if long_format.format[0] == "<" else "big")
        return length, place + 8, None
    if len(head) < 12:
        return 0, place + 12, None
    (length,) = long_format.unpack_from(head, 8)
    if vr == b"SQ":
        return length, place + 12, True
    if vr == b"UN" and (length == _UNDEFINED or tag in _SEQUENCES):
        return length, place + 12, False  # PS3.5 §6.2.2: a sequence of unknown VR is implicit VR little endian
    return length, place + 12, None


def _after_fragments(window: _Window, place: int, end: int, long_format: struct.Struct) -> int:
    """Where the encapsulated pixel data ends; at something else than a fragment the walk is over."""
    while place < end:
        head = window.at(place, 8)
        if len(head) < 8 or head[:4] != b"\xfe\xff\x00\xe0":
            return place + 8 if head[:4] == b"\xfe\xff\xdd\xe0" else end
        place += 8 + int(long_format.unpack_from(head, 4)[0])
    return end
