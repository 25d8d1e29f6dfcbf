"""Ids: logical ids that sort by time, trace ids, and UIDs derived from their input so that a replay repeats them.

RFC 9562 (UUIDv7, UUIDv5); DICOM PS3.5 §B.2 (UUID-derived UIDs, root 2.25).
"""

from __future__ import annotations

import os
import time
import uuid

_UID_NAMESPACE = uuid.UUID("6f1a3c52-6f0e-5d7b-9a51-0f0a4f0a0001")


def new_logical_id() -> str:
    """Return a new logical id (UUIDv7: time-ordered, so that index pages stay warm)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def new_trace_id() -> str:
    """Return a W3C trace id: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def derived_uuid(*parts: str) -> uuid.UUID:
    """UUIDv5 of the parts: the same input gives the same id on every replay."""
    return uuid.uuid5(_UID_NAMESPACE, "\x1f".join(parts))


def derived_uid(*parts: str) -> str:
    """DICOM UID under 2.25 derived from the parts (PS3.5 §B.2)."""
    return f"2.25.{derived_uuid(*parts).int}"
