"""What a network is told by its data, as nnU-Net does it: pixel size, crop and halvings from a fingerprint (stage 11).

https://doi.org/10.1038/s41592-020-01008-z, §Methods: target spacing is the median spacing; the patch begins at the
median shape and shrinks until a batch fits; each axis is halved while its map stays at 8 or more. Beyond nnU-Net: no
axis is halved more than four times, as the pipeline pads slices to multiples of 16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ai_services.training.engine.recipe import Recipe

MULTIPLE = 16
_SMALLEST_MAP = 8
_MOST_HALVINGS = 4
_SMALLEST_CROP = 32
MOST_PIXELS = 1 << 20
"""Pixels of a batch (POLICY): what a node without a GPU holds; where there is more memory, name the crop."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Median shape (rows, columns) of a dataset's slices, and their pixel size in millimetres."""

    shape: tuple[int, int]
    spacing_mm: float


def fingerprint_of(images: Sequence[Path], spacing_mm: float) -> Fingerprint:
    """Read the sizes of images; their pixels are not decoded."""
    sizes = []
    for path in images:
        with Image.open(path) as image:
            sizes.append((image.height, image.width))
    rows, columns = np.median(np.array(sizes), axis=0)
    return Fingerprint((round(rows), round(columns)), spacing_mm)


def configured(recipe: Recipe, fingerprint: Fingerprint) -> Recipe:
    """The recipe with what it leaves to the data (`auto`) decided."""
    spacing = recipe.spacing_mm or fingerprint.spacing_mm
    if recipe.crop is not None:
        return dataclasses.replace(recipe, spacing_mm=spacing)
    factor = fingerprint.spacing_mm / spacing
    shape = [max(side * factor, _SMALLEST_CROP) for side in fingerprint.shape]
    crop = [-(-round(side) // MULTIPLE) * MULTIPLE for side in shape]
    while recipe.batch * crop[0] * crop[1] > MOST_PIXELS and max(crop) > _SMALLEST_CROP:
        # The axis that is largest for its shape gives way, so that the crop keeps the shape of the data.
        shares = [side / whole if side > _SMALLEST_CROP else 0.0 for side, whole in zip(crop, shape, strict=True)]
        crop[shares.index(max(shares))] -= MULTIPLE
    return dataclasses.replace(recipe, spacing_mm=spacing, crop=(crop[0], crop[1]))


def strides_of(crop: tuple[int, int]) -> list[tuple[int, int]]:
    """Halvings of each stage of a network below its first, by axis; a short axis is halved less often."""
    strides = []
    sides = list(crop)
    for _ in range(_MOST_HALVINGS):
        halved = [side % 2 == 0 and side // 2 >= _SMALLEST_MAP for side in sides]
        if not any(halved):
            break
        strides.append((1 + halved[0], 1 + halved[1]))
        sides = [side // 2 if half else side for side, half in zip(sides, halved, strict=True)]
    return strides
