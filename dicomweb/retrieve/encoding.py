"""Arrays and datasets into the transfer syntaxes of the allow-list. Runs in the codec process.

DICOM PS3.5 Annex A.4; PS3.3 C.7.6.3.1.2 (photometric interpretation of compressed colour).
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import get_encoder
from pydicom.uid import UID, ExplicitVRBigEndian

from dicomweb.retrieve.decoding import (
    CannotDecodeError,
    decoded_bytes,
    frame_array,
    little_endian_frame,
    number_of_frames,
    open_file,
    stored_frame,
)
from dicomweb.retrieve.transfer_syntaxes import (
    DEFLATED,
    EXPLICIT_LITTLE,
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LS_LOSSLESS,
    LOSSLESS_TARGETS,
    RLE,
)

_LARGEST_INSTANCE_BYTES = 1024 * 1024 * 1024
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}  # PS3.5 §6.2
_JPEG_QUALITY = 90
_EXTENDED_FROM = 2**32 - 2**20


class CannotEncodeError(Exception):
    """These pixels cannot be had in the transfer syntax asked for."""


def encoded_frame(dataset: Dataset, number: int, syntax: str) -> bytes:
    """One frame (from 1), decoded and encoded again."""
    frame, colour = _shown(dataset, number)
    return _encode(frame, dataset, colour, syntax)


def _shown(dataset: Dataset, number: int) -> tuple[NDArray[Any], str]:
    """Array of a frame and its photometric interpretation: colour as RGB, so that every codec keeps it whole."""
    frame = frame_array(dataset, number, raw=False)
    stored = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    return frame, "RGB" if frame.ndim == 3 else stored


def _encode(frame: NDArray[Any], dataset: Dataset, colour: str, syntax: str) -> bytes:
    bits, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    signed = bool(dataset.get("PixelRepresentation", 0))
    if bits not in ((8, 16, 32) if syntax == RLE else (8, 16)) or frame.dtype.itemsize * 8 != bits:
        raise CannotEncodeError("only 8 and 16 bit pixels are compressed")
    frame = np.ascontiguousarray(frame.astype(frame.dtype.newbyteorder("="), copy=False))
    try:
        if syntax == JPEG_BASELINE:
            if bits != 8 or signed or stored != 8:
                raise CannotEncodeError("JPEG Baseline holds 8 bit pixels only")
            target = BytesIO()
            Image.fromarray(frame).save(target, "JPEG", quality=_JPEG_QUALITY)
            return _even(target.getvalue())
        if syntax == HTJ2K_LOSSLESS:
            return _even(bytes(imagecodecs.htj2k_encode(frame, reversible=True, rgb=frame.ndim == 3)))
        if syntax not in LOSSLESS_TARGETS:
            raise CannotEncodeError("not offered")
        options = {
            **{"rows": frame.shape[0], "columns": frame.shape[1], "number_of_frames": 1},
            **{"samples_per_pixel": 1 if frame.ndim == 2 else 3, "bits_allocated": bits, "bits_stored": stored},
            **{"pixel_representation": int(signed), "photometric_interpretation": _written(colour, syntax)},
        }
        if frame.ndim == 3:
            options["planar_configuration"] = 0
        if colour == "PALETTE COLOR" and syntax == JPEG_2000_LOSSLESS:
            options["photometric_interpretation"] = "MONOCHROME2"  # Indexes are encoded like grey values.
        return _even(_encoded(frame, syntax, options))
    except (CannotEncodeError, MemoryError):
        raise
    except Exception as exc:
        raise CannotEncodeError("these pixels cannot be encoded so") from exc


def _encoded(frame: NDArray[Any], syntax: str, options: dict[str, Any]) -> bytes:
    """Encode by pydicom's plug-in; very small images, which that refuses, by the second codec."""
    try:
        return bytes(get_encoder(UID(syntax)).encode(frame, **options))
    except RuntimeError:
        if syntax == JPEG_LS_LOSSLESS:
            return bytes(imagecodecs.jpegls_encode(frame.view(f"u{frame.dtype.itemsize}"), level=0))
        if syntax != JPEG_2000_LOSSLESS:
            raise
        return bytes(imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True, resolutions=1))


