"""SYNTHETIC files of every kind: pictures, videos by a real encoder, surfaces, DICOM with the faults of vendors."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image
from pydicom import Dataset

from tests.builders.dicom import encoded, series

BINARY_STL = b"SYNTHETIC".ljust(80) + struct.pack("<I", 1) + struct.pack("<12fH", *([0.0] * 9), 1.0, 0.0, 0.0, 0)
TEXT_OBJ = b"# SYNTHETIC\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def gradient(rows: int = 40, columns: int = 30) -> np.ndarray:
    """A colour picture with detail, so that a codec has something to lose."""
    y, x = np.mgrid[0:rows, 0:columns]
    return np.stack([x * 8 % 256, y * 6 % 256, (x + y) * 3 % 256], axis=-1).astype(np.uint8)


def jpeg(**options: object) -> bytes:
    """A JPEG of the gradient."""
    target = BytesIO()
    Image.fromarray(gradient()).save(target, "JPEG", **options)
    return target.getvalue()


def mp4(
    folder: Path, codec: str = "libx264", pixels: str = "yuv420p", frames: int = 10, name: str = "v.mp4", **options: str
) -> bytes:
    """A video of a rising grey, by FFmpeg's encoders."""
    path = folder / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.options = {"x265-params": "log-level=none", **options}
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 20, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path.read_bytes()


def without_character_set(name: bytes, *, patient_id: str = "SYN-1", seed: int = 1) -> bytes:
    """A DICOM file whose PatientName holds these bytes and that does not say how to read them."""
    (dataset,) = series(1, seed=seed, patient_id=patient_id, patient_name="XXXX")
    del dataset.SpecificCharacterSet
    whole = encoded(dataset)
    padded = name + b" " * (len(name) % 2)
    at = whole.index(b"\x10\x00\x10\x00PN")
    return whole[: at + 6] + struct.pack("<H", len(padded)) + padded + whole[at + 8 + 4 :]


def element(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian with a short length, right or not."""
    return struct.pack("<HH", *tag) + vr + struct.pack("<H", len(value)) + value


def replaced(dataset: Dataset, tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """A file in which one element of the dataset is written otherwise."""
    whole = encoded(dataset)
    head = struct.pack("<HH", *tag)
    at = whole.index(head, 132)
    (length,) = struct.unpack_from("<H", whole, at + 6)
    return whole[:at] + element(tag, vr, value) + whole[at + 8 + length :]
