"""Ids: logical ids that sort by time, trace ids, and UIDs derived from their input so that a replay repeats them.

RFC 9562 (UUIDv7, UUIDv5); DICOM PS3.5 §B.2 (UUID-derived UIDs, root 2.25).
"""

from __future__ import annotations

import os
import threading
import time
import uuid

_UID_NAMESPACE = uuid.UUID("6f1a3c52-6f0e-5d7b-9a51-0f0a4f0a0001")


class _Randomness(threading.local):
    """Random bytes of the operating system, fetched some thousand at a time: a system call an id is the larger cost."""

    def __init__(self) -> None:
        self._bytes = b""
        self._place = 0

    def take(self, count: int) -> bytes:
        if self._place + count > len(self._bytes):
            self._bytes, self._place = os.urandom(8192), 0
        self._place += count
        return self._bytes[self._place - count : self._place]

    def forget(self) -> None:
        self._bytes = b""


_random = _Randomness()
os.register_at_fork(after_in_child=_random.forget)  # a child must not repeat its parent's ids


def new_logical_id() -> str:
    """Return a new logical id (UUIDv7: time-ordered, so that index pages stay warm)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(_random.take(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_trace_id() -> str:
    """Return a W3C trace id: 32 hexadecimal digits."""
    return _random.take(16).hex()


def derived_uuid(*parts: str) -> uuid.UUID:
    """UUIDv5 of the parts: the same input gives the same id on every replay."""
    return uuid.uuid5(_UID_NAMESPACE, "\x1f".join(parts))


def derived_uid(*parts: str) -> str:
    """DICOM UID under 2.25 derived from the parts (PS3.5 §B.2)."""
    return f"2.25.{derived_uuid(*parts).int}"
