"""Files of the archive in a second, slower folder; in their place a link, so that every reader finds them at once.

Order of a move: copy, sync, read back and compare (SHA-256), note in the database, then put the link in the file's
place by one rename.
The original is given up by that rename alone: a crash before it leaves the original, after it the copy.
https://orthanc.uclouvain.be/book/faq/orthanc-storage.html (files are written once, at ab/cd/<uuid>); ADR 0039
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from foramen.kernel.errors import InteropError, UpstreamError

_CHUNK = 1024 * 1024
_LOCK = 0x666F72616D656E02  # advisory lock: moves, recalls and sweeps of one installation take turns, file by file


class ChecksumError(InteropError):
    """A copy is not what it was copied from; nothing was given up."""

    def __init__(self) -> None:
        super().__init__("A copy of a stored file differs from its original")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of the archive by its name there (a UUID)."""

    name: str
    study_instance_uid: str


class Nearline:
    """Moves files between the archive's folder and the nearline one.

    Parameters
    ----------
    online : Orthanc's StorageDirectory
    nearline : the second folder; it may be another disk or a mounted bucket
    """

    def __init__(self, connection: psycopg.Connection[Any], online: Path, nearline: Path) -> None:
        self._connection, self._online, self._nearline = connection, online.resolve(), nearline.resolve()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        self._connection.commit()
        try:
            yield
        finally:
            self._connection.rollback()
            self._connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
            self._connection.commit()

    def _place(self, root: Path, name: str) -> Path:
        return root / name[:2] / name[2:4] / name

    def move(self, attachment: Attachment) -> int:
        """Move a file to the nearline folder; returns its bytes, 0 when it is there already.

        Raises
        ------
        UpstreamError
            A folder cannot be read or written.
        ChecksumError
            The copy is broken.
        """
        with self._turn():
            return self._move(attachment)

    def _move(self, attachment: Attachment) -> int:
        source, target = self._place(self._online, attachment.name), self._place(self._nearline, attachment.name)
        try:
            if source.is_symlink():
                return 0
            digest, size = _copied(source, target)
            self._connection.execute(
                "INSERT INTO dicomweb.nearline_file (attachment, study_instance_uid, size, sha256)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (attachment) DO UPDATE SET sha256 = EXCLUDED.sha256",
                (attachment.name, attachment.study_instance_uid, size, digest),
            )
            self._connection.commit()
            link = source.with_name(f".{source.name}.link")
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            link.replace(source)
            _sync_folder(source.parent)
        except OSError as exc:
            raise UpstreamError("The storage folders cannot be read or written") from exc
        return size

    def recall(self, name: str) -> int:
        """Bring a file back; returns its bytes, 0 when it is online.

        Raises
        ------
        UpstreamError
            A folder cannot be read or written: whether the file is there cannot be told now.
        ChecksumError
            The nearline file is not what was moved.
        """
        with self._turn():
            return self._recall(name)

    def _recall(self, name: str) -> int:
        row = self._connection.execute(
            "SELECT sha256 FROM dicomweb.nearline_file WHERE attachment = %s", (name,)
        ).fetchone()
        target, source = self._place(self._online, name), self._place(self._nearline, name)
        try:
            if row is None or not target.is_symlink():
                return 0
            staged = target.with_name(f".{name}.recall")
            digest, size = _copied(source, staged)
            if digest != bytes(row[0]):
                staged.unlink()
                raise ChecksumError
            staged.replace(target)
            _sync_folder(target.parent)
            self._forget(name)
        except OSError as exc:
            raise UpstreamError("The storage folders cannot be read or written") from exc
        return size

    def verify(self) -> Iterator[tuple[str, str]]:
        """Yield (name, fault) of each nearline file that is missing or was changed."""
        rows = self._connection.execute("SELECT attachment, sha256 FROM dicomweb.nearline_file ORDER BY 1").fetchall()
        for name, digest in rows:
            try:
                if _digest(self._place(self._nearline, name))[0] != bytes(digest):
                    yield str(name), "changed"
            except FileNotFoundError:
                yield str(name), "missing"

    def sweep(self) -> int:
        """Remove copies that nothing links to: the archive deleted the study, or a crash left a copy beside its file.

        Returns how many.

        Raises
        ------
        UpstreamError
            A folder is not there: then everything would seem to be deleted.
        """
        if not self._online.is_dir() or not self._nearline.is_dir():
            raise UpstreamError("The storage folders cannot be read")
        rows = self._connection.execute("SELECT attachment FROM dicomweb.nearline_file").fetchall()
        removed = 0
        for (name,) in rows:
            with self._turn():
                if not self._place(self._online, name).is_symlink():
                    self._forget(name)
                    removed += 1
        return removed

    def _forget(self, name: str) -> None:
        self._place(self._nearline, name).unlink(missing_ok=True)
        self._connection.execute("DELETE FROM dicomweb.nearline_file WHERE attachment = %s", (name,))
        self._connection.commit()


def _copied(source: Path, target: Path) -> tuple[bytes, int]:
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
    if _digest(staged) != (reckoned.digest(), size):
        staged.unlink()
        raise ChecksumError
    staged.replace(target)
    _sync_folder(target.parent)
    return reckoned.digest(), size


def _digest(path: Path) -> tuple[bytes, int]:
    reckoned, size = sha256(), 0
    with path.open("rb") as reading:
        # Ask the disk, not what was just written to memory.
        os.posix_fadvise(reading.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := reading.read(_CHUNK):
            reckoned.update(chunk)
            size += len(chunk)
    return reckoned.digest(), size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
