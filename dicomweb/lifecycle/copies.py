"""Files that appear whole or not at all, and are compared as the disk gives them back. Names are Orthanc's (UUIDs)."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from foramen.kernel.errors import InteropError

_CHUNK = 1024 * 1024
PACKED = ".packed"


class ChecksumError(InteropError):
    """A copy is not what it was copied from; nothing was given up."""

    def __init__(self) -> None:
        super().__init__("A copy of a stored file differs from its original")


class AbsentError(Exception):
    """A bucket has no such object."""


def place(root: Path, name: str) -> Path:
    """Where a file lies below the archive's folder, and in the same way below the nearline one."""
    return root / name[:2] / name[2:4] / name


def packed_place(root: Path, name: str) -> Path:
    """Where the packed form of a file lies."""
    return place(root, name + PACKED)


def copied(source: Path, target: Path) -> tuple[bytes, int]:
    """Copy a file so that it appears whole, read the copy back, and return digest and size.

    Raises
    ------
    ChecksumError
        What was read back differs.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.part")
    reckoned, size = sha256(), 0
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with source.open("rb") as reading, os.fdopen(descriptor, "wb") as writing:
        while chunk := reading.read(_CHUNK):
            reckoned.update(chunk)
            writing.write(chunk)
            size += len(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    if digest(staged) != (reckoned.digest(), size):
        staged.unlink()
        raise ChecksumError
    staged.replace(target)
    sync(target.parent)
    return reckoned.digest(), size


def digest(path: Path) -> tuple[bytes, int]:
    """Return SHA-256 and size of a file."""
    reckoned, size = sha256(), 0
    with path.open("rb") as reading:
        # Ask the disk, not what was just written to memory.
        os.posix_fadvise(reading.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := reading.read(_CHUNK):
            reckoned.update(chunk)
            size += len(chunk)
    return reckoned.digest(), size


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_all(root: Path, name: str) -> None:
    """Remove every form of a file, what was being made of it included."""
    folder = place(root, name).parent
    for path in (place(root, name), packed_place(root, name), *folder.glob(f".{name}.*")):
        path.unlink(missing_ok=True)
