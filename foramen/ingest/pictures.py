"""PNG, JPEG and WebP files as grey slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from foramen.ingest.sidecar import Sidecar
from foramen.ingest.wrap import Slice
from foramen.kernel.errors import InvalidRequestError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp"))


def read_slice(path: Path, sidecar: Sidecar) -> Slice:
    """Read one picture.

    Raises
    ------
    InvalidRequestError
        Not a picture, truncated, or its name holds no slice index.
    """
    index = sidecar.slice_index(path.name)
    try:
        with Image.open(path) as picture:
            picture.load()
            # A lossless WebP is coded as VP8L; every JPEG and every other WebP has lost something.
            lossy = picture.format == "JPEG" or (picture.format == "WEBP" and b"VP8L" not in path.read_bytes()[:64])
            if picture.mode in ("I;16", "I;16L", "I;16B", "I"):
                pixels = np.asarray(picture).astype(np.uint16)
            else:
                pixels = np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as exc:
        raise InvalidRequestError("Not a readable picture") from exc
    return Slice(index, pixels, lossy)
