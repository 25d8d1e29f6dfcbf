"""DICOM JSON of whole series, made once and kept compressed: an answer is a few rows, passed on as they are (ADR 0033).

A series' text is the DICOM JSON of its instances, in order, joined by commas and without brackets. It is kept twice:
as one zstd frame (RFC 8878: frames may follow each other) and as raw deflate blocks that end on a byte (RFC 1951), so
that the parts of a study can be put together for `Content-Encoding` zstd or gzip without decompressing anything.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from dicomweb.database import Database
from dicomweb.index.checksums import crc32_combine
from dicomweb.visibility import Visible
from foramen.kernel.errors import InteropError, NotFoundError
from foramen.kernel.log import get_log

_CHUNK = 1 << 18
_QUIET_S = 2.0
_PAUSE_S = 2.0
_BATCH = 16
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"
_INSTANCES = """SELECT metadata FROM dicomweb.instance WHERE study_instance_uid = $1 AND series_instance_uid = $2
    ORDER BY instance_number, sop_instance_uid"""
_KEEP = """INSERT INTO dicomweb.series_metadata
        (study_instance_uid, series_instance_uid, revision, base, size, crc32, zstd, deflate)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8 FROM dicomweb.series
    WHERE study_instance_uid = $1 AND series_instance_uid = $2
    ON CONFLICT (study_instance_uid, series_instance_uid) DO UPDATE SET revision = EXCLUDED.revision,
        base = EXCLUDED.base, size = EXCLUDED.size, crc32 = EXCLUDED.crc32, zstd = EXCLUDED.zstd,
        deflate = EXCLUDED.deflate
    WHERE dicomweb.series_metadata.revision <= EXCLUDED.revision"""
_BUILT = """UPDATE dicomweb.series SET stale_since = NULL
    WHERE study_instance_uid = $1 AND series_instance_uid = $2 AND revision = $3"""
_STALE = """SELECT study_instance_uid, series_instance_uid FROM dicomweb.series
    WHERE stale_since < now() - make_interval(secs => $1) ORDER BY stale_since LIMIT $2"""


@dataclass(frozen=True, slots=True)
class Fragment:
    """The text of one series, compressed twice."""

    size: int
    crc32: int
    zstd: bytes
    deflate: bytes


def fragment(texts: Sequence[bytes]) -> Fragment:
    """Compress the DICOM JSON of instances, joined by commas."""
    text = b",".join(texts)
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    deflate = packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)
    return Fragment(len(text), zlib.crc32(text), zstandard.ZstdCompressor(level=3).compress(text), deflate)


def _literal(text: bytes) -> Fragment:
    stored = b"\x00" + len(text).to_bytes(2, "little") + (0xFFFF - len(text)).to_bytes(2, "little") + text
    return Fragment(len(text), zlib.crc32(text), zstandard.ZstdCompressor().compress(text), stored)


_OPEN, _COMMA, _CLOSE = _literal(b"["), _literal(b","), _literal(b"]")


def array_of(fragments: Sequence[Fragment]) -> list[Fragment]:
    """Return the parts of a JSON array of all instances of some series."""
    parts = [_OPEN]
    for number, one in enumerate(fragments):
        parts += [_COMMA, one] if number else [one]
    return [*parts, _CLOSE]


def as_zstd(parts: Sequence[Fragment]) -> Iterator[bytes]:
    """Yield the parts as zstd."""
    return (part.zstd for part in parts)


def as_gzip(parts: Sequence[Fragment]) -> Iterator[bytes]:
    """Yield the parts as one gzip member (RFC 1952)."""
    yield _GZIP_HEAD
    crc, size = 0, 0
    for part in parts:
        yield part.deflate
        crc, size = crc32_combine(crc, part.crc32, part.size), size + part.size
    yield _LAST_BLOCK + crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")


def as_text(parts: Sequence[Fragment]) -> Iterator[bytes]:
    """Yield the parts decompressed, in pieces: memory does not grow with the study."""
    for part in parts:
        yield from zstandard.ZstdDecompressor().read_to_iter(part.zstd, write_size=_CHUNK)


class SeriesMetadata:
    """Keeps the fragments up to date with the index."""

    def __init__(self, database: Database, base: str) -> None:
        self._database, self._base = database, base
        self._building = asyncio.Semaphore(1)

    async def revisions(self, visible: Visible, study: str, series: str | None) -> list[tuple[str, int]]:
        """Return the visible series at or below what a URL names, with their revisions.

        Parameters
        ----------
        visible : with placeholders from 3

        Raises
        ------
        NotFoundError
            Unknown or not permitted: the two cannot be told apart.
        """
        query = f"""SELECT e.series_instance_uid, e.revision FROM {visible.shelf.series} e
            JOIN {visible.shelf.study} s USING (study_instance_uid)
            WHERE e.study_instance_uid = $1 AND ($2::text IS NULL OR e.series_instance_uid = $2)
                AND e.instance_count > 0 AND {visible.sql} ORDER BY e.series_instance_uid"""  # noqa: S608  our own clauses
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, study, series, *visible.values)
        if not rows:
            raise NotFoundError("No such study, series or instance")
        return [(row[0], row[1]) for row in rows]

    async def fragments(self, study: str, revisions: Sequence[tuple[str, int]]) -> list[Fragment]:
        """Return the fragments of series that may be shown; what is missing or older is built now."""
        query = """SELECT series_instance_uid, size, crc32, zstd, deflate FROM dicomweb.series_metadata m
            JOIN unnest($2::text[], $3::bigint[]) AS w(series_instance_uid, revision)
                USING (series_instance_uid, revision)
            WHERE m.study_instance_uid = $1 AND m.base = $4"""
        uids, numbers = [uid for uid, _ in revisions], [revision for _, revision in revisions]
        async with self._database.connection() as connection:
            rows = await connection.fetch(query, study, uids, numbers, self._base)
        found = {row[0]: Fragment(*tuple(row)[1:]) for row in rows}
        return [found.get(uid) or await self.build(study, uid) for uid in uids]

    async def build(self, study: str, series: str) -> Fragment:
        """Build and keep the fragment of one series."""
        async with self._building:
            async with (
                self._database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                revision = await connection.fetchval(
                    "SELECT revision FROM dicomweb.series WHERE study_instance_uid = $1 AND series_instance_uid = $2",
                    *(study, series),
                )
                rows = await connection.fetch(_INSTANCES, study, series)
            if revision is None or not rows:
                raise NotFoundError("No such study, series or instance")
            built = await asyncio.to_thread(self._pack, [row[0] for row in rows])
            values = (built.size, built.crc32, built.zstd, built.deflate)
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute(_KEEP, study, series, revision, self._base, *values)
                await connection.execute(_BUILT, study, series, revision)
        return built

    def _pack(self, rows: Sequence[bytes]) -> Fragment:
        return fragment([self.absolute(zlib.decompress(row)) for row in rows])

    def absolute(self, text: bytes) -> bytes:
        """Write the URIs of bulk data in full."""
        # Inside a JSON string the quotes would be escaped, so this can only be the member itself.
        return text.replace(b'"BulkDataURI":"studies/', f'"BulkDataURI":"{self._base}/studies/'.encode())

    async def run(self) -> None:
        """Build what grew and has been quiet for a moment, until cancelled: a first reader need not wait."""
        while True:
            try:
                async with self._database.connection() as connection:
                    rows: list[Any] = await connection.fetch(_STALE, _QUIET_S, _BATCH)
                for row in rows:
                    await self._build_quietly(row[0], row[1])
            except InteropError as error:
                get_log().warning("metadata waits", reason=error.message)
                rows = []
            if len(rows) < _BATCH:
                await asyncio.sleep(_PAUSE_S)

    async def _build_quietly(self, study: str, series: str) -> None:
        try:
            await self.build(study, series)
        except NotFoundError:  # All of its instances went: nothing to build, until some come.
            async with self._database.connection() as connection:
                await connection.execute(
                    """UPDATE dicomweb.series SET stale_since = NULL
                       WHERE study_instance_uid = $1 AND series_instance_uid = $2 AND instance_count = 0""",
                    *(study, series),
                )
