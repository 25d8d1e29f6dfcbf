"""Bodies of pieces: the same bytes whether a file lies in memory or a thread reads it, a chunk at a time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from dicomweb.retrieve import pieces
from dicomweb.retrieve.pieces import MOST_CHUNK_BYTES, FileSpan, Piece, read_spans_now, stream


@pytest.mark.parametrize("cached", ["all", "none", "every second"])
async def test_a_stream_holds_every_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: str) -> None:
    body: list[Piece] = []
    expected = b""
    for number, size in enumerate((0, 10, 600_000, 5, 3_000_000, MOST_CHUNK_BYTES, 1)):
        path, content = tmp_path / str(number), os.urandom(size)
        path.write_bytes(b"before" + content + b"after")
        body += [b"head %d" % number, FileSpan(path, 6, size)]
        expected += b"head %d" % number + content
    really, asked = pieces.read_now, 0

    def sometimes(group: list[Piece], length: int) -> bytearray | None:
        nonlocal asked
        asked += 1
        return None if cached == "none" or (cached != "all" and asked % 2) else really(group, length)

    monkeypatch.setattr(pieces, "read_now", sometimes)
    chunks = [bytes(chunk) async for chunk in stream(body)]
    assert b"".join(chunks) == expected
    assert max(map(len, chunks)) <= MOST_CHUNK_BYTES
    assert asked > 0


async def test_a_stream_from_memory_lets_others_have_their_turn(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * MOST_CHUNK_BYTES))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async for _ in stream([FileSpan(path, 0, 4 * MOST_CHUNK_BYTES)]):
        pass
    task.cancel()
    assert turns >= 4


def test_what_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_spans_now(str(path), [(2, 3), (8, 2)], b"<", b">") == b"<23489>"
    assert read_spans_now(str(path), [(8, 3)], b"<", b">") is None
    assert read_spans_now(str(tmp_path / "gone"), [(0, 1)], b"", b"") is None
