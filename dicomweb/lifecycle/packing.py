"""A stored file with its pixel data as HTJ2K, such that the file comes back byte by byte. Runs in a codec process.

Everything but the pixel data is kept as it was (deflated); each frame is a plain codestream of its own. Layout, all
numbers little endian: ``FORAPK01``, the codestreams one after the other, zlib of what lies before the pixel data, zlib
of what lies behind it, a JSON head, its length (4 bytes), ``FORAPK01``.
ISO/IEC 15444-15 (HTJ2K), 15444-1 (JPEG 2000); DICOM PS3.5 §8.2 (native pixel data)
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import imagecodecs
import numpy as np
import orjson
from numpy.typing import NDArray

from dicomweb.retrieve.decoding import open_file
from dicomweb.retrieve.pixel_layout import UnreadableFileError, scan
from dicomweb.retrieve.transfer_syntaxes import DEFLATED, EXPLICIT_BIG

MAGIC = b"FORAPK01"
_TAIL = struct.Struct("<I8s")
_LARGEST_REST = 256 * 1024 * 1024
_LARGEST_PLANE = 512 * 1024 * 1024
_TYPES = {(8, 0): "|u1", (8, 1): "|i1", (16, 0): "<u2", (16, 1): "<i2"}


class CannotPackError(Exception):
    """The file stays as it is: compressed already, not of whole words, or not restored exactly."""


@dataclass(frozen=True, slots=True)
class Planes:
    """Where native pixel data lies and what it is.

    Parameters
    ----------
    offset : of the first byte in the file
    count : planes; colour by plane counts three a frame
    shape : (rows, columns), or (rows, columns, 3) of colour by pixel
    type : numpy's name of the stored words
    """

    offset: int
    count: int
    shape: tuple[int, ...]
    type: str

    @property
    def size(self) -> int:
        """Bytes of one plane."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.type).itemsize


def planes_of(path: Path) -> Planes:
    """Find the native pixel data of a file.

    Raises
    ------
    CannotPackError
        There is none, or not in whole words of 8 or 16 bits, little endian.
    """
    try:
        layout = scan(path)
    except UnreadableFileError as exc:
        raise CannotPackError("unreadable") from exc
    if layout.transfer_syntax in (DEFLATED, EXPLICIT_BIG) or not layout.length or not layout.direct:
        raise CannotPackError("no native pixel data")
    head = open_file(path, pixels=False)
    kind = _TYPES.get((int(head.get("BitsAllocated", 0)), int(head.get("PixelRepresentation", 0) or 0)))
    samples, planar = int(head.get("SamplesPerPixel", 1)), int(head.get("PlanarConfiguration", 0) or 0)
    shape: tuple[int, ...] = (int(head.get("Rows", 0)), int(head.get("Columns", 0)))
    if kind is None or min(shape) < 1 or samples not in (1, 3):
        raise CannotPackError("odd pixels")
    count = layout.frames * (3 if samples == 3 and planar else 1)
    if samples == 3 and not planar:
        shape = (*shape, 3)
    found = Planes(layout.offset, count, shape, kind)
    if not count or found.size > _LARGEST_PLANE or found.size * count > layout.length:
        raise CannotPackError("the pixel data is not what the header says")
    return found


def pack(source: Path, target: Path) -> str:
    """Write the packed form of a file; returns the name of the codec ("htj2k" or "j2k").

    Raises
    ------
    CannotPackError
        It cannot be packed; what was begun at `target` is to be removed.
    """
    planes = planes_of(source)
    codec, lengths = "", []
    with source.open("rb") as reading, _created(target) as writing:
        writing.write(MAGIC)
        before = _read_whole(reading, planes.offset)
        for _ in range(planes.count):
            plane = np.frombuffer(_read_whole(reading, planes.size), planes.type).reshape(planes.shape)
            stream, codec = _encoded(plane, codec)
            writing.write(stream)
            lengths.append(len(stream))
        after = reading.read(_LARGEST_REST + 1)
        if max(len(before), len(after)) > _LARGEST_REST:
            raise CannotPackError("too much that is no pixel data")
        rests = [zlib.compress(before, 6), zlib.compress(after, 6)]
        head = {"codec": codec, "count": planes.count, "shape": planes.shape, "type": planes.type, "streams": lengths}
        head |= {"rests": [[len(rest), len(raw)] for rest, raw in zip(rests, (before, after), strict=True)]}
        content = orjson.dumps(head)
        writing.write(b"".join((*rests, content, _TAIL.pack(len(content), MAGIC))))
    return codec


def restore(source: Path, target: Path) -> str:
    """Write the file again that was packed; returns the name of the codec.

    Raises
    ------
    ValueError
        It is no packed file, or a broken one.
    """
    with source.open("rb") as reading:
        head, start = _head(reading)
        reading.seek(len(MAGIC) + sum(head["streams"]))
        before, after = (_inflated(_read_whole(reading, packed), raw) for packed, raw in head["rests"])
        if reading.tell() != start or len(head["streams"]) != head["count"]:
            raise ValueError("the packed file is broken")
        reading.seek(len(MAGIC))
        with _created(target) as writing:
            writing.write(before)
            for length in head["streams"]:
                plane = _decoded(_read_whole(reading, length), head["codec"])
                if list(plane.shape) != head["shape"]:
                    raise ValueError("the packed file is broken")
                writing.write(plane.astype(head["type"], copy=False).tobytes())
            writing.write(after)
    return str(head["codec"])


def _head(reading: IO[bytes]) -> tuple[dict[str, Any], int]:
    if reading.read(len(MAGIC)) != MAGIC:
        raise ValueError("not a packed file")
    end = reading.seek(-_TAIL.size, os.SEEK_END)
    length, magic = _TAIL.unpack(reading.read(_TAIL.size))
    if magic != MAGIC or length > end:
        raise ValueError("the packed file is broken")
    start = reading.seek(end - length)
    return dict(orjson.loads(reading.read(length))), start


def _encoded(plane: NDArray[Any], codec: str) -> tuple[bytes, str]:
    """Encode by HTJ2K; by JPEG 2000 when the encoder cannot: one codec for all planes of a file."""
    for name in (codec,) if codec else ("htj2k", "j2k"):
        try:
            stream = _stream(plane, name)
            if np.array_equal(_decoded(stream, name), plane):
                return stream, name
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112  whatever the codec raises: the next one, or the file stays as it is
            continue
    raise CannotPackError("no codec restores these pixels exactly")


def _stream(plane: NDArray[Any], codec: str) -> bytes:
    if codec == "htj2k":
        return bytes(imagecodecs.htj2k_encode(plane, reversible=True, rgb=plane.ndim == 3))
    return bytes(imagecodecs.jpeg2k_encode(plane, level=0, codecformat="j2k", reversible=True))


def _decoded(stream: bytes, codec: str) -> NDArray[Any]:
    return np.asarray((imagecodecs.htj2k_decode if codec == "htj2k" else imagecodecs.jpeg2k_decode)(stream))


def _inflated(content: bytes, size: int) -> bytes:
    found = zlib.decompressobj().decompress(content, size + 1)
    if len(found) != size:
        raise ValueError("the packed file is broken")
    return found


def _read_whole(reading: IO[bytes], size: int) -> bytes:
    found = reading.read(size)
    if len(found) != size:
        raise ValueError("the file ends too early")
    return found


def _created(target: Path) -> IO[bytes]:
    """Open a new file that nobody else can read."""
    return os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
