"""multipart/related in both directions, streaming (RFC 2046 §5.1, RFC 2387; DICOM PS3.18 §8.6.1).

A body is received into one spool, in memory while small and an unnamed temporary file beyond: ten thousand parts cost
no more memory and no more open files than one.
"""

from __future__ import annotations

import bisect
import io
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import IO, Any, cast

from python_multipart.multipart import parse_options_header

from dicomweb.part_splitter import LongHeadersError, MalformedPartsError, PartSplitter
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaTypeError

_SPOOL_BYTES = 32 * 1024 * 1024
_MOST_PARTS = 20_000
_MOST_HEADER_BYTES = 16 * 1024


class Spool:
    """What a request sent, once: written at its end, read anywhere, by several threads at once."""

    def __init__(self, memory_bytes: int = _SPOOL_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._pieces: list[memoryview] = []
        self._starts: list[int] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append what nobody changes any more; beyond the memory it may take, everything goes to a temporary file.

        In memory it is kept as it is, not copied: the pages for a copy of each image cost as much as to look at it.

        Raises
        ------
        OSError
            The disk is full.
        """
        if self._file is None and self.size + len(data) > self._memory_bytes:
            # Closed by `close`. Unbuffered: what was written can be read through the descriptor at once.
            self._file = cast(IO[bytes], tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
            for piece in self._pieces:
                self._write_whole(piece)
            self._pieces, self._starts = [], []
        if self._file is not None:
            self._write_whole(memoryview(data))
        elif data:
            self._pieces.append(memoryview(data))
            self._starts.append(self.size)
        self.size += len(data)

    def _write_whole(self, data: memoryview) -> None:
        assert self._file is not None  # noqa: S101
        while data:
            data = data[self._file.write(data) :]

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from an offset, fewer only at the end."""
        if self._file is None:
            return b"".join(self.pieces_at(offset, size))
        return os.pread(self._file.fileno(), size, offset)

    def pieces_at(self, offset: int, size: int) -> list[memoryview]:
        """Return the same as `read_at` in pieces, not copied where they are in memory."""
        if self._file is not None:
            return [memoryview(self.read_at(offset, size))]
        found, end = [], min(offset + size, self.size)
        number = max(0, bisect.bisect_right(self._starts, offset) - 1)
        while offset < end:
            start, piece = self._starts[number], self._pieces[number]
            found.append(piece[offset - start : end - start])
            offset, number = start + len(piece), number + 1
        return found

    def close(self) -> None:
        """Release memory and file."""
        self._pieces, self._starts = [], []
        if self._file is not None:
            self._file.close()


class Slice(io.RawIOBase):
    """A stretch of a spool as a file of its own; each has its own position."""

    def __init__(self, spool: Spool, start: int, size: int) -> None:
        super().__init__()
        self._spool, self._start, self._size, self._position = spool, start, size, 0

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought: yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, never before the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes; what a lying length asks for beyond the end is never allocated."""
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._spool.read_at(self._start + self._position, wanted) if wanted else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@dataclass(slots=True)
class Part:
    """One received part: a stretch of the request's spool."""

    spool: Spool
    start: int
    size: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> IO[bytes]:
        """The content as a file of its own, at its beginning."""
        return cast(IO[bytes], Slice(self.spool, self.start, self.size))

    @property
    def content(self) -> bytes:
        """The whole content."""
        return self.spool.read_at(self.start, self.size)

    def head(self, size: int) -> bytes:
        """Return the first bytes of the content, at most `size`."""
        return self.spool.read_at(self.start, min(size, self.size))

    @property
    def pieces(self) -> list[memoryview]:
        """The whole content in pieces, not copied where they are in memory."""
        return self.spool.pieces_at(self.start, self.size)

    @property
    def media_type(self) -> str:
        """Media type of the part, empty when it has none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def transfer_syntax(self) -> str:
        """`transfer-syntax` parameter of the part's Content-Type (PS3.18 §8.7.3.5.2), empty when it has none."""
        _, options = parse_options_header(self.headers.get("content-type", ""))
        return options.get(b"transfer-syntax", b"").decode("latin-1").strip()


def new_boundary() -> str:
    """Return a boundary that no body contains."""
    return f"foramen-{secrets.token_hex(16)}"


def part_head(boundary: str, headers: dict[str, str]) -> bytes:
    """Opening of one part: delimiter and headers."""
    lines = [f"\r\n--{boundary}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("ascii")


def closing(boundary: str) -> bytes:
    """End of the body."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")


def boundary_of(content_type: str) -> tuple[str, bytes]:
    """Return (`type` parameter, boundary) of a multipart/related Content-Type.

    Raises
    ------
    UnsupportedMediaTypeError
        Another media type.
    InvalidRequestError
        No usable boundary.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/related":
        raise UnsupportedMediaTypeError("The body must be multipart/related or application/dicom")
    boundary = options.get(b"boundary", b"")
    if not re.fullmatch(rb"[0-9A-Za-z'()+_,\-./:=? ]{1,256}", boundary):
        raise InvalidRequestError("The Content-Type has no usable boundary")
    return options.get(b"type", b"").decode("latin-1").lower(), boundary


class _Collector:
    """Takes what the splitter finds: one `Part` after the other, their content in the spool."""

    def __init__(self, spool: Spool, whole: Callable[[Part], None] | None) -> None:
        self.parts: list[Part] = []
        self._spool, self._whole = spool, whole

    def begin(self, headers: dict[str, str]) -> None:
        """Open the next part.

        Raises
        ------
        PayloadTooLargeError
            Too many.
        """
        if len(self.parts) >= _MOST_PARTS:
            raise PayloadTooLargeError(f"More than {_MOST_PARTS} parts")
        if self.parts and self._whole is not None:
            self._whole(self.parts[-1])
        self.parts.append(Part(self._spool, self._spool.size, headers=headers))

    def data(self, view: memoryview) -> None:
        """Append to the open part."""
        self._spool.write(view)
        self.parts[-1].size += len(view)


async def read_parts(
    stream: AsyncIterator[bytes],
    boundary: bytes,
    limit_bytes: int,
    spool: Spool,
    whole: Callable[[Part], None] | None = None,
) -> list[Part]:
    """Receive a whole multipart body before anything is done with it: a malformed one changes nothing.

    Parameters
    ----------
    whole : told of each part but the last when it has come to its end; what follows may still be malformed

    Raises
    ------
    InvalidRequestError
        Not multipart, empty or cut off before its closing delimiter.
    PayloadTooLargeError
        Longer than `limit_bytes`, too many parts, or a part's headers are too long.
    """
    collector = _Collector(spool, whole)
    splitter = PartSplitter(boundary, collector.begin, collector.data, _MOST_HEADER_BYTES)
    received = 0
    try:
        async for chunk in stream:
            received += len(chunk)
            if received > limit_bytes:
                raise PayloadTooLargeError(f"The body is larger than {limit_bytes} bytes")
            splitter.feed(chunk)
    except MalformedPartsError as exc:
        raise InvalidRequestError("The multipart body is malformed") from exc
    except LongHeadersError as exc:
        raise PayloadTooLargeError(f"The headers of a part are longer than {_MOST_HEADER_BYTES} bytes") from exc
    if not splitter.ended:
        raise InvalidRequestError("The multipart body ends before its closing delimiter")
    return collector.parts
