"""One instance while it is received by C-STORE: in memory while small, then a file of ours; a full disk is remembered.

pynetdicom writes a data set to a temporary file and ends the association when that fails. A sender shall hear A700H
instead, and a slice of half a megabyte need not become a file at all. DICOM PS3.4 §B.2.3, PS3.10 §7.1.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

from pynetdicom import dimse_messages

from dicomweb.dimse.passing_on import LARGEST_BYTES, PassingOn

_MEMORY_BYTES = LARGEST_BYTES
"""Up to here in memory; larger ones are files, so that many associations at once do not fill the memory."""
_CHUNK_BYTES = 256 * 1024


class ReceivedFile:
    """In the place of pynetdicom's `NamedTemporaryFile`: it writes, flushes `file`, closes, and removes by `name`."""

    def __init__(self, **_: Any) -> None:
        self.failed = False
        """Whether the disk could not take it: then it is not whole."""
        self.size = 0
        self.name = ""
        self.passing_on: PassingOn | None = None
        """Takes what comes on to the archive already."""
        self._pieces: list[bytes | memoryview] = []
        self._file: IO[bytes] | None = None

    @property
    def file(self) -> ReceivedFile:
        """What pynetdicom flushes."""
        return self

    def write(self, data: bytes | memoryview) -> int:
        """Append; never raises: what cannot be kept is dropped, as the sender is not told before it has sent all."""
        self.size += len(data)
        if self.failed:
            return len(data)
        try:
            if self._file is None and self.size <= _MEMORY_BYTES:
                self._pieces.append(data)  # as it is: nobody else changes it, and it is copied once, when it is read
            else:
                self._spill()
                _write_whole(cast(IO[bytes], self._file), memoryview(data))
        except OSError:
            self.failed = True
            self.discard()
        if self.passing_on is not None:
            self.passing_on.take(data)
        return len(data)

    def _spill(self) -> None:
        if self._file is not None:
            return
        # Removed by `discard`. Unbuffered: a full disk is noticed here, not when it is closed.
        self._file = cast(IO[bytes], tempfile.NamedTemporaryFile(delete=False, suffix=".dcm", buffering=0))  # noqa: SIM115
        self.name = self._file.name
        for piece in self._pieces:
            _write_whole(self._file, memoryview(piece))
        self._pieces = []

    def flush(self) -> None:
        """Nothing: nothing is buffered."""

    def close(self) -> None:
        """Nothing: it is read after pynetdicom has closed it; `discard` ends it."""

    def content(self) -> bytes:
        """All of it.

        Raises
        ------
        OSError
            It cannot be read.
        """
        return Path(self.name).read_bytes() if self.name else b"".join(self._pieces)

    def open(self) -> IO[bytes]:
        """Open it for reading, from its beginning."""
        return Path(self.name).open("rb") if self.name else BytesIO(b"".join(self._pieces))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield it in pieces."""
        with self.open() as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def discard(self) -> None:
        """Release memory and file; may be called again."""
        if self.passing_on is not None:
            self.passing_on.break_off()
        self._pieces = []
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        if self.name:
            Path(self.name).unlink(missing_ok=True)


def _write_whole(file: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def received_file(request: Any) -> ReceivedFile:
    """Return what a C-STORE request brought."""
    found = request._dataset_file
    assert isinstance(found, ReceivedFile)  # noqa: S101  `receive_into` has seen to it
    return found


def receive_into(folder: Path) -> None:
    """Let what is received lie in a folder of ours, which begins empty: these are people's images."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        left.unlink(missing_ok=True)
    tempfile.tempdir = str(folder)
    dimse_messages.NamedTemporaryFile = ReceivedFile
