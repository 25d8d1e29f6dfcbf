"""Bytes that the images take on the disks, packed files as they lie, and what packing saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dicomweb.lifecycle.copies import packed_place, place
from foramen.kernel.errors import UpstreamError


@dataclass(frozen=True, slots=True)
class AtRest:
    """Bytes.

    Parameters
    ----------
    received : of everything in the archive, as it came
    files : how many are packed
    original, packed : of these, as they came and as they lie
    unpacked : copies of packed or offloaded files that were made to be read
    remote : of these and of files as they came, what lies in the bucket
    """

    received: int
    files: int = 0
    original: int = 0
    packed: int = 0
    unpacked: int = 0
    remote: int = 0

    @property
    def saved(self) -> int:
        """What packing saved."""
        return self.original - self.packed

    @property
    def stored(self) -> int:
        """What lies on the disks now."""
        return self.received - self.saved + self.unpacked - self.remote


def bytes_at_rest(connection: psycopg.Connection[Any], nearline: Path | None, received: int) -> AtRest:
    """Ask the nearline folder for the size of each packed file.

    Raises
    ------
    UpstreamError
        There are packed files and the folder, or one of them, is not there: its size would be a guess.
    """
    query = """SELECT attachment, size, packed_size, remote IS NOT DISTINCT FROM 'there' FROM dicomweb.nearline_file
        WHERE packed_size IS NOT NULL OR remote = 'there'"""
    files = original = packed = unpacked = remote = 0
    for name, size, packed_size, is_remote in connection.execute(query):
        if nearline is None:
            raise UpstreamError("There are compressed files, and no second folder is set")
        plain = place(nearline, name)
        unpacked += plain.stat().st_size if plain.exists() else 0
        if packed_size is not None:
            lies = packed_size if is_remote else _size(packed_place(nearline, name))
            files, original, packed = files + 1, original + int(size), packed + lies
        if is_remote:
            remote += int(size if packed_size is None else packed_size)
    return AtRest(received, files, original, packed, unpacked, remote)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as exc:
        raise UpstreamError("A compressed file cannot be read") from exc
