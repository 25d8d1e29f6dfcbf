"""Pixel data sent as bulk data of a consumer or DICOM media type (DICOM PS3.18 Tables 8.7.3-5 and 10.5.2-1)."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from pydicom import Dataset

from dicomweb.instance_check import FailureReason, RejectedInstanceError

SYNTAX_OF = {
    "image/jpeg": "1.2.840.10008.1.2.4.50",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.90",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/x-dicom-rle": "1.2.840.10008.1.2.5",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mpeg2": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
}
"""Transfer syntax a media type has when its part names none."""

_TRANSFORMED = frozenset(("image/png", "image/gif"))
_MOST_PIXELS = 64_000_000
_DESCRIBED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored")


def is_transformed(media_type: str) -> bool:
    """Whether no transfer syntax exists for the media type: such an image is stored uncompressed."""
    return media_type in _TRANSFORMED


def _open(content: bytes) -> Image.Image:
    try:
        image = Image.open(BytesIO(content))
    except Exception as exc:
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The image cannot be read") from exc
    if image.width * image.height > _MOST_PIXELS or max(image.size) > 65_535:
        raise RejectedInstanceError(FailureReason.OUT_OF_RESOURCES, "The image is too large")
    return image


def transformed(dataset: Dataset, images: list[bytes]) -> None:
    """Set native pixel data and its description from PNG or GIF images; transparency is dropped (note 4 of the table).

    Raises
    ------
    RejectedInstanceError
        Not an image, too large, or frames of different kinds.
    """
    frames: list[np.ndarray] = []
    for content in images:
        image = _open(content)
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(_array(image))
            if sum(frame.size for frame in frames) > _MOST_PIXELS * 3:
                raise RejectedInstanceError(FailureReason.OUT_OF_RESOURCES, "The images are too large")
    if len({(frame.shape, frame.dtype) for frame in frames}) != 1:
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The frames differ in size or kind")
    first = frames[0]
    _set_description(dataset, first.shape[0], first.shape[1], 3 if first.ndim == 3 else 1, first.dtype.itemsize * 8)
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    content = b"".join(frame.astype(frame.dtype.newbyteorder("<")).tobytes() for frame in frames)
    dataset.add_new(0x7FE00010, "OW" if first.dtype.itemsize == 2 else "OB", content + b"\0" * (len(content) % 2))


def _array(image: Image.Image) -> np.ndarray:
    try:
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.uint16)
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))
        colours = np.asarray(image.convert("RGB"))
        # A palette of greys is an image in greys (GIF has no other form).
        is_grey = image.mode == "P" and (colours[..., :1] == colours).all()
        return colours[..., 0].copy() if is_grey else colours
    except Exception as exc:
        raise RejectedInstanceError(FailureReason.CANNOT_UNDERSTAND, "The image cannot be decoded") from exc


def describe(dataset: Dataset, content: bytes, media_type: str) -> None:
    """Derive the Image Pixel Description Macro from a compressed image where the metadata leaves it out."""
    if all(keyword in dataset for keyword in _DESCRIBED) or not media_type.startswith("image/"):
        return
    image = _open(content)
    colour = image.mode not in ("1", "L", "LA", "I", "I;16")
    _set_description(dataset, image.height, image.width, 3 if colour else 1, 16 if image.mode.startswith("I") else 8)
    if colour and media_type == "image/jpeg":
        dataset.PhotometricInterpretation = "YBR_FULL_422"


def _set_description(dataset: Dataset, rows: int, columns: int, samples: int, bits: int) -> None:
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, samples
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        dataset.PlanarConfiguration = 0
