"""Stage 1: is a received file one whole instance, and its pixel data what its transfer syntax says? Pure functions.

DICOM PS3.10 §7.1, PS3.5 §8.2 and Annex A; failure reasons: PS3.4 Table B.2-1, PS3.7 Annex C, PS3.18 Table 10.5.3-1.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from functools import lru_cache
from typing import IO

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MPEGTransferSyntaxes,
    RLELossless,
    RLETransferSyntaxes,
    UncompressedTransferSyntaxes,
)

from dicomweb.store.raw_elements import Unread, tag_at

_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_JPEG = tuple(str(uid) for uid in JPEGTransferSyntaxes)
_JPEG_LS = tuple(str(uid) for uid in JPEGLSTransferSyntaxes)
_JPEG_2000 = (*(str(uid) for uid in JPEG2000TransferSyntaxes), *_HTJ2K)
_RLE = tuple(str(uid) for uid in RLETransferSyntaxes)
_NATIVE = tuple(str(uid) for uid in UncompressedTransferSyntaxes)
_VIDEO = tuple(str(uid) for uid in MPEGTransferSyntaxes)
ENCAPSULATED = frozenset((*_JPEG, *_JPEG_LS, *_JPEG_2000, *_RLE, *_VIDEO))
SUPPORTED = ENCAPSULATED | frozenset(_NATIVE)
"""Transfer syntaxes we store: all that pydicom's codecs or a video player can open again."""

_SCAN_BYTES = 8192
_PIXEL_DESCRIPTION = tuple(map(tag_at, (0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100)))
"""What the length of native pixel data follows from: samples, interpretation, frames, rows, columns, bits."""
_PLAIN_UID = re.compile(rb"((?=[0-9.]{1,64}\0?$)(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*)\0?")
"""A UID as it should be, with its padding: it need not be decoded."""
_NAMING = tuple(map(tag_at, (0x0020000D, 0x0020000E, 0x00080018, 0x00080016)))
"""UIDs of study, series, instance and SOP class: pydicom looks up a keyword in some microseconds, a tag at once."""
_PIXEL_DATA = tag_at(0x7FE00010)


class FailureReason(IntEnum):
    """Values of (0008,1197)."""

    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    REJECTED_BEFORE = 0xA770
    """Not in PS3.4: what dcm4chee answers to an instance that was rejected before (IHE IOCM)."""
    DOES_NOT_MATCH_SOP_CLASS = 0xA900
    STUDY_OR_PATIENT_MISMATCH = 0xA901
    CANNOT_UNDERSTAND = 0xC000
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122


class RejectedInstanceError(Exception):
    """One instance cannot be stored; holds the reason, and its UIDs as far as they could be read."""

    def __init__(self, reason: FailureReason, text: str, sop_class_uid: str = "", sop_instance_uid: str = "") -> None:
        super().__init__(text)
        self.reason, self.text = reason, text
        self.sop_class_uid, self.sop_instance_uid = sop_class_uid, sop_instance_uid


