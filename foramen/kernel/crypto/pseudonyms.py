"""Pseudonyms of a project: ids, DICOM UIDs and shifts of dates by HMAC-SHA256 under the project's key. Pure.

The record's pseudonymised export and the de-identification of images both have to give one patient one pseudonym and
one shift: this is the construction they share (docs/api/pseudonymised-export.md). RFC 2104; DICOM PS3.5 B.2.
"""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256

MOST_DAYS = 365
_LETTERS = 26


class ProjectPseudonyms:
    """What replaces the identity of a project's patients; the same in every export, unlinkable without the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def pseudonym(self, resource_type: str, logical_id: str) -> str:
        """Id of a resource under this project: 26 letters and digits (130 bits)."""
        digest = self.digest("id", f"{resource_type}/{logical_id}")
        return base64.b32encode(digest).decode().lower()[:_LETTERS]

    def uid(self, uid: str) -> str:
        """DICOM UID under this project: 2.25 and a number of at most 128 bits."""
        return f"2.25.{int.from_bytes(self.digest('uid', uid)[:16], 'big')}"

    def shift_days(self, patient_id: str) -> int:
        """Days by which all dates of a patient move: 1 to 365, forward or back."""
        number = int.from_bytes(self.digest("shift", patient_id)[:8], "big")
        days = number // 2 % MOST_DAYS + 1
        return days if number % 2 else -days

    def digest(self, use: str, text: str) -> bytes:
        """32 bytes that only the key's holder can compute; each use has its own."""
        return hmac.new(self._key, f"{use}\x00{text}".encode(), sha256).digest()
