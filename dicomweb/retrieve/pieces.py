"""A body as pieces: bytes we made, and stretches of files. Its length is known before the first byte is read.

RFC 9110 §14 (ranges are cut out of the pieces, so nothing outside a range is read).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 2 * 1024 * 1024
_INLINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A stretch of a file, in bytes; `whole` when it is all of it."""

    path: Path
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


def read_now(pieces: Sequence[Piece]) -> bytes | None:
    """Return a small body when all of it lies in memory already; None: ask a thread, for a disk may be slow."""
    if total(pieces) > _INLINE_BYTES:
        return None
    parts: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            parts.append(piece)
            continue
        buffer = bytearray(piece.length)
        try:
            descriptor = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.preadv(descriptor, [buffer], piece.offset, os.RWF_NOWAIT) != piece.length:
                    return None
            finally:
                os.close(descriptor)
        except OSError:  # Not in memory, or a file system that cannot say.
            return None
        parts.append(bytes(buffer))
    return parts[0] if len(parts) == 1 else b"".join(parts)


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


def _chunks(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Group pieces into chunks of about two megabytes."""
    groups: list[list[Piece]] = []
    group: list[Piece] = []
    size = 0
    for whole in pieces:
        start, length = 0, size_of(whole)
        while start < length:
            step = min(length - start, CHUNK_BYTES - size)
            group += cut([whole], start, start + step - 1)
            start, size = start + step, size + step
            if size >= CHUNK_BYTES:
                groups.append(group)
                group, size = [], 0
    return [*groups, group] if group else groups


async def stream(pieces: Sequence[Piece]) -> AsyncIterator[bytes]:
    """Read a body chunk by chunk, one chunk ahead, in constant memory."""
    groups = iter(_chunks(pieces))
    ahead: asyncio.Task[bytes] | None = None
    try:
        for group in groups:
            following = asyncio.create_task(asyncio.to_thread(read, group))
            if ahead is not None:
                content = await ahead
                ahead = following
                yield content
            else:
                ahead = following
        if ahead is not None:
            yield await ahead
            ahead = None
    finally:
        if ahead is not None:
            ahead.cancel()
