"""What an archive has acknowledged, so that a broken-off ingest goes on where it stopped. Hashes only, no names."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Self


class Journal:
    """A small file under FORAMEN_HOME, one per destination's key space."""

    def __init__(self, home: Path, destination: str) -> None:
        folder = home / "ingest"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._destination = destination
        self._connection = sqlite3.connect(folder / "journal.sqlite3", timeout=30)
        with self._connection:
            self._connection.execute("CREATE TABLE IF NOT EXISTS acknowledged (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def key(self, content: bytes) -> str:
        """Name of some content at this destination."""
        return hashlib.sha256(self._destination.encode() + b"\x00" + content).hexdigest()

    def has(self, key: str) -> bool:
        """Whether the archive acknowledged it before."""
        return self._connection.execute("SELECT 1 FROM acknowledged WHERE key = ?", (key,)).fetchone() is not None

    def add(self, key: str) -> None:
        """Remember an acknowledgement; on return it is on disk."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO acknowledged VALUES (?)", (key,))
