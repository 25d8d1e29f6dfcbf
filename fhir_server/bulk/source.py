"""Read NDJSON input in batches of lines from a remembered place: plain or gzip, never more in memory than a batch."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError

_GZIP = b"\x1f\x8b"
_FIRST_LINES = 500
_GROWTH = 1.5
_SHARE = 3
"""The next batch is prepared while this one is written, and preparing a line is the quicker of the two."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two lines: bytes before it (after decompression) and lines before it."""

    offset: int = 0
    line: int = 0


BEGINNING = Place()


@dataclass(frozen=True, slots=True)
class LineLimits:
    """How much is read: lines and bytes of one batch, bytes of one line, bytes of the whole input decompressed.

    Batches begin small, so that the first is soon written, and grow up to `batch_lines`; towards the end they shrink
    again, as nobody prepares anything while the last one is written.
    """

    batch_lines: int
    batch_bytes: int
    line_bytes: int
    input_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines with their numbers (from 1), without empty ones; `end` is the place behind them.

    A line that is longer than allowed is None.
    """

    lines: list[tuple[int, bytes | None]]
    end: Place


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 when there is none, which reading it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def open_input(path: Path) -> BinaryIO:
    """Open a file; gzip is known by its first bytes.

    Raises
    ------
    InvalidRequestError
        It cannot be read.
    """
    try:
        file = path.open("rb")
        if file.read(2) == _GZIP:
            file.close()
            return cast(BinaryIO, gzip.open(path, "rb"))
        file.seek(0)
    except OSError as exc:
        raise InvalidRequestError("An input file cannot be read", issue_code="not-found") from exc
    return file


def batches(path: Path, start: Place, limits: LineLimits) -> Generator[Batch]:
    """Yield batches from a place to the end.

    Raises
    ------
    InvalidRequestError
        It cannot be read, or is not a whole gzip file.
    PayloadTooLargeError
        More bytes than allowed come out of it.
    """
    with open_input(path) as file:
        try:
            file.seek(start.offset)
            size = size_of(path) if isinstance(file, BufferedReader) else None
            yield from _batches(file, start, limits, size)
        except (OSError, EOFError, zlib.error) as exc:
            raise InvalidRequestError("An input file is broken or was cut off", issue_code="structure") from exc


def _batches(file: BinaryIO, start: Place, limits: LineLimits, total: int | None) -> Generator[Batch]:
    offset, number = start.offset, start.line
    most = min(_FIRST_LINES, limits.batch_lines)
    lines: list[tuple[int, bytes | None]] = []
    size = 0
    while line := file.readline(limits.line_bytes + 1):
        offset += len(line)
        number += 1
        if len(line) > limits.line_bytes and not line.endswith(b"\n"):
            offset += _skip(file, limits.line_bytes, limits.input_bytes - offset)
            lines.append((number, None))
        elif stripped := line.strip():
            lines.append((number, stripped))
            size += len(stripped)
        if offset > limits.input_bytes:
            raise PayloadTooLargeError(f"An input file holds more than {limits.input_bytes} bytes")
        if len(lines) >= most or size >= limits.batch_bytes:
            yield Batch(lines, Place(offset, number))
            lines, size = [], 0
            most = _next_most(most, limits.batch_lines, None if total is None else (total - offset) * number // offset)
    yield Batch(lines, Place(offset, number))


def _next_most(most: int, limit: int, left: int | None) -> int:
    """Lines of the next batch; `left` is about how many lines there still are, None when nobody knows."""
    grown = int(most * _GROWTH) + 1
    if left is not None:
        grown = min(grown, max(left // _SHARE, _FIRST_LINES))
    return min(grown, limit)


def _skip(file: BinaryIO, step: int, most: int) -> int:
    """Pass over the rest of a line, but not far beyond `most` bytes; returns how many were passed over."""
    skipped = 0
    while skipped <= most and (piece := file.readline(step)):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
