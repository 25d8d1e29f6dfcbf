"""Stored frames to arrays and bytes. Runs in the codec process: the input is not trusted.

DICOM PS3.5 §8 and Annex A; PS3.3 C.7.6.3.1 (photometric interpretation, planar configuration).
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from foramen.kernel.dicom_text import mend_escape_sequences

mend_escape_sequences()

_LARGEST_FRAME_BYTES = 512 * 1024 * 1024
_LARGEST_INFLATED_BYTES = 512 * 1024 * 1024
_MOST_DEFLATE_SAVES = 1032
"""Deflate cannot do better (zlib's technical notes): a smaller file cannot inflate beyond the limit."""
_STEP_BYTES = 1024 * 1024

_SECOND_CODECS = {
    "1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.51": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.57": imagecodecs.jpegsof3_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.jpegsof3_decode,
}


class CannotDecodeError(Exception):
    """The stored pixel data cannot be decoded here."""


def open_file(path: Path, *, pixels: bool = True) -> Dataset:
    """Parse a stored file; warnings about its oddities were given at intake."""
    warnings.simplefilter("ignore")
    _refuse_bombs(path)
    return dcmread(path, stop_before_pixels=not pixels)


def _refuse_bombs(path: Path) -> None:
    """Inflate a deflated file once, keeping nothing, before anything holds it whole."""
    if path.stat().st_size < _LARGEST_INFLATED_BYTES // _MOST_DEFLATE_SAVES:
        return
    with path.open("rb") as file:
        read_preamble(file, False)
        if _read_file_meta_info(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        unpacker, inflated, pending = zlib.decompressobj(-zlib.MAX_WBITS), 0, file.read(_STEP_BYTES)
        while pending:
            inflated += len(unpacker.decompress(pending, _STEP_BYTES))
            if inflated > _LARGEST_INFLATED_BYTES:
                raise CannotDecodeError("the file inflates to more than may be")
            pending = unpacker.unconsumed_tail or file.read(_STEP_BYTES)


def number_of_frames(dataset: Dataset) -> int:
    """Number of frames, at least 1."""
    return max(int(dataset.get("NumberOfFrames") or 1), 1)


def decoded_bytes(dataset: Dataset) -> int:
    """Bytes of one decoded frame, as the header claims."""
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
    return samples * max(int(dataset.BitsAllocated), 8) // 8


def frame_array(dataset: Dataset, number: int, *, raw: bool) -> NDArray[Any]:
    """One frame (from 1): shape (row, column) or (row, column, sample).

    Parameters
    ----------
    raw : leave the colour space as it is stored; otherwise YBR becomes RGB

    Raises
    ------
    CannotDecodeError
        No such frame, larger than may be, or the codecs refuse it.
    """
    if "PixelData" not in dataset or not 1 <= number <= number_of_frames(dataset):
        raise CannotDecodeError("no such frame")
    if decoded_bytes(dataset) > _LARGEST_FRAME_BYTES:
        raise CannotDecodeError("the frame is too large")
    try:
        return np.asarray(pixel_array(dataset, index=number - 1, raw=raw))
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001  pydicom and its codecs raise many kinds for what they cannot decode
        return _by_other_codec(dataset, number, exc)


def _by_other_codec(dataset: Dataset, number: int, fault: Exception) -> NDArray[Any]:
    """Decode grey JPEG that the first codec refuses (odd markers, 12 bit) with the second."""
    decode = _SECOND_CODECS.get(str(dataset.file_meta.TransferSyntaxUID))
    shape, size = (int(dataset.Rows), int(dataset.Columns)), int(dataset.BitsAllocated) // 8
    if decode is None or int(dataset.get("SamplesPerPixel", 1)) != 1 or dataset.get("PixelRepresentation", 0):
        raise CannotDecodeError("the pixel data cannot be decoded") from fault
    try:
        frame = np.asarray(decode(stored_frame(dataset, number)))
    except MemoryError:
        raise
    except Exception as exc:
        raise CannotDecodeError("the pixel data cannot be decoded") from exc
    if frame.shape != shape or frame.dtype.itemsize > size or frame.dtype.kind != "u":
        raise CannotDecodeError("the pixel data is not what the header says")
    return frame.astype(f"u{size}")


def stored_frame(dataset: Dataset, number: int) -> bytes:
    """One frame (from 1) as it is stored, compressed."""
    try:
        return bytes(get_frame(dataset.PixelData, number - 1, number_of_frames=number_of_frames(dataset)))
    except (ValueError, EOFError) as exc:
        raise CannotDecodeError("no such frame") from exc


def little_endian_frame(dataset: Dataset, number: int) -> bytes:
    """One frame (from 1) decoded, in the form that the instance's metadata describe.

    Little endian; planes as Planar Configuration says; YBR_FULL_422 with half the chroma samples; a frame of one-bit
    pixels begins with a byte of its own.
    """
    frame = frame_array(dataset, number, raw=True)
    if dataset.BitsAllocated == 1:
        return np.packbits(frame.ravel().astype(np.uint8), bitorder="little").tobytes()
    if frame.ndim == 3 and frame.shape[2] == 3:
        if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" and frame.shape[1] % 2 == 0:
            frame = _halved_chroma(frame)
        elif dataset.get("PlanarConfiguration") == 1:
            frame = frame.transpose(2, 0, 1)  # pydicom gives colour by pixel
    return np.ascontiguousarray(frame.astype(frame.dtype.newbyteorder("<"))).tobytes()


def _halved_chroma(frame: NDArray[Any]) -> NDArray[Any]:
    """Y1 Y2 Cb Cr for each two pixels of a row (PS3.3 C.7.6.3.1.2); Cb and Cr are those of the first."""
    rows, columns, _ = frame.shape
    pairs = frame.reshape(rows, columns // 2, 2, 3)
    return np.stack((pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]), axis=-1)
