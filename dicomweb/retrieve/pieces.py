"""A body as pieces: bytes we made, and stretches of files. Its length is known before the first byte is read.

RFC 9110 §14 (ranges are cut out of the pieces, so nothing outside a range is read).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

CHUNK_BYTES, MOST_CHUNK_BYTES = 512 * 1024, 1024 * 1024
"""Of what is read and sent at once: what fits the processor's cache is not fetched from memory again and again."""
_INLINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A stretch of a file, in bytes; `whole` when it is all of it."""

    path: Path | str
    offset: int
    length: int
    whole: bool = False


Piece = bytes | FileSpan


def size_of(piece: Piece) -> int:
    """Length of a piece in bytes."""
    return len(piece) if isinstance(piece, bytes) else piece.length


def total(pieces: Sequence[Piece]) -> int:
    """Length of a body in bytes."""
    return sum(map(size_of, pieces))


def cut(pieces: Sequence[Piece], first: int, last: int) -> list[Piece]:
    """Bytes `first` to `last` (inclusive, from 0) of a body."""
    found: list[Piece] = []
    position = 0
    for piece in pieces:
        size = size_of(piece)
        start, end = max(first - position, 0), min(last + 1 - position, size)
        if start < end:
            if isinstance(piece, bytes):
                found.append(piece[start:end])
            else:
                found.append(FileSpan(piece.path, piece.offset + start, end - start))
        position += size
    return found


def is_small(length: int) -> bool:
    """Whether a body may lie in memory as one."""
    return length <= _INLINE_BYTES


def read_now(pieces: Sequence[Piece], length: int) -> bytearray | None:
    """Return a body of `length` bytes when it lies in the page cache; None: ask a thread, for a disk may be slow.

    What is read lands where it is sent from: half a megabyte copied once more costs as much as all the rest.
    """
    body = bytearray(length)
    position = 0
    view = memoryview(body)
    for piece in pieces:
        end = position + size_of(piece)
        if isinstance(piece, bytes):
            view[position:end] = piece
        elif not _read_cached(piece, view[position:end]):
            return None
        position = end
    return body


def read_spans_now(
    path: str, spans: Sequence[tuple[int, int]], head: bytes, tail: bytes, body: bytearray | None = None
) -> bytearray | None:
    """Return `head`, stretches (offset, length) of one file and `tail`; None unless all is in the page cache.

    Parameters
    ----------
    body : what nobody holds any more, to be filled instead of new memory; its content is lost
    """
    position = len(head)
    length = position + sum(size for _, size in spans) + len(tail)
    if body is None:
        body = bytearray(length)
    elif len(body) > length:
        del body[length:]
    elif len(body) < length:
        body.extend(bytes(length - len(body)))
    view = memoryview(body)
    view[:position], view[length - len(tail) :] = head, tail
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for offset, size in spans:
                if os.preadv(descriptor, [view[position : position + size]], offset, os.RWF_NOWAIT) != size:
                    return None
                position += size
        finally:
            os.close(descriptor)
    except OSError:  # Not in memory, or a file system that cannot say; or packed, or gone.
        return None
    return body


def _read_cached(piece: FileSpan, target: memoryview) -> bool:
    """Fill `target` from the page cache; whether all of it was there."""
    try:
        descriptor = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.preadv(descriptor, [target], piece.offset, os.RWF_NOWAIT) == piece.length
        finally:
            os.close(descriptor)
    except OSError:  # Not in memory, or a file system that cannot say.
        return False


def read(pieces: Sequence[Piece]) -> bytes:
    """Read pieces.

    Raises
    ------
    OSError
        A file is gone or shorter than it was.
    """
    parts = []
    for piece in pieces:
        if isinstance(piece, bytes):
            parts.append(piece)
            continue
        descriptor = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.pread(descriptor, piece.length, piece.offset)
        finally:
            os.close(descriptor)
        if len(content) != piece.length:
            raise OSError("a stored file is shorter than it was")
        parts.append(content)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _chunks(pieces: Sequence[Piece]) -> Iterator[tuple[list[Piece], int]]:
    """Yield pieces in chunks, and the bytes of each: whole files where they are of about a chunk's size."""
    group: list[Piece] = []
    size = 0
    for whole in pieces:
        start, length = 0, size_of(whole)
        while start < length:
            step = min(length - start, MOST_CHUNK_BYTES - size)
            group += [whole] if step == length else cut([whole], start, start + step - 1)
            start, size = start + step, size + step
            if size >= CHUNK_BYTES:
                yield group, size
                group, size = [], 0
    if group:
        yield group, size


async def stream(pieces: Sequence[Piece]) -> AsyncIterator[bytes]:
    """Read a body chunk by chunk, in constant memory.

    What lies in the page cache is read at once, as a thread would cost more than the reading; others get their turn in
    between. A disk may be slow: then a thread reads, one chunk ahead, for as long as that takes longer than sending.
    """
    ahead: asyncio.Task[bytes] | None = None
    chunks = _chunks(pieces)
    current = next(chunks, None)
    try:
        while current is not None:
            content: bytes | bytearray | None = None
            slow = False
            if ahead is not None:
                slow = not ahead.done()
                content, ahead = await ahead, None
            else:
                await asyncio.sleep(0)
                content = read_now(*current)
                if content is None:
                    content, slow = await asyncio.to_thread(read, current[0]), True
            current = next(chunks, None)
            if slow and current is not None:
                ahead = asyncio.create_task(asyncio.to_thread(read, current[0]))
            # Perhaps a bytearray: whoever takes it writes or sends it, and copies it less often.
            yield cast(bytes, content)
    finally:
        if ahead is not None:
            ahead.cancel()
