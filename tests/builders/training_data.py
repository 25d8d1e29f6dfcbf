"""SYNTHETIC training data: labelled slices of phantoms, laid out as the real data is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ai_services.imaging.phantom import Phantom, lumbar_phantom

IN_PLANE_MM = 0.46875


def phantom(patient: int, slices: int) -> Phantom:
    """The phantom of a patient."""
    return lumbar_phantom(patient, slices=slices, rows=448, columns=352, spacing_mm=(4, IN_PLANE_MM, IN_PLANE_MM))


def labelled_phantoms(folder: Path, patients: int = 12, slices: int = 2) -> Path:
    """Write image and mask of each slice of each patient."""
    for part in ("images", "masks"):
        (folder / "t2_space" / part).mkdir(parents=True)
    for patient in range(1, patients + 1):
        drawn = phantom(patient, slices)
        images = (np.clip(drawn.pixels / 1200, 0, 1) * 255).astype(np.uint8)
        for index, (image, mask) in enumerate(zip(images, drawn.mask, strict=True)):
            name = f"{patient}_t2_SPACE_slice{index}"
            Image.fromarray(image).save(folder / "t2_space" / "images" / f"{name}.webp", lossless=True)
            Image.fromarray(mask).save(folder / "t2_space" / "masks" / f"{name}.png")
    return folder
