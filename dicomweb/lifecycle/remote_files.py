"""Moves files of the nearline folder into a bucket; what is read is brought back into the folder for a while.

Order: note that an upload begins; upload; read the object back and compare SHA-256 and size with what was noted when
the file came here; note that it is there; remove the file. Kill it between any two: one whole form is in the folder or,
noted, in the bucket; and what was begun is known, so that a deletion takes it along. ADR 0055
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from dicomweb.lifecycle.copies import AbsentError, ChecksumError, packed_place, place, sync
from dicomweb.lifecycle.turns import ONE_COMMAND, TURN, held
from foramen.kernel.errors import UpstreamError

if TYPE_CHECKING:  # Only who has a bucket loads its library.
    from dicomweb.lifecycle.bucket import Bucket

_ROW = """SELECT sha256, size, packed_sha256, packed_size, remote FROM dicomweb.nearline_file WHERE attachment = %s"""
_BEGUN = "UPDATE dicomweb.nearline_file SET remote = 'begun' WHERE attachment = %s"
_THERE = "UPDATE dicomweb.nearline_file SET remote = 'there' WHERE attachment = %s"
_LET_GO = "UPDATE dicomweb.nearline_file SET unpacked_at = NULL WHERE attachment = %s"


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a file that lies in a bucket, or would: its digest and size there."""

    packed: bool
    sha256: bytes
    size: int


def form_of(sha256: bytes, size: int, packed_sha256: bytes | None, packed_size: int | None) -> Form:
    """Return the form of a row of `nearline_file`: packed when it is packed."""
    if packed_sha256 is not None and packed_size is not None:
        return Form(True, bytes(packed_sha256), packed_size)
    return Form(False, bytes(sha256), size)


class RemoteFiles:
    """Files of the nearline folder that lie in a bucket.

    Parameters
    ----------
    nearline : the second folder, where readers find what is brought back
    """

    def __init__(self, connection: psycopg.Connection[Any], nearline: Path, bucket: Bucket) -> None:
        self._connection, self._nearline, self._bucket = connection, nearline.resolve(), bucket

    def offload(self, name: str) -> int:
        """Move a file into the bucket, or remove the copy of one that is there; returns the bytes that it frees.

        Raises
        ------
        UpstreamError
            Folder or bucket cannot be read or written.
        ChecksumError
            What came back from the bucket, or what lies in the folder, is not what was noted; nothing was removed.
        """
        try:
            with held(self._connection, ONE_COMMAND):
                return self._offload(name)
        except OSError as exc:
            raise UpstreamError("The storage folders cannot be read or written") from exc

    def _offload(self, name: str) -> int:
        row = self._connection.execute(_ROW, (name,)).fetchone()
        self._connection.commit()
        if row is None:
            return 0
        form, remote = form_of(*row[:4]), row[4]
        source = (packed_place if form.packed else place)(self._nearline, name)
        if remote != "there":
            if not source.exists():
                raise UpstreamError("A file of the second folder is not there")
            if not self._note(_BEGUN, name):
                return 0
            self._put(name, form, source)
            if remote == "begun":  # An upload was cut off, and perhaps of the other form.
                self._bucket.remove_form(name, packed=not form.packed)
        return self._let_go(name, new=remote != "there")

    def _put(self, name: str, form: Form, source: Path) -> None:
        key = self._bucket.key(name, packed=form.packed)
        self._bucket.put(key, source)
        try:
            found = self._bucket.digest(key)
        except AbsentError as exc:
            raise ChecksumError from exc
        if found != (form.sha256, form.size):
            self._bucket.remove_form(name, packed=form.packed)
            raise ChecksumError

    def _let_go(self, name: str, *, new: bool) -> int:
        freed = 0
        with held(self._connection, TURN):
            if self._connection.execute(_ROW, (name,)).fetchone() is None:
                self._connection.commit()
                self._bucket.remove(name)  # Deleted meanwhile: nothing of it may lie there.
                return 0
            if new:
                self._note(_THERE, name)
            for path in (place(self._nearline, name), packed_place(self._nearline, name)):
                if path.exists():
                    freed += path.stat().st_size
                    path.unlink()
                    sync(path.parent)
            self._note(_LET_GO, name)
        return freed

    def _note(self, statement: str, name: str) -> bool:
        changed = self._connection.execute(statement.encode(), (name,)).rowcount
        self._connection.commit()
        return changed == 1


def fetched(bucket: Bucket | None, name: str, form: Form, target: Path) -> None:
    """Bring a file back from the bucket as it lies there, compared.

    Raises
    ------
    UpstreamError
        There is no bucket set, or it cannot be read, or has lost the object.
    ChecksumError
        It is not what was put there.
    """
    if bucket is None:
        raise UpstreamError("Files lie in a bucket, and none is set")
    try:
        if bucket.fetch(bucket.key(name, packed=form.packed), target) != (form.sha256, form.size):
            raise ChecksumError
    except AbsentError as exc:
        raise UpstreamError("The bucket has lost a file") from exc
