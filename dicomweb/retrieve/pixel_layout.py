"""Where the pixel data of a stored file lies: found once, kept, so that a frame is a read at an offset.

DICOM PS3.5 §8 and Annex A.4 (native and encapsulated pixel data, offset tables); PS3.3 C.7.6.3 (Image Pixel).
"""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import orjson
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.tag import BaseTag, Tag

from dicomweb.retrieve.transfer_syntaxes import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE, VIDEO_MEDIA_TYPES
from dicomweb.store.beginning import read_beginning
from dicomweb.store.inspect import HEAD_BYTES
from dicomweb.store.raw_elements import tag_at
from foramen.kernel.errors import UnsupportedMediaTypeError

_UNDEFINED = 0xFFFFFFFF
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_FEW_FRAGMENTS = 2_000_000
_IMAGE_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation"),
    *("SOPInstanceUID", "SOPClassUID", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_PIXEL_DATA = tag_at(0x7FE00010)
_ROWS, _COLUMNS = tag_at(0x00280010), tag_at(0x00280011)
_DESCRIBING = (_ROWS, _COLUMNS, *map(tag_at, (0x00280002, 0x00280004, 0x00280008, 0x00280100)))
Spans = list[tuple[int, int]]


class UnreadableFileError(UnsupportedMediaTypeError):
    """The stored file is not what it claims; its bytes can still be had as they were stored."""

    status = 406


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """What serving frames needs to know of one file.

    Parameters
    ----------
    transfer_syntax : as the file's meta information says
    frames : number of frames, 0 without pixel data or when it is deflated
    offset, length : native pixel data in the file, in bytes; length 0 when it cannot be addressed
    frame_bits : bits of one native frame
    spans : encapsulated: for each frame its fragments as (offset, length) in the file; empty when not known
    direct : a native frame's bytes in the file are what a client gets as application/octet-stream
    """

    transfer_syntax: str
    frames: int
    offset: int = 0
    length: int = 0
    frame_bits: int = 0
    spans: tuple[tuple[tuple[int, int], ...], ...] = ()
    direct: bool = False

    def frame(self, number: int) -> Spans | None:
        """Bytes of one frame (from 1) in the file as stored, or None when they are not whole bytes at an offset."""
        if self.spans:
            return list(self.spans[number - 1])
        start, size = (number - 1) * self.frame_bits, self.frame_bits
        if not self.length or start % 8 or size % 8 or (start + size) // 8 > self.length:
            return None
        return [(self.offset + start // 8, size // 8)]

    def dumps(self) -> bytes:
        """Compact form for the database."""
        return orjson.dumps(asdict(self))

    @staticmethod
    def loads(content: bytes) -> PixelLayout:
        """Read what `dumps` wrote."""
        values = orjson.loads(content)
        values["spans"] = tuple(tuple((start, size) for start, size in frame) for frame in values["spans"])
        return PixelLayout(**values)


def scan(path: Path) -> PixelLayout:
    """Find the pixel data of a DICOM file without reading it.

    Raises
    ------
    UnreadableFileError
        Not parseable up to its pixel data.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _of_native(file.read(HEAD_BYTES), size) or _of_any(path, file, size)
    except FileNotFoundError:
        raise
    except Exception as exc:
        # Whatever is raised here (a recursion limit too) is a fault of the sender's bytes.
        raise UnreadableFileError("The stored file cannot be read; ask for it as stored") from exc


def _of_native(head: bytes, size: int) -> PixelLayout | None:
    """Layout of a file of native pixel data by its beginning; None: pydicom has to look."""
    beginning = read_beginning(head, size)
    if beginning is None or _ROWS not in beginning.dataset or _COLUMNS not in beginning.dataset:
        return None
    plain = beginning.dataset
    pixels = plain.get_item(_PIXEL_DATA)
    if not isinstance(pixels, RawDataElement) or pixels.length in (0, _UNDEFINED):
        return None
    found = (plain.get_item(tag) for tag in _DESCRIBING)
    described = tuple(one._replace(value_tell=0) for one in found if isinstance(one, RawDataElement))
    frames, bits, direct = _described(described)
    syntax = str(plain.file_meta.TransferSyntaxUID)
    return PixelLayout(syntax, frames, pixels.value_tell, pixels.length, bits, direct=direct)


@lru_cache(maxsize=256)
def _described(elements: tuple[RawDataElement, ...]) -> tuple[int, int, bool]:
    """Worked out once for all slices that are described alike."""
    dataset = Dataset()
    for element in elements:
        dataset[element.tag] = element
    return _frames(dataset), *_frame_bits(dataset, is_little=True)


def _of_any(path: Path, file: IO[bytes], size: int) -> PixelLayout:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        syntax = str(read_file_meta_info(path).TransferSyntaxUID)
        if syntax == DEFLATED:  # pydicom would inflate it whole, however large that is.
            return PixelLayout(syntax, 0)
        file.seek(0)
        dataset = read_partial(file, _at_pixels, specific_tags=[Tag(keyword) for keyword in _IMAGE_TAGS])
        return _layout(file, size, syntax, dataset)


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXELS


def _layout(file: IO[bytes], size: int, syntax: str, dataset: Dataset) -> PixelLayout:
    has_pixels = "Rows" in dataset and "Columns" in dataset
    frames = _frames(dataset) if has_pixels else 0
    if not has_pixels:
        return PixelLayout(syntax, frames)
    start = file.tell()
    little = syntax != EXPLICIT_BIG
    head = file.read(12)
    if len(head) < 8:
        return PixelLayout(syntax, 0)
    if syntax == IMPLICIT_LITTLE:
        offset, length = start + 8, struct.unpack("<I", head[4:8])[0]
    else:
        offset, length = start + 12, struct.unpack("<I" if little else ">I", head[8:12])[0]
    if length == _UNDEFINED:
        if syntax in VIDEO_MEDIA_TYPES:  # One bit stream, whatever its frames.
            return PixelLayout(syntax, frames, spans=(tuple(fragments(file, offset, size)[1]),))
        spans = frame_spans(file, offset, size, frames, dataset)
        return PixelLayout(syntax, frames, spans=tuple(tuple(frame) for frame in spans))
    bits, direct = _frame_bits(dataset, is_little=little)
    # A lying length: what the file does not hold is not there.
    return PixelLayout(syntax, frames, offset, min(length, max(size - offset, 0)), bits, direct=direct)


def _frames(dataset: Dataset) -> int:
    return max(int(dataset.get("NumberOfFrames") or 1), 1)


def _frame_bits(dataset: Dataset, *, is_little: bool) -> tuple[int, bool]:
    """Bits of one native frame, and whether its bytes are what a client gets."""
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated)
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3
    return bits, is_little and int(dataset.BitsAllocated) in (1, 8, 16, 32, 64) and bits % 8 == 0


def fragments(file: IO[bytes], offset: int, size: int) -> tuple[list[int], Spans]:
    """Return the Basic Offset Table and the (offset, length) of each fragment that follows it."""
    table: list[int] = []
    found: Spans = []
    position, first = offset, True
    while position + 8 <= size and len(found) < _FEW_FRAGMENTS:
        file.seek(position)
        head = file.read(8)
        if head[:4] != _ITEM:
            break
        length = int.from_bytes(head[4:], "little")
        if length == _UNDEFINED or position + 8 + length > size:
            break  # Truncated, or a lie: the frames before it are still good.
        if first:
            content = file.read(min(length, 4 * _FEW_FRAGMENTS))
            table = list(struct.unpack(f"<{len(content) // 4}I", content[: len(content) // 4 * 4]))
        else:
            found.append((position + 8, length))
        first = False
        position += 8 + length
    return table, found


def frame_spans(file: IO[bytes], offset: int, size: int, frames: int, dataset: Any) -> list[Spans]:
    """Fragments of each frame by Extended or Basic Offset Table, or one each; empty when neither tells."""
    table, found = fragments(file, offset, size)
    if not found:
        return []
    base = found[0][0] - 8
    extended = dataset.get("ExtendedOffsetTable")
    if extended and len(extended) == 8 * frames:
        table = list(struct.unpack(f"<{frames}Q", extended))
    if frames == 1:
        return [found]
    if len(found) == frames:
        return [[span] for span in found]
    if len(table) != frames or sorted(set(table)) != table:
        return []
    groups: list[Spans] = [[] for _ in table]
    number = 0
    for start, length in found:
        while number + 1 < frames and start - 8 - base >= table[number + 1]:
            number += 1
        groups[number].append((start, length))
    return groups if all(groups) else []
