"""Files of the archive in a second, slower folder; in their place a link, so that every reader finds them at once.

Order of a move: copy, sync, read back and compare (SHA-256), note in the database, then put the link in the file's
place by one rename.
The original is given up by that rename alone: a crash before it leaves the original, after it the copy.
https://orthanc.uclouvain.be/book/faq/orthanc-storage.html (files are written once, at ab/cd/<uuid>); ADR 0039
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from dicomweb.lifecycle.codec import Codec
from dicomweb.lifecycle.copies import (
    AbsentError,
    ChecksumError,
    copied,
    digest,
    packed_place,
    place,
    remove_all,
    sync,
)
from dicomweb.lifecycle.remote_files import Form, fetched, form_of
from dicomweb.lifecycle.turns import TURN, held
from foramen.kernel.errors import UpstreamError

if TYPE_CHECKING:  # Only who has a bucket loads its library.
    from dicomweb.lifecycle.bucket import Bucket

_MOVED = """INSERT INTO dicomweb.nearline_file (attachment, study_instance_uid, size, sha256) VALUES (%s, %s, %s, %s)
    ON CONFLICT (attachment) DO UPDATE
    SET sha256 = EXCLUDED.sha256, form = 'plain', packed_size = NULL, packed_sha256 = NULL,
        unpacked_at = NULL, remote = CASE WHEN nearline_file.remote IS NOT NULL THEN 'begun' END"""
_FORMS = "SELECT sha256, size, packed_sha256, packed_size, remote FROM dicomweb.nearline_file WHERE attachment = %s"


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
    codec : brings packed files back; None: one that is only there packed cannot be recalled
    bucket : where files of the nearline folder may lie instead (ADR 0055)
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        online: Path,
        nearline: Path,
        codec: Codec | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        self._connection, self._online, self._nearline = connection, online.resolve(), nearline.resolve()
        self._codec, self._bucket = codec, bucket

    def move(self, attachment: Attachment) -> int:
        """Move a file to the nearline folder; returns its bytes, 0 when it is there already.

        Raises
        ------
        UpstreamError
            A folder cannot be read or written.
        ChecksumError
            The copy is broken.
        """
        with held(self._connection, TURN):
            return self._move(attachment)

    def _move(self, attachment: Attachment) -> int:
        source, target = place(self._online, attachment.name), place(self._nearline, attachment.name)
        try:
            if source.is_symlink():
                return 0
            reckoned, size = copied(source, target)
            self._connection.execute(_MOVED, (attachment.name, attachment.study_instance_uid, size, reckoned))
            self._connection.commit()
            link = source.with_name(f".{source.name}.link")
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            link.replace(source)
            sync(source.parent)
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
        with held(self._connection, TURN):
            return self._recall(name)

    def _recall(self, name: str) -> int:
        row = self._connection.execute(_FORMS, (name,)).fetchone()
        target = place(self._online, name)
        try:
            if row is None or not target.is_symlink():
                return 0
            staged = target.with_name(f".{name}.recall")
            reckoned, size = self._brought_back(name, staged, form_of(*row[:4]), remote=row[4] == "there")
            if reckoned != bytes(row[0]):
                staged.unlink()
                raise ChecksumError
            staged.replace(target)
            sync(target.parent)
            self._forget(name)
        except OSError as exc:
            raise UpstreamError("The storage folders cannot be read or written") from exc
        return size

    def _brought_back(self, name: str, staged: Path, form: Form, *, remote: bool) -> tuple[bytes, int]:
        """Write the file into the archive's folder, from its plain copy or else from its packed form."""
        source, packed = place(self._nearline, name), packed_place(self._nearline, name)
        brought = None
        if remote and not source.exists():
            brought = packed = staged.with_name(f".{name}.fetched")
            fetched(self._bucket, name, form, brought)
        try:
            if brought is not None and not form.packed:
                brought.replace(staged)
                return digest(staged)
            if source.exists() or self._codec is None or not packed.exists():
                return copied(source, staged)
            return self._unpacked(packed, staged)
        finally:
            if brought is not None:
                brought.unlink(missing_ok=True)

    def _unpacked(self, packed: Path, staged: Path) -> tuple[bytes, int]:
        if self._codec is None:
            raise UpstreamError("A compressed file cannot be brought back here")
        if not self._codec("unpack", packed, staged):
            staged.unlink(missing_ok=True)
            raise ChecksumError
        sync(staged)
        return digest(staged)

    def verify(self) -> Iterator[tuple[str, str]]:
        """Yield (name, fault) of each nearline file that is missing or was changed, as it lies there."""
        rows = self._connection.execute(
            "SELECT attachment, sha256, packed_sha256, size, packed_size, remote FROM dicomweb.nearline_file ORDER BY 1"
        ).fetchall()
        for name, plain, packed, size, packed_size, remote in rows:
            if remote == "there":
                fault = self._fault_in_bucket(name, form_of(plain, size, packed, packed_size))
                if fault:
                    yield str(name), fault
                continue
            file = place(self._nearline, name)
            forms = [(packed_place(self._nearline, name), packed)] if packed is not None else []
            if packed is None or file.exists():
                forms.append((file, plain))
            for path, expected in forms:
                try:
                    if digest(path)[0] != bytes(expected):
                        yield str(name), "changed"
                except FileNotFoundError:
                    yield str(name), "missing"

    def _fault_in_bucket(self, name: str, form: Form) -> str:
        if self._bucket is None:
            raise UpstreamError("Files lie in a bucket, and none is set")
        try:
            found = self._bucket.digest(self._bucket.key(name, packed=form.packed))
        except AbsentError:
            return "missing"
        return "" if found == (form.sha256, form.size) else "changed"

    def sweep(self, study: str | None = None) -> int:
        """Remove copies that nothing links to: the archive deleted the study, or a crash left a copy beside its file.

        Parameters
        ----------
        study : only copies of its files; None: all

        Returns how many.

        Raises
        ------
        UpstreamError
            A folder is not there: then everything would seem to be deleted.
        """
        if not self._online.is_dir() or not self._nearline.is_dir():
            raise UpstreamError("The storage folders cannot be read")
        rows = self._connection.execute(
            "SELECT attachment FROM dicomweb.nearline_file"
            " WHERE %(study)s::text IS NULL OR study_instance_uid = %(study)s",
            {"study": study},
        ).fetchall()
        removed = 0
        for (name,) in rows:
            with held(self._connection, TURN):
                if not place(self._online, name).is_symlink():
                    self._forget(name)
                    removed += 1
        return removed

    def _forget(self, name: str) -> None:
        row = self._connection.execute(_FORMS, (name,)).fetchone()
        if row is not None and row[4] is not None:  # There, or begun: then there may be something, too.
            if self._bucket is None:
                raise UpstreamError("Files lie in a bucket, and none is set")
            self._bucket.remove(name)
        remove_all(self._nearline, name)
        self._connection.execute("DELETE FROM dicomweb.nearline_file WHERE attachment = %s", (name,))
        self._connection.commit()