def _written(colour: str, syntax: str) -> str:
    """Photometric interpretation that the encoded pixels have (JPEG 2000 turns RGB into YBR_RCT, reversibly)."""
    return "YBR_RCT" if colour == "RGB" and syntax in (JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS) else colour


def _even(content: bytes) -> bytes:
    return content + b"\0" * (len(content) % 2)


def transcode(source: Path, target: Path, syntax: str) -> None:
    """Write a stored instance in another transfer syntax; it stays the same instance, with the same UID.

    Raises
    ------
    CannotDecodeError, CannotEncodeError
        Its pixels cannot be had so.
    """
    dataset = open_file(source)
    stored = dataset.file_meta.TransferSyntaxUID
    if "PixelData" in dataset:
        if decoded_bytes(dataset) * number_of_frames(dataset) > _LARGEST_INSTANCE_BYTES:
            raise CannotDecodeError("the instance is too large")
        if syntax in LOSSLESS_TARGETS:
            _compress(dataset, syntax)
        elif stored.is_encapsulated:
            _decompress(dataset)
        elif stored == ExplicitVRBigEndian and dataset.BitsAllocated > 8:
            # By pixel and not by word: PS3.5 Annex A.3 leaves open how pixels of 32 bits lie in words of 16.
            numbers = range(1, number_of_frames(dataset) + 1)
            dataset.PixelData = b"".join(little_endian_frame(dataset, number) for number in numbers)
    if stored == ExplicitVRBigEndian:
        dataset.walk(_swap_all_but_pixels)
    written = syntax if "PixelData" in dataset or syntax == DEFLATED else EXPLICIT_LITTLE
    dataset.file_meta.TransferSyntaxUID = UID(written)
    dcmwrite(target, dataset, little_endian=True, implicit_vr=False, enforce_file_format=True)


def _decompress(dataset: Dataset) -> None:
    try:
        dataset.decompress(as_rgb=True, generate_instance_uid=False)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  the second codec may still know it
        numbers = range(1, number_of_frames(dataset) + 1)
        dataset.PixelData = b"".join(little_endian_frame(dataset, number) for number in numbers)
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 else "OW"
        dataset["PixelData"].is_undefined_length = False
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]


def _compress(dataset: Dataset, syntax: str) -> None:
    frames, colour = [], ""
    if dataset.file_meta.TransferSyntaxUID == syntax:
        frames = [stored_frame(dataset, number) for number in range(1, number_of_frames(dataset) + 1)]
        colour = str(dataset.PhotometricInterpretation)
    else:
        for number in range(1, number_of_frames(dataset) + 1):
            frame, colour = _shown(dataset, number)
            frames.append(_encode(frame, dataset, colour, syntax))
        colour = _written(colour, syntax)
    if sum(map(len, frames)) + 8 * len(frames) > _EXTENDED_FROM:
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            frames
        )
    else:
        dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.PhotometricInterpretation = colour
    if dataset.get("SamplesPerPixel", 1) == 3:
        dataset.PlanarConfiguration = 1 if syntax == "1.2.840.10008.1.2.5" else 0


def _swap_words(_: Dataset, element: DataElement) -> None:
    """Turn the words of one binary value round: pydicom keeps them as bytes and would write them as they were."""
    size = _WORD_BYTES.get(element.VR)
    if size is not None and isinstance(element.value, bytes | bytearray):
        element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()


def _swap_all_but_pixels(dataset: Dataset, element: DataElement) -> None:
    """Pixels are put right by what the header says of them; of 8 bits and less they are bytes, not words."""
    if element.tag != 0x7FE00010 or dataset.BitsAllocated == 8:
        _swap_words(dataset, element)
