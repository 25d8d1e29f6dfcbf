"""Training samples: labelled slices of a dataset version's split, cached or streamed (stage 11).

MONAI datasets: https://docs.monai.io/en/stable/data.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ai_services.imaging.resample import resample_in_plane
from ai_services.pipelines.lumbar_mr.intensity import normalise_slices
from ai_services.training.dataset_version import DatasetVersion
from ai_services.training.engine.draws import Draws
from ai_services.training.engine.recipe import Recipe, decided
from ai_services.training.lumbar_mr.augment import augment_batch

CLASSES = 4
STORED_SPACING_MM = 0.46875
Cache = Literal["memory", "disk", "none"]


@dataclass(frozen=True, slots=True)
class SliceFile:
    """One labelled slice: image and mask file, and the patient."""

    image: Path
    mask: Path
    patient: str


class Samples:
    """Slices of one split, and the samples of each step.

    Parameters
    ----------
    files : the slices
    recipe : crop, spacing, batch, seed
    cache : ``memory`` keeps decoded slices, ``disk`` keeps them beside the run (read from SSD), ``none`` streams
    folder : of the disk cache
    """

    def __init__(
        self, files: Sequence[SliceFile], recipe: Recipe, cache: Cache = "memory", folder: Path | None = None
    ) -> None:
        self._recipe = recipe
        items = [{"image": file.image, "mask": file.mask} for file in files]
        self._slices = _cached(items, _Decode(decided(recipe.spacing_mm)), cache, folder)
        self._draws = Draws([file.patient for file in files], recipe.batch, recipe.seed)

    def __len__(self) -> int:
        return len(self._draws)

    def batch(self, step: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Samples of a step at the given places of its batch.

        Returns
        -------
        images float32 (sample, 1, row, column), masks int64 (sample, row, column)
        """
        drawn = self._draws.drawn(step)
        pairs = [self._sample(drawn[position], step, position) for position in positions]
        return torch.cat([image for image, _ in pairs]), torch.cat([mask for _, mask in pairs])

    def whole(self, index: int) -> tuple[Tensor, Tensor]:
        """One slice as it is, padded to a multiple of 16: image (1, 1, row, column), mask (1, row, column)."""
        item = self._slices[index]
        rows, columns = item["image"].shape
        pad = ((0, -rows % 16), (0, -columns % 16))
        image, mask = np.pad(item["image"], pad), np.pad(item["mask"], pad)
        return torch.from_numpy(image)[None, None], torch.from_numpy(mask).long()[None]

    def _sample(self, index: int, step: int, position: int) -> tuple[Tensor, Tensor]:
        item, crop = self._slices[index], decided(self._recipe.crop)
        generator = self._draws.generator(step, position)
        if self._recipe.augment:
            canvas = (max(crop[0], 352), max(crop[1], 320))
            image = torch.from_numpy(_centred(item["image"], canvas))[None, None]
            mask = torch.from_numpy(_centred(item["mask"], canvas)).long()[None]
            return augment_batch(image, mask, generator, crop)
        image, mask = _centred(item["image"], crop), _centred(item["mask"], crop)
        return torch.from_numpy(image)[None, None], torch.from_numpy(mask).long()[None]


def files_of(folder: Path, version: DatasetVersion, split: str) -> list[SliceFile]:
    """Labelled slices of a split; only what the version names is used, and never a patient of another split."""
    patients = version.patients_of(split)
    known = {file.path for file in version.files}
    found = []
    for file in version.files:
        path = Path(file.path)
        mask = path.parent.parent / "masks" / f"{path.stem}.png"
        if path.parent.name == "images" and file.patient in patients and mask.as_posix() in known:
            found.append(SliceFile(folder / path, folder / mask, str(file.patient)))
    return found


class _Decode:
    """Read a slice at the working resolution, normalised as serving does it."""

    def __init__(self, spacing_mm: float) -> None:
        self._factor = spacing_mm / STORED_SPACING_MM

    def __call__(self, item: dict[str, Path]) -> dict[str, NDArray[Any]]:
        grey = np.asarray(Image.open(item["image"]).convert("L"), dtype=np.float32)
        classes = np.asarray(Image.open(item["mask"]), dtype=np.uint8)
        one_hot = np.stack([(classes == number).astype(np.float32) for number in range(CLASSES)])
        image = normalise_slices(resample_in_plane(grey[None], self._factor, self._factor))[0]
        mask = resample_in_plane(one_hot, self._factor, self._factor).argmax(axis=0).astype(np.uint8)
        return {"image": image, "mask": mask}


def _cached(items: list[dict[str, Path]], decode: _Decode, cache: Cache, folder: Path | None) -> Any:
    if cache == "memory":
        return CacheDataset(items, decode, progress=False)
    if cache == "disk":
        if folder is None:
            raise ValueError("a disk cache needs a folder")
        return PersistentDataset(items, decode, cache_dir=folder)
    return Dataset(items, decode)


def _centred(array: NDArray[Any], canvas: tuple[int, int]) -> NDArray[Any]:
    """Centre an array on a canvas of zeros, cropping what does not fit."""
    out = np.zeros(canvas, dtype=array.dtype)
    take = [min(have, want) for have, want in zip(array.shape, canvas, strict=True)]
    source = tuple(slice((have - n) // 2, (have - n) // 2 + n) for have, n in zip(array.shape, take, strict=True))
    target = tuple(slice((want - n) // 2, (want - n) // 2 + n) for want, n in zip(canvas, take, strict=True))
    out[target] = array[source]
    return out
