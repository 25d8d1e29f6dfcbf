"""Wrap an MP4 file as Video Endoscopic Image: the bit stream stays as it is, the transfer syntax says what it is.

DICOM PS3.3 A.32.5 (Video Endoscopic Image IOD), C.7.6.5 (Cine), C.7.6.6 (Multi-frame); PS3.5 §8.2.7, §8.2.8 (MP4 as
container), Annex A.4.6 to A.4.9 (H.264, H.265: one fragment, an empty Basic Offset Table).
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    HEVCM10P51,
    HEVCMP51,
    MPEG4HP41,
    MPEG4HP422D,
    UID,
    VideoEndoscopicImageStorage,
)

from foramen.ingest.described import described, finished, study_uid_of
from foramen.ingest.mp4 import Video, read_mp4
from foramen.ingest.sidecar import Description
from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.identifiers import derived_uid

_MAIN, _HIGH = 77, 100
_LARGEST_FRAGMENT = 2**32 - 2
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def transfer_syntax_of(video: Video) -> UID:
    """Choose the transfer syntax by what the stream says of itself.

    A decoder of High Profile reads Main and Constrained Baseline too, and any lower level (ITU-T H.264 A.3).

    Raises
    ------
    InvalidRequestError
        Profile, level, chroma or depth that no transfer syntax of DICOM allows.
    """
    if video.codec == "avc":
        known = video.profile in (_MAIN, _HIGH) or video.constrained_baseline
        if known and video.chroma_420 and video.bits == 8:
            if video.level <= 41:
                return MPEG4HP41
            if video.level == 42:
                return MPEG4HP422D
    elif video.chroma_420 and video.level <= 153:
        if video.profile == 1 and video.bits == 8:
            return HEVCMP51
        if video.profile == 2 and video.bits <= 10:
            return HEVCM10P51
    raise InvalidRequestError(
        f"DICOM has no transfer syntax for {'H.264' if video.codec == 'avc' else 'H.265'} "
        f"of profile {video.profile}, level {video.level}, {video.bits} bits"
    )


def wrap_video(path: Path, description: Description) -> tuple[Dataset, tuple[str, ...]]:
    """Wrap one MP4 file.

    Returns
    -------
    The dataset with file meta information, and what there is to know of it, in words.

    Raises
    ------
    InvalidRequestError
        Not a whole MP4 file with one video that DICOM can hold.
    """
    size = path.stat().st_size
    if size > _LARGEST_FRAGMENT:
        raise InvalidRequestError("The video is larger than one fragment can be (4 GiB)")
    with path.open("rb") as file:
        video = read_mp4(file, size)
        syntax = transfer_syntax_of(video)
        file.seek(0)
        content = file.read()
    study_uid = study_uid_of(description)
    digest = hashlib.sha256(content).hexdigest()
    series_uid = derived_uid("series", study_uid, digest)
    dataset = described(description, VideoEndoscopicImageStorage, "ES", study_uid=study_uid, series_uid=series_uid)
    dataset.InstanceNumber = 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PatientOrientation = ""
    dataset.AcquisitionContextSequence = []
    _pixel_module(dataset, video)
    dataset.PixelData = _encapsulated(content)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    told = ("the sound track stays in the file; many DICOM viewers do not play it",) if video.audio else ()
    return finished(dataset, derived_uid("instance", series_uid, digest), syntax), told


def _pixel_module(dataset: Dataset, video: Video) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "YBR_PARTIAL_420"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = video.rows, video.columns, video.frames
    dataset.BitsAllocated = 8 if video.bits == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = video.bits, video.bits - 1, 0
    rate = video.frames / video.seconds if video.seconds > 0 else 0.0
    dataset.FrameIncrementPointer = 0x00181063
    dataset.FrameTime = f"{1000 / rate:.6g}" if rate else "0"
    if rate:
        dataset.CineRate = dataset.RecommendedDisplayFrameRate = max(1, round(rate))
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = "ISO_14496_10" if video.codec == "avc" else "ISO_23008_2"


def _encapsulated(content: bytes) -> bytes:
    """An empty Basic Offset Table and one fragment that is the whole stream (PS3.5 Table A.4-1)."""
    padding = b"\x00" * (len(content) % 2)
    return b"".join((_ITEM, bytes(4), _ITEM, struct.pack("<I", len(content) + len(padding)), content, padding, b""))