class _WholeFile:
    """A reader that notes when a value is cut off: pydicom only warns and goes on with what it has."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.cut_off = False

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        # pydicom scans undefined lengths in blocks of 8 KiB, of which the last is rightly short.
        if 0 < len(data) < size and size != _SCAN_BYTES:
            self.cut_off = True
            raise EOFError("The file ends in the middle of an element")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def parse_instance(file: IO[bytes], plain: Dataset | None = None) -> Dataset:
    """Parse one DICOM file wholly and check that it is whole.

    Parameters
    ----------
    plain : its data set, where that is known already (`dicomweb.store.beginning`)

    Raises
    ------
    RejectedInstanceError
        Not DICOM, truncated, nameless, in a transfer syntax that is not supported or that is not the one it claims.
    """
    file.seek(0)
    whole = _WholeFile(file)
    try:
        dataset = dcmread(whole) if plain is None else plain
    except Exception as exc:
        # Whatever pydicom raises here is a fault of the sender's bytes, never of ours.
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "Not a readable DICOM file") from exc
    names = [_uid(dataset, tag) for tag in _NAMING]
    sop_class, sop_instance = names[3], names[2]
    if whole.cut_off:
        text = "The file is truncated"
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, text, sop_class, sop_instance)
    if not all(names):
        reason = FailureReason.DOES_NOT_MATCH_SOP_CLASS
        raise RejectedInstanceError(reason, "A UID that names the instance is missing", sop_class, sop_instance)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if syntax not in SUPPORTED:
        reason = FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED
        raise RejectedInstanceError(reason, "The transfer syntax is not supported", sop_class, sop_instance)
    try:
        fault = _pixel_fault(dataset, syntax)
    except Exception:  # noqa: BLE001  a value is parsed when it is first read: again a fault of the sender's bytes
        fault = "The attributes that describe the pixel data cannot be read"
    if fault is not None:
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, fault, sop_class, sop_instance)
    return dataset


def _uid(dataset: Dataset, tag: BaseTag) -> str:
    """Return a UID that is one (PS3.5 §9.1), or nothing."""
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement) and element.value and (found := _PLAIN_UID.fullmatch(element.value)):
        return found[1].decode("ascii")
    try:
        value = UID(str(dataset[tag].value or "" if tag in dataset else ""))
    except Exception:  # noqa: BLE001  a value pydicom cannot decode is no UID
        return ""
    return str(value) if value.is_valid else ""


def _pixel_fault(dataset: Dataset, syntax: str) -> str | None:
    """What is wrong with the pixel data, if anything; a codestream is recognised by its first bytes, not decoded."""
    if _PIXEL_DATA not in dataset:
        return None
    element = dataset.get_item(_PIXEL_DATA)
    is_plain = isinstance(element, RawDataElement) and element.VR in (None, "OB", "OW") and syntax in _NATIVE
    data = element.value if is_plain else dataset.PixelData
    if not isinstance(data, bytes | bytearray | memoryview | Unread):
        return "The pixel data cannot be read"
    if syntax in _NATIVE:
        try:
            expected = _expected_length(dataset)
        except (AttributeError, TypeError, ValueError):
            return "The attributes that describe the pixel data are missing"
        if len(data) < expected:
            return "The pixel data is shorter than its attributes say"
        return None
    if isinstance(data, Unread):  # only of native pixel data is the length enough
        return "The pixel data cannot be read"
    if bytes(data[:4]) != b"\xfe\xff\x00\xe0":
        return "The transfer syntax says compressed, the pixel data is not encapsulated"
    if syntax in _VIDEO:
        return None
    frames = int(dataset.get("NumberOfFrames") or 1)
    try:
        found = list(generate_frames(bytes(data), number_of_frames=frames))
    except Exception:  # noqa: BLE001  pydicom's parser of hostile bytes raises many kinds
        return "The encapsulated pixel data is malformed"
    if len(found) < frames:
        return "The encapsulated pixel data has fewer frames than its attributes say"
    if not all(_is_codestream(frame, syntax) for frame in found[:frames]):
        return "The pixel data is not in the transfer syntax it claims"
    return None


def _expected_length(dataset: Dataset) -> int:
    """Bytes that native pixel data must have; worked out once for all slices that are described alike."""
    found = [dataset.get_item(tag) for tag in _PIXEL_DESCRIPTION]
    if all(element is None or isinstance(element, RawDataElement) for element in found):
        return _length_of(tuple(element._replace(value_tell=0) for element in found if element is not None))
    return int(get_expected_length(dataset))


@lru_cache(maxsize=256)
def _length_of(elements: tuple[RawDataElement, ...]) -> int:
    dataset = Dataset()
    for element in elements:
        dataset[element.tag] = element
    return int(get_expected_length(dataset))


def _is_codestream(frame: bytes, syntax: str) -> bool:
    """Whether a frame begins as its transfer syntax demands."""
    if syntax in _JPEG_2000:
        # Raw codestream (SOC + SIZ marker), or a JP2 box that some vendors leave around it.
        return frame.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP"))
    if syntax == RLELossless:
        return len(frame) >= 64 and 1 <= struct.unpack("<I", frame[:4])[0] <= 15
    is_jpeg_ls = b"\xff\xf7" in frame[:4096]  # SOF55
    return frame.startswith(b"\xff\xd8\xff") and is_jpeg_ls == (syntax in _JPEG_LS)
