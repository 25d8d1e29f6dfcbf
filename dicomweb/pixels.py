"""Frames as bytes and as pictures. Pure functions on one stored file.

DICOM PS3.5 §8 and Annex A (encodings), PS3.3 C.11.1 and C.11.2 (modality and VOI LUT), PS3.18 §8.7.3.3 (rendered).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from foramen.kernel.errors import NotFoundError, UnsupportedMediaTypeError

COMPRESSED_MEDIA_TYPES = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
}
"""PS3.18 Table 8.7.3-5: media type of one compressed frame by its transfer syntax."""

_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}  # PS3.5 §6.2
EXPLICIT_LITTLE = str(ExplicitVRLittleEndian)


class UndecodableError(UnsupportedMediaTypeError):
    """The stored pixel data cannot be decoded here; the stored bytes can still be retrieved."""

    status = 406


@dataclass(frozen=True, slots=True)
class Rendering:
    """How to make a picture of a frame (PS3.18 §8.3.5.1)."""

    media_type: str = "image/jpeg"
    window: tuple[float, float] | None = None
    viewport: tuple[int, int] | None = None
    quality: int = 90


def parse(content: bytes) -> Dataset:
    """Parse a stored file."""
    return dcmread(BytesIO(content))


def stored_frame(dataset: Dataset, number: int) -> bytes:
    """One frame (from 1) as it is stored, compressed."""
    try:
        return bytes(get_frame(dataset.PixelData, number - 1, number_of_frames=_frames(dataset)))
    except (ValueError, EOFError) as exc:
        raise NotFoundError("No such frame") from exc


def little_endian_frame(dataset: Dataset, number: int) -> bytes:
    """One frame (from 1) decoded: little endian, planes as Planar Configuration says, one-bit frames from a byte on."""
    frame = _decode(dataset, number, raw=True)
    if dataset.BitsAllocated == 1:
        return np.packbits(frame.ravel().astype(np.uint8), bitorder="little").tobytes()
    if frame.ndim == 3 and dataset.get("PlanarConfiguration") == 1:
        frame = frame.transpose(2, 0, 1)  # pydicom gives colour by pixel; the metadata we serve says by plane
    return np.ascontiguousarray(frame.astype(frame.dtype.newbyteorder("<"))).tobytes()


def to_explicit_little_endian(content: bytes) -> bytes:
    """Rewrite a stored file in Explicit VR Little Endian, decompressed."""
    dataset = parse(content)
    if dataset.file_meta.TransferSyntaxUID.is_compressed and "PixelData" in dataset:
        try:
            dataset.decompress()
        except Exception as exc:
            # pydicom and its codecs raise many kinds for pixel data they cannot decode.
            raise UndecodableError("The stored pixel data cannot be decoded; ask for transfer-syntax=*") from exc
    if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        dataset.walk(_swap_words)
    target = BytesIO()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(target, dataset, little_endian=True, implicit_vr=False, enforce_file_format=True)
    return target.getvalue()


def _swap_words(_: Dataset, element: DataElement) -> None:
    """Turn the words of one binary value round: pydicom keeps them as bytes and would write them as they were."""
    size = _WORD_BYTES.get(element.VR)
    if size is not None and isinstance(element.value, bytes | bytearray):
        element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()


def rendered(dataset: Dataset, number: int, rendering: Rendering) -> bytes:
    """Picture of one frame (from 1): JPEG or PNG, 8 bit, windowed as asked or as the dataset says."""
    frame = _decode(dataset, number, raw=False)
    picture = (
        Image.fromarray(frame)
        if frame.ndim == 3
        else Image.fromarray(_windowed(frame, dataset, number, rendering.window))
    )
    if rendering.viewport is not None:
        picture.thumbnail(rendering.viewport, Image.Resampling.BILINEAR)
    target = BytesIO()
    if rendering.media_type == "image/png":
        picture.save(target, "PNG")
    else:
        picture.convert("L" if frame.ndim == 2 else "RGB").save(target, "JPEG", quality=rendering.quality)
    return target.getvalue()


def _frames(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _decode(dataset: Dataset, number: int, *, raw: bool) -> NDArray[Any]:
    if "PixelData" not in dataset or not 1 <= number <= _frames(dataset):
        raise NotFoundError("No such frame")
    try:
        return np.asarray(pixel_array(dataset, index=number - 1, raw=raw))
    except Exception as exc:
        # pydicom and its codecs raise many kinds for pixel data they cannot decode.
        raise UndecodableError("The stored pixel data cannot be decoded here") from exc


def _windowed(
    frame: NDArray[Any], dataset: Dataset, number: int, window: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """Map stored values to 0–255: modality LUT, then the window asked for, the stored one, or the whole range."""
    attributes = _frame_attributes(dataset, number)
    values = apply_modality_lut(frame, attributes).astype(np.float64)
    if window is not None:
        attributes.WindowCenter, attributes.WindowWidth = window
        attributes.VOILUTFunction = "LINEAR"
        shown = _unit_range(values, attributes)
    elif "WindowCenter" in attributes and "WindowWidth" in attributes:
        shown = _unit_range(values, attributes)
    elif "VOILUTSequence" in attributes:
        shown = _stretched(apply_voi_lut(frame, attributes).astype(np.float64))
    else:
        shown = _stretched(values)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = 1.0 - shown
    return np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8)


def _unit_range(values: NDArray[np.float64], attributes: Dataset) -> NDArray[np.float64]:
    """Apply the linear or sigmoid window of PS3.3 C.11.2.1.2 and scale to 0–1."""
    center, width = _number(attributes.WindowCenter), max(_number(attributes.WindowWidth), 1.0)
    if attributes.get("VOILUTFunction") == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(-4.0 * (values - center) / width)))
    return np.clip((values - (center - 0.5)) / max(width - 1.0, 1e-9) + 0.5, 0.0, 1.0)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.zeros_like(values) if high <= low else (values - low) / (high - low)


def _number(value: Any) -> float:
    return float(value if isinstance(value, str | int | float) else value[0])


def _frame_attributes(dataset: Dataset, number: int) -> Dataset:
    """Rescale and window of one frame: its functional groups first, then the shared ones, then the top level."""
    result = Dataset()
    result.PixelRepresentation = dataset.get("PixelRepresentation", 0)
    result.BitsStored = dataset.get("BitsStored", 8)
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    own = [frames[number - 1]] if len(frames) >= number else []
    for source in (dataset, *shared, *own):
        groups = [source]
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            groups += list(source.get(name) or [])
        for group in groups:
            for keyword in (
                *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
                *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
            ):
                if keyword in group and group[keyword].value not in (None, ""):
                    result[keyword] = group[keyword]
    return result
