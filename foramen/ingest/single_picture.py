"""Wrap one photograph or screen picture as Secondary Capture; a JPEG keeps its code stream, byte for byte.

DICOM PS3.3 A.8.1 (Secondary Capture Image IOD), C.8.6.1 (SC Equipment); PS3.5 §8.2.1, §A.4.1 (JPEG);
ITU-T T.81 Annex B (markers).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
)

from foramen.ingest.described import described, finished, study_uid_of
from foramen.ingest.sidecar import Description
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.identifiers import derived_uid

_MOST_PIXELS = 100_000_000
_SYNTAXES = {0xC0: JPEGBaseline8Bit, 0xC1: JPEGExtended12Bit}
_ORIENTATION = 0x0112
_DROPPED = frozenset((*range(0xE1, 0xE2), *range(0xE3, 0xEE), 0xEF, 0xFE))
"""APP1 (EXIF, XMP), APP3-13, APP15 and comments: where cameras write persons, places and devices."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """What the markers of a JPEG say: `components` as (id, horizontal, vertical sampling)."""

    process: int
    precision: int
    rows: int
    columns: int
    components: tuple[tuple[int, int, int], ...]
    adobe_transform: int | None
    stream: bytes
    dropped: bool


def wrap_picture(path: Path, description: Description) -> tuple[Dataset, tuple[str, ...]]:
    """Wrap one picture.

    Returns
    -------
    The dataset with file meta information, and what was changed, in words.

    Raises
    ------
    InvalidRequestError
        Not a picture, truncated, or larger than 100 million pixels.
    """
    content = path.read_bytes()
    picture = _opened(content)
    told: list[str] = []
    study_uid = study_uid_of(description)
    series_uid = derived_uid("series", study_uid, "secondary-capture")
    photograph = description.modality in ("XC", "ES", "GM")
    sop_class = VLPhotographicImageStorage if photograph else SecondaryCaptureImageStorage
    dataset = described(description, sop_class, "OT", study_uid=study_uid, series_uid=series_uid)
    number = re.search(r"(\d{1,9})\D*$", path.stem)
    dataset.InstanceNumber = int(number[1]) if number else None
    dataset.ImageType = ["ORIGINAL", "PRIMARY"] if photograph else ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = ""
    dataset.ConversionType = "DI" if photograph else "WSD"
    if photograph:
        dataset.AcquisitionContextSequence = []
        dataset.LossyImageCompression = "00"
    syntax = _as_it_is(dataset, content, picture, told) or _decoded(dataset, picture, told)
    digest = hashlib.sha256(content).hexdigest()
    return finished(dataset, derived_uid("instance", series_uid, digest), syntax), tuple(told)


def _opened(content: bytes) -> Image.Image:
    try:
        picture = Image.open(BytesIO(content))
        if picture.width * picture.height > _MOST_PIXELS:
            raise InvalidRequestError(f"More than {_MOST_PIXELS} pixels")
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise InvalidRequestError("Not a readable picture") from exc
    return picture


def _as_it_is(dataset: Dataset, content: bytes, picture: Image.Image, told: list[str]) -> str | None:
    """Take over the code stream of a JPEG that DICOM has a transfer syntax for and that needs no turning."""
    if picture.format != "JPEG" or picture.getexif().get(_ORIENTATION, 1) != 1:
        return None
    jpeg = read_jpeg(content)
    interpretation = _interpretation(jpeg) if jpeg else None
    if jpeg is None or interpretation is None:
        return None
    if jpeg.dropped:
        told.append("removed from the JPEG: the camera's notes (EXIF, XMP, comments); its image data is as it was")
    samples = len(jpeg.components)
    _image(dataset, jpeg.rows, jpeg.columns, samples, interpretation, 8 if jpeg.precision == 8 else 16)
    dataset.BitsStored, dataset.HighBit = jpeg.precision, jpeg.precision - 1
    _lossy(dataset, len(jpeg.stream))
    if profile := picture.info.get("icc_profile"):
        dataset.ICCProfile = profile + b"\x00" * (len(profile) % 2)
    dataset.PixelData = encapsulate([jpeg.stream])
    dataset["PixelData"].VR = "OB"
    return str(_SYNTAXES[jpeg.process])


def _decoded(dataset: Dataset, picture: Image.Image, told: list[str]) -> str:
    """Store the decoded pixels: PNG, WebP, and JPEGs of a kind that DICOM has no transfer syntax for."""
    lossy = picture.format == "JPEG" or (picture.format == "WEBP" and picture.info.get("lossless") is not True)
    if picture.format == "JPEG":
        told.append("the JPEG was decoded: progressive, four colours, or to be turned as its EXIF says")
    upright = ImageOps.exif_transpose(picture)
    grey16 = upright.mode in ("I;16", "I;16L", "I;16B", "I")
    if grey16:
        pixels = np.clip(np.asarray(upright), 0, 65535).astype("<u2")
    else:
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            ground = Image.new("RGBA", upright.size, "black")
            upright = Image.alpha_composite(ground, upright.convert("RGBA")).convert("RGB")
            told.append("transparent parts are black")
        pixels = np.asarray(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))
    samples = 1 if pixels.ndim == 2 else 3
    interpretation = "MONOCHROME2" if samples == 1 else "RGB"
    _image(dataset, pixels.shape[0], pixels.shape[1], samples, interpretation, 16 if grey16 else 8)
    if samples == 3:
        dataset.PlanarConfiguration = 0
    if lossy:
        _lossy(dataset, None, "ISO_10918_1" if picture.format == "JPEG" else None)
    data = np.ascontiguousarray(pixels).tobytes()
    dataset.PixelData = data + b"\x00" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if grey16 else "OB"
    return str(ExplicitVRLittleEndian)


def _image(dataset: Dataset, rows: int, columns: int, samples: int, interpretation: str, bits: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = samples, interpretation
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    if samples == 3:
        dataset.PlanarConfiguration = 0


def _lossy(dataset: Dataset, size: int | None, method: str | None = "ISO_10918_1") -> None:
    """Say that something was lost before it came here (PS3.3 C.7.6.1.1.5)."""
    dataset.LossyImageCompression = "01"
    if method:
        dataset.LossyImageCompressionMethod = method
    if size:
        native = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        dataset.LossyImageCompressionRatio = round(native / size, 2)


def _interpretation(jpeg: Jpeg) -> str | None:
    """Photometric Interpretation of a code stream that is stored as it is (PS3.5 §8.2.1); None: there is none."""
    if jpeg.process not in _SYNTAXES or (jpeg.process == 0xC0 and jpeg.precision != 8):
        return None
    if len(jpeg.components) == 1:
        return "MONOCHROME2"
    if len(jpeg.components) != 3:
        return None
    if jpeg.adobe_transform == 0 or [component[0] for component in jpeg.components] == [82, 71, 66]:
        return "RGB"
    # Both 4:2:2 and 4:2:0 are YBR_FULL_422 with JPEG: the code stream itself says which.
    return "YBR_FULL" if jpeg.components[0][1:] == jpeg.components[1][1:] else "YBR_FULL_422"


def read_jpeg(content: bytes) -> Jpeg | None:
    """Read the markers of a JPEG up to its first scan; None: not one this reads to the end.

    `stream` is the same code stream without the segments that may name somebody.
    """
    kept = bytearray(b"\xff\xd8")
    place, frame, adobe, dropped = 2, None, None, False
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place + 4 : place + 2 + length]
        if length < 2 or len(segment) != length - 2:
            return None
        if marker == 0xDA:
            if frame is None or b"\xff\xd9" not in content[-4096:]:
                return None
            process, precision, rows, columns, components = frame
            # What follows the end of the image belongs to nobody: telephones hang videos there.
            stream = bytes(kept + content[place : content.rindex(b"\xff\xd9") + 2])
            return Jpeg(process, precision, rows, columns, components, adobe, stream, dropped)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(segment) < 6 + 3 * segment[5]:
                return None
            components = tuple(
                (segment[6 + 3 * n], segment[7 + 3 * n] >> 4, segment[7 + 3 * n] & 15) for n in range(segment[5])
            )
            rows, columns = (int.from_bytes(segment[at : at + 2], "big") for at in (1, 3))
            frame = (marker, segment[0], rows, columns, components)
        elif marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
        if marker in _DROPPED:
            dropped = True
        else:
            kept += content[place : place + 2 + length]
        place += 2 + length
    return None
