"""Compressed bodies: which encoding is chosen, and that a bomb is stopped."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
import zstandard

from fhir_server.formats.compression import decompress, preferred
from foramen.kernel.errors import InteropError

TEXT = b'{"resourceType":"Patient"}' * 100


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (b"gzip", "gzip"),
        (b"zstd", "zstd"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip;q=1.0, zstd;q=0.5", "gzip"),
        (b"gzip;q=0", ""),
        (b"*;q=0.5, gzip;q=0", "zstd"),
        (b"identity, gzip;q=0.5", ""),
        (b"br", ""),
        (b"gzip;q=abc", ""),
    ],
)
def test_the_better_liked_encoding_is_chosen(header: bytes, chosen: str) -> None:
    assert preferred(header) == chosen


def unsized(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (TEXT, "identity"),
        (gzip.compress(TEXT, mtime=0), "gzip"),
        (gzip.compress(TEXT[:500], mtime=0) + gzip.compress(TEXT[500:], mtime=0), "x-gzip"),
        (zstandard.compress(TEXT), "zstd"),
        (unsized(TEXT), "ZSTD"),
    ],
)
def test_decompresses(body: bytes, encoding: str) -> None:
    assert decompress(body, encoding, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(TEXT, mtime=0), "gzip", 413),
        (zstandard.compress(TEXT), "zstd", 413),
        (unsized(TEXT), "zstd", 413),
        (gzip.compress(TEXT, mtime=0)[:-4], "gzip", 400),
        (zstandard.compress(TEXT)[:-4], "zstd", 400),
        (unsized(TEXT)[:-4], "zstd", 400),
        (TEXT, "gzip", 400),
        (TEXT, "zstd", 400),
        (TEXT, "br", 415),
        (TEXT, "gzip, gzip", 415),
    ],
)
def test_refuses(body: bytes, encoding: str, status: int) -> None:
    limit = len(TEXT) - 1 if status == 413 else len(TEXT)
    with pytest.raises(InteropError) as caught:
        decompress(body, encoding, limit)
    assert caught.value.status == status


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "unsized zstd"])
def test_a_bomb_takes_no_memory(encoding: str) -> None:
    zeros = bytes(200_000_000)
    pack = {"gzip": gzip.compress, "zstd": zstandard.compress, "unsized zstd": unsized}[encoding]
    bomb = pack(zeros)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    with pytest.raises(InteropError) as caught:
        decompress(bomb, encoding.split()[-1], 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.status == 413
    assert peak < 20_000_000
