"""Batches of lines: every line once, from any place on, plain or gzip."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from fhir_server.bulk.source import BEGINNING, LineLimits, batches
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError

LIMITS = LineLimits(batch_lines=3, batch_bytes=1000, line_bytes=50, input_bytes=100_000)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n", b"\n\n\n"])
def test_every_line_once_from_any_batch_on(tmp_path: Path, packed: bool, last: bytes) -> None:
    lines = [b"line %d" % n for n in range(20)]
    text = b"\xef\xbb\xbf"[:0] + b"\n".join(lines[:5]) + b"\r\n\n  \n" + b"\n".join(lines[5:]) + last
    path = tmp_path / "input"
    path.write_bytes(gzip.compress(text) if packed else text)
    all_batches = list(batches(path, BEGINNING, LIMITS))
    found = [line for batch in all_batches for line in batch.lines]
    assert [line for _, line in found] == lines
    numbers = {line: number for number, line in enumerate(text.splitlines(), start=1)}
    assert [number for number, _ in found] == [numbers[line] for line in lines]
    for done, batch in enumerate(all_batches):
        rest = [line for later in batches(path, batch.end, LIMITS) for line in later.lines]
        assert rest == [line for later in all_batches[done + 1 :] for line in later.lines]


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"one\n" + b"x" * 500 + b"\ntwo\n" + b"y" * 49 + b"\n" + b"z" * 51)
    found = [line for batch in batches(path, BEGINNING, LIMITS) for line in batch.lines]
    assert found == [(1, b"one"), (2, None), (3, b"two"), (4, b"y" * 49), (5, None)]


def test_limits_and_broken_input(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(gzip.compress(b"\n" * 200_000))
    with pytest.raises(PayloadTooLargeError):
        list(batches(path, BEGINNING, LIMITS))
    path.write_bytes(gzip.compress(b"one\n" * 1000)[:-12])
    with pytest.raises(InvalidRequestError):
        list(batches(path, BEGINNING, LIMITS))
    with pytest.raises(InvalidRequestError):
        list(batches(tmp_path / "none", BEGINNING, LIMITS))


def test_an_endless_line_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input"
    path.write_bytes(gzip.compress(b"x" * 5_000_000))
    read = 0
    real = gzip.GzipFile.readline

    def readline(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal read
        piece = real(self, -1 if size is None else size)
        read += len(piece)
        return piece

    monkeypatch.setattr(gzip.GzipFile, "readline", readline)
    with pytest.raises(PayloadTooLargeError):
        list(batches(path, BEGINNING, LIMITS))
    assert read <= LIMITS.input_bytes + 2 * LIMITS.line_bytes + 2
