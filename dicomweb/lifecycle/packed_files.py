"""Packs files of the nearline folder, and lets the plain copy go only for a form that gave the original back.

Order: pack into a staged file, sync; unpack that into another one and compare SHA-256 and size with what was noted when
the original came here; rename; note; remove the plain copy. The link in the archive's folder stays as it is: it names
the plain copy, which is made again when it is read (`unpacking.py`). Kill it between any two: one whole form is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dicomweb.lifecycle.codec import Codec
from dicomweb.lifecycle.copies import ChecksumError, digest, packed_place, place, sync
from dicomweb.lifecycle.turns import ONE_COMMAND, TURN, held
from foramen.kernel.errors import UpstreamError

_WORTH = 0.95
"""A packed form larger than this part of the file is not kept."""
_ROW = """SELECT sha256, size, form, packed_sha256, remote FROM dicomweb.nearline_file WHERE attachment = %s"""
_PACKED = """UPDATE dicomweb.nearline_file SET form = %s, packed_size = %s, packed_sha256 = %s WHERE attachment = %s"""

_LET_GO = "UPDATE dicomweb.nearline_file SET unpacked_at = NULL WHERE attachment = %s"


@dataclass(frozen=True, slots=True)
class Packed:
    """What became of one file: bytes that its removal freed; `kept` when it stays as it is."""

    freed: int
    kept: bool = False


class PackedFiles:
    """Files of the nearline folder in packed form.

    Parameters
    ----------
    nearline : the second folder
    """

    def __init__(self, connection: psycopg.Connection[Any], nearline: Path, codec: Codec) -> None:
        self._connection, self._nearline, self._codec = connection, nearline.resolve(), codec

    def pack(self, name: str) -> Packed:
        """Pack a file, or let the plain copy go that was made of a packed one to be read.

        Raises
        ------
        UpstreamError
            The folder cannot be read or written.
        ChecksumError
            The nearline file is not what was moved; nothing was removed.
        """
        try:
            with held(self._connection, ONE_COMMAND):
                return self._pack(name)
        except OSError as exc:
            raise UpstreamError("The storage folders cannot be read or written") from exc

    def _pack(self, name: str) -> Packed:
        row = self._connection.execute(_ROW, (name,)).fetchone()
        self._connection.commit()
        plain = place(self._nearline, name)
        if row is None or row[4] == "there":  # In the bucket it stays as it is; `offload` lets copies go.
            return Packed(0)
        if not plain.exists():
            self._connection.execute(_LET_GO, (name,))
            self._connection.commit()
            return Packed(0)
        expected, size, form, packed_digest = bytes(row[0]), int(row[1]), str(row[2]), row[3]
        if form == "incompressible":
            return Packed(0, kept=True)
        if form != "plain":
            return self._let_go(name, bytes(packed_digest))
        staged, again = (plain.with_name(f".{name}.{end}") for end in ("packing", "unpacked"))
        try:
            codec = self._codec("pack", plain, staged)
            if not codec or staged.stat().st_size > size * _WORTH:
                return self._stays(name)
            sync(staged)
            reckoned, packed_size = digest(staged)
            given_back = bool(self._codec("unpack", staged, again)) and digest(again) == (expected, size)
            if not given_back and digest(plain) != (expected, size):
                raise ChecksumError
            if not given_back:
                return self._stays(name)
            with held(self._connection, TURN):
                if self._connection.execute(_ROW, (name,)).fetchone() is None:
                    return Packed(0)  # Deleted or recalled meanwhile: nothing of it may lie here.
                staged.replace(packed_place(self._nearline, name))
                sync(plain.parent)
                self._note(name, codec, packed_size, reckoned)
        finally:
            for path in (staged, again):
                path.unlink(missing_ok=True)
        return self._let_go(name, reckoned)

    def _stays(self, name: str) -> Packed:
        self._note(name, "incompressible", None, None)
        return Packed(0, kept=True)

    def _note(self, name: str, form: str, size: int | None, reckoned: bytes | None) -> None:
        self._connection.execute(_PACKED, (form, size, reckoned, name))
        self._connection.commit()

    def _let_go(self, name: str, expected: bytes) -> Packed:
        """Remove the plain copy, unless the packed form is not what it was.

        Raises
        ------
        ChecksumError
            It is not: then the plain copy stays.
        """
        plain, packed = place(self._nearline, name), packed_place(self._nearline, name)
        with held(self._connection, TURN):
            if not packed.exists() or digest(packed)[0] != expected:
                raise ChecksumError
            freed = plain.stat().st_size - packed.stat().st_size
            plain.unlink()
            sync(plain.parent)
            self._connection.execute(_LET_GO, (name,))
            self._connection.commit()
        return Packed(freed)
