"""C-STORE as it is on the wire: the request's command set, its answer, and the head of the file it becomes. Pure.

DICOM PS3.7 §9.3.1 and Annex E (command sets are implicit VR little endian), PS3.8 §9.3.5 and Annex E (fragments),
PS3.10 §7.1 (file meta information).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

P_DATA = 4
COMMAND, LAST = 1, 2
"""Bits of a fragment's control header (PS3.8 §E.2)."""
_REQUEST, _ANSWER, _NO_DATA_SET = 0x0001, 0x8001, 0x0101
_CLASS, _FIELD, _MESSAGE, _ANSWERED = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET, _STATUS, _INSTANCE = 0x0700, 0x0800, 0x0900, 0x1000
_NUMBERS = (_FIELD, _MESSAGE, _PRIORITY, _DATA_SET)
_UID = re.compile(rb"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_LONGEST_UID = 64


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a C-STORE request says before its data set comes."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """One presentation data value of a PDU, and where its content lies there."""

    context_id: int
    control: int
    start: int
    end: int


def fragments_of(body: memoryview) -> Iterator[Fragment]:
    """Yield the fragments of a P-DATA-TF PDU.

    Raises
    ------
    ValueError
        Their lengths do not fit the PDU.
    """
    place = 0
    while place < len(body):
        end = place + 4 + int.from_bytes(body[place : place + 4], "big")
        if end < place + 6 or end > len(body):
            raise ValueError("The fragments do not fit their PDU")
        yield Fragment(body[place + 4], body[place + 5], place + 6, end)
        place = end


def request_of(fragment: Fragment, body: memoryview) -> StoreRequest | None:
    """Read a C-STORE request from its only fragment; None: it is something else, or not as it should be."""
    if fragment.control & (COMMAND | LAST) != COMMAND | LAST:
        return None
    found: dict[int, bytes] = {}
    place = fragment.start
    while place < fragment.end:
        if fragment.end - place < 8:
            return None
        group, element, length = struct.unpack_from("<HHI", body, place)
        place += 8 + length
        if group or place > fragment.end:
            return None
        found[element] = bytes(body[place - length : place])
    if any(len(found.get(element, b"")) != 2 for element in _NUMBERS):
        return None
    field, message, _, data_set = (int.from_bytes(found[element], "little") for element in _NUMBERS)
    uids = [found.get(element, b"").rstrip(b"\0") for element in (_CLASS, _INSTANCE)]
    is_named = all(len(uid) <= _LONGEST_UID and _UID.fullmatch(uid) for uid in uids)
    if field != _REQUEST or data_set == _NO_DATA_SET or not is_named:
        return None
    return StoreRequest(fragment.context_id, message, uids[0].decode(), uids[1].decode())


def answer_to(request: StoreRequest, status: int) -> bytes:
    """Return the P-DATA-TF PDU that answers a request."""
    elements = b"".join(
        (
            _element(_CLASS, _uid(request.sop_class_uid)),
            _element(_FIELD, struct.pack("<H", _ANSWER)),
            _element(_ANSWERED, struct.pack("<H", request.message_id)),
            _element(_DATA_SET, struct.pack("<H", _NO_DATA_SET)),
            _element(_STATUS, struct.pack("<H", status)),
            _element(_INSTANCE, _uid(request.sop_instance_uid)),
        )
    )
    command = _element(0, struct.pack("<I", len(elements))) + elements
    length = len(command) + 2
    return struct.pack(">BxIIBB", P_DATA, length + 4, length, request.context_id, COMMAND | LAST) + command


def file_head(request: StoreRequest, transfer_syntax_uid: str) -> bytes:
    """Preamble and file meta information of the file that a request's data set becomes."""
    elements = b"".join(
        (
            b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01",
            _meta(0x0002, b"UI", _uid(request.sop_class_uid)),
            _meta(0x0003, b"UI", _uid(request.sop_instance_uid)),
            _meta(0x0010, b"UI", _uid(transfer_syntax_uid)),
            _meta(0x0012, b"UI", _uid(PYNETDICOM_IMPLEMENTATION_UID)),
            _meta(0x0013, b"SH", _even(PYNETDICOM_IMPLEMENTATION_VERSION.encode("ascii"), b" ")),
        )
    )
    return bytes(128) + b"DICM" + _meta(0, b"UL", struct.pack("<I", len(elements))) + elements


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _uid(uid: str) -> bytes:
    return _even(uid.encode("ascii"), b"\0")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value
