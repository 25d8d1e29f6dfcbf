"""Read what an MP4 file says of its video: size, time, codec, profile and level. Nothing is decoded.

ISO/IEC 14496-12 (boxes), ISO/IEC 14496-15 §5.3.3.1 (avcC) and §8.3.3.1 (hvcC).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from foramen.kernel.errors import InvalidRequestError

_LARGEST_BOX_READ = 16 * 1024 * 1024
_MOST_BOXES = 10_000
_CONTAINERS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl"))
_SAMPLE_ENTRY = 78
"""Bytes of a VisualSampleEntry between its box header and the boxes inside it (§12.1.3)."""
_NOT_READABLE = "Not a readable MP4 file"


@dataclass(frozen=True, slots=True)
class Video:
    """The one video track of a file.

    `codec` is "avc" or "hevc"; `profile` its profile_idc, `level` its level_idc as the stream writes it (AVC 4.1 is 41,
    HEVC 5.1 is 153); `constrained_baseline` holds for AVC alone; `chroma_420` and `bits` describe the samples.
    """

    codec: str
    profile: int
    level: int
    rows: int
    columns: int
    frames: int
    seconds: float
    constrained_baseline: bool = False
    chroma_420: bool = True
    bits: int = 8
    audio: bool = False


def is_mp4(head: bytes) -> bool:
    """Whether a file begins as ISO base media files do."""
    return head[4:8] == b"ftyp"


def read_mp4(file: BinaryIO, size: int) -> Video:
    """Read the header of a file.

    Parameters
    ----------
    file : seekable, at its beginning
    size : bytes of the file

    Raises
    ------
    InvalidRequestError
        Truncated, malformed, in fragments, without video or with several, or neither H.264 nor H.265.
    """
    try:
        tracks = list(_tracks(file, size))
    except (struct.error, IndexError, ZeroDivisionError) as exc:
        raise InvalidRequestError(_NOT_READABLE) from exc
    videos = [track for track in tracks if isinstance(track, Video)]
    if len(videos) != 1:
        raise InvalidRequestError("The MP4 file holds no video track" if not videos else "It holds several videos")
    video = videos[0]
    if video.frames == 0:
        raise InvalidRequestError("The MP4 file is in fragments or holds no frame: write it as one piece")
    return video if len(tracks) == 1 else _with_audio(video)


def _with_audio(video: Video) -> Video:
    return Video(**{name: getattr(video, name) for name in Video.__dataclass_fields__} | {"audio": True})


def _tracks(file: BinaryIO, size: int) -> Iterator[Video | str]:
    moov, media = b"", False
    for kind, start, end in _file_boxes(file, size):
        media = media or kind == b"mdat"
        if kind == b"moov":
            if end - start > _LARGEST_BOX_READ:
                raise InvalidRequestError("The header of the MP4 file is too large")
            file.seek(start)
            moov = file.read(end - start)
    if not moov or not media:
        raise InvalidRequestError("The MP4 file is truncated" if not moov else _NOT_READABLE)
    for kind, body in _boxes(moov):
        if kind == b"trak":
            yield _track(body)


def _file_boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    place = 0
    for _ in range(_MOST_BOXES):
        if place == size:
            return
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        start = place + 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            start += 8
        end = size if length == 0 else place + length
        if end < start or end > size:
            raise InvalidRequestError("The MP4 file is truncated")
        yield kind, start, end
        place = end
    raise InvalidRequestError(_NOT_READABLE)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if length < 8 or place + length > len(content):
            raise InvalidRequestError(_NOT_READABLE)
        yield kind, content[place + 8 : place + length]
        place += length


def _inside(content: bytes, *path: bytes) -> bytes:
    """Return the content of the first box of a path; empty: there is none."""
    for name in path:
        content = next((body for kind, body in _boxes(content) if kind == name), b"")
    return content


def _track(body: bytes) -> Video | str:
    handler = _inside(body, b"mdia", b"hdlr")[8:12]
    if handler != b"vide":
        return handler.decode("latin-1")
    header = _inside(body, b"mdia", b"mdhd")
    if header[0] == 1:
        scale, duration = struct.unpack_from(">IQ", header, 20)
    else:
        scale, duration = struct.unpack_from(">II", header, 12)
    table = _inside(body, b"mdia", b"minf", b"stbl")
    entries = list(_boxes(_inside(table, b"stsd")[8:]))
    if len(entries) != 1:
        raise InvalidRequestError("The video changes its codec on the way")
    kind, entry = entries[0]
    sizes = _inside(table, b"stsz")
    (frames,) = struct.unpack_from(">I", sizes, 8) if sizes else (0,)
    columns, rows = struct.unpack_from(">HH", entry, 24)
    inner = entry[_SAMPLE_ENTRY:]
    seconds = duration / scale
    if kind in (b"avc1", b"avc3"):
        return _avc(_inside(inner, b"avcC"), rows, columns, frames, seconds)
    if kind in (b"hvc1", b"hev1"):
        return _hevc(_inside(inner, b"hvcC"), rows, columns, frames, seconds)
    raise InvalidRequestError("The video is neither H.264 (AVC) nor H.265 (HEVC)")


def _avc(record: bytes, rows: int, columns: int, frames: int, seconds: float) -> Video:
    profile, compatibility, level = record[1], record[2], record[3]
    chroma, bits = True, 8
    if profile in (100, 110, 122, 144):
        # After the parameter sets: chroma_format and bit depths, for the high profiles.
        place = 6
        for _ in range(record[5] & 31):
            place += 2 + struct.unpack_from(">H", record, place)[0]
        count = record[place]
        place += 1
        for _ in range(count):
            place += 2 + struct.unpack_from(">H", record, place)[0]
        if place + 3 <= len(record):
            chroma, bits = record[place] & 3 == 1, 8 + (record[place + 1] & 7)
    constrained = profile == 66 and bool(compatibility & 0x40)
    return Video("avc", profile, level, rows, columns, frames, seconds, constrained, chroma, bits)


def _hevc(record: bytes, rows: int, columns: int, frames: int, seconds: float) -> Video:
    profile, level = record[1] & 31, record[12]
    chroma, bits = record[16] & 3 == 1, 8 + (record[17] & 7)
    return Video("hevc", profile, level, rows, columns, frames, seconds, False, chroma, bits)
