"""NDJSON files of an export: written piece by piece, counted, split at a size, durable at each checkpoint.

A file's record says how many of its bytes count. What lies behind them was written after the last checkpoint of an
attempt that died (its successor writes files of its own) and is never served.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from fhir_server.store.bulk import QUOTE

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class NdjsonFiles:
    """The files of one kind and type that one attempt writes.

    Parameters
    ----------
    folder : of the job
    kind, resource_type : what the records say: output, deleted or error; the type in them
    limit_bytes : a file that reaches this size is followed by another
    """

    def __init__(self, folder: Path, kind: str, resource_type: str, limit_bytes: int) -> None:
        self._folder = folder
        self._kind = kind
        self._type = resource_type
        self._limit = limit_bytes
        self._file: BinaryIO | None = None
        self.records: list[dict[str, Any]] = []

    def write(self, piece: bytes) -> None:
        """Write lines, or a part of one that is followed by its rest."""
        while piece:
            room = self._limit - (self.records[-1]["bytes"] if self._file is not None else 0)
            end = piece.find(b"\n", max(room - 1, 0)) + 1 if len(piece) >= room else 0
            self._append(piece[:end] if end else piece)
            if not end:
                return
            self._close()
            piece = piece[end:]

    def _append(self, piece: bytes) -> None:
        if not piece:
            return
        file = self._file or self._open()
        file.write(piece)
        self.records[-1]["bytes"] += len(piece)
        self.records[-1]["count"] += piece.count(b"\n")

    def _open(self) -> BinaryIO:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Unguessable, and no attempt meets a file of another.
        name = f"{self._kind}-{self._type}-{secrets.token_hex(8)}.ndjson"
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 20)
        self.records.append({"kind": self._kind, "type": self._type, "name": name, "bytes": 0, "count": 0})
        return self._file

    def sync(self) -> None:
        """Return when everything written is on disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            sync_folder(self._folder)

    def _close(self) -> None:
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Finish the last file."""
        self._close()


def sync_folder(folder: Path) -> None:
    """Make the names of new files durable."""
    if folder.is_dir():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Unquoted:
    """Takes the QUOTE signs out of what COPY sends; it sets them around a value that holds a raw line break.

    A raw line break in JSON is white space between tokens (in a string it must be escaped), so a space is the same.
    """

    def __init__(self) -> None:
        self._inside = False

    def __call__(self, piece: bytes) -> bytes:
        """Return the next piece as plain lines."""
        if not self._inside and QUOTE not in piece:
            return piece
        parts = piece.split(QUOTE)
        for place in range(0 if self._inside else 1, len(parts), 2):
            parts[place] = parts[place].translate(_LINE_BREAKS)
        self._inside ^= len(parts) % 2 == 0
        return b"".join(parts)


class Changed:
    """Changes whole lines by a function, whatever the pieces they come in; a line that becomes None is left out."""

    def __init__(self, change: Callable[[bytes], bytes | None]) -> None:
        self._change = change
        self._rest = b""

    def __call__(self, piece: bytes) -> bytes:
        """Return the lines that are whole by now."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        changed = [found for line in lines if line and (found := self._change(line)) is not None]
        return b"\n".join(changed) + b"\n" if changed else b""
