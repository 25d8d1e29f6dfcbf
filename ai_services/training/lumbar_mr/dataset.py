"""Reads the SPIDER-derived folder into memory, at the working resolution, split by patient (stage 11).

Data: https://doi.org/10.1038/s41597-024-03090-w (CC BY 4.0); layout in the README of the data folder.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ai_services.imaging.resample import resample_in_plane
from ai_services.pipelines.lumbar_mr.intensity import normalise_slices

WORKING_SPACING_MM = 0.94
SPACE_SPACING_MM = 0.46875
VALIDATION_PATIENTS = 6
CLASSES = ("background", "vertebra", "disc", "canal")


@dataclass(frozen=True)
class LabelledSlice:
    """One slice at the working resolution: image float32 (row, column), mask uint8 of class numbers."""

    patient: int
    slice_index: int
    image: NDArray[np.float32]
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class MidsagittalImage:
    """One midsagittal image at the working resolution, with its original kept for the disc crops."""

    patient: int
    sequence: str
    image: NDArray[np.float32]
    original: NDArray[np.float32]
    spacing_mm: float


@dataclass(frozen=True)
class DiscGrading:
    """Radiologist's grading of one disc; `index` 0 is the lowest disc."""

    index: int
    pfirrmann: int
    bulging: bool
    herniation: bool
    narrowing: bool
    modic: bool = False
    spondylolisthesis: bool = False


def to_working(image: NDArray[np.float32], spacing_mm: float) -> NDArray[np.float32]:
    """Resample one image to the working spacing and normalise it as serving does."""
    factor = WORKING_SPACING_MM / spacing_mm
    result: NDArray[np.float32] = normalise_slices(resample_in_plane(image[None], factor, factor))[0]
    return result


def to_working_mask(mask: NDArray[np.uint8], spacing_mm: float) -> NDArray[np.uint8]:
    """Resample a class mask: the class with the largest area in each output pixel."""
    factor = WORKING_SPACING_MM / spacing_mm
    one_hot = np.stack([(mask == number).astype(np.float32) for number in range(len(CLASSES))])
    result: NDArray[np.uint8] = resample_in_plane(one_hot, factor, factor).argmax(axis=0).astype(np.uint8)
    return result


def load_space(data: Path) -> list[LabelledSlice]:
    """All T2 SPACE slices with their masks, by patient and slice."""
    slices = []
    for path in sorted((data / "t2_space" / "images").glob("*.webp")):
        match = re.fullmatch(r"(\d+)_t2_SPACE_slice(\d+)", path.stem)
        if match is None:
            continue
        image = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        mask = np.asarray(Image.open(data / "t2_space" / "masks" / f"{path.stem}.png"), dtype=np.uint8)
        slices.append(
            LabelledSlice(
                patient=int(match[1]),
                slice_index=int(match[2]),
                image=to_working(image, SPACE_SPACING_MM),
                mask=to_working_mask(mask, SPACE_SPACING_MM),
            )
        )
    return sorted(slices, key=lambda item: (item.patient, item.slice_index))


def load_midsagittal(data: Path, sequences: tuple[str, ...] = ("t2", "t2_SPACE")) -> list[MidsagittalImage]:
    """Midsagittal images of the wanted sequences whose pixel spacing the table gives."""
    with (data / "overview.csv").open(encoding="utf-8") as file:
        spacing = {
            row["new_file_name"]: float(row["PixelSpacing"].strip("[]").split(",")[0]) for row in csv.DictReader(file)
        }
    images = []
    for path in sorted((data / "midsagittal").glob("*.png")):
        patient, _, sequence = path.stem.partition("_")
        if sequence not in sequences or path.stem not in spacing:
            continue
        original = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        images.append(
            MidsagittalImage(
                patient=int(patient),
                sequence=sequence,
                image=to_working(original, spacing[path.stem]),
                original=original,
                spacing_mm=spacing[path.stem],
            )
        )
    return sorted(images, key=lambda item: (item.patient, item.sequence))


def load_gradings(data: Path) -> dict[int, list[DiscGrading]]:
    """Gradings by patient, from the lowest disc up."""
    gradings: dict[int, list[DiscGrading]] = {}
    with (data / "gradings.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            gradings.setdefault(int(row["Patient"]), []).append(
                DiscGrading(
                    index=int(row["IVD label"]) - 1,
                    pfirrmann=int(row["Pfirrman grade"]),
                    bulging=row["Disc bulging"] == "1",
                    herniation=row["Disc herniation"] == "1",
                    narrowing=row["Disc narrowing"] == "1",
                    modic=row.get("Modic", "0") not in ("", "0"),
                    spondylolisthesis=row.get("Spondylolisthesis") == "1",
                )
            )
    return {patient: sorted(discs, key=lambda disc: disc.index) for patient, discs in gradings.items()}


def validation_patients(space_patients: list[int], seed: int, count: int = VALIDATION_PATIENTS) -> tuple[int, ...]:
    """Draw the SPACE patients that neither network sees; the same seed gives the same patients."""
    drawn = np.random.default_rng(seed).permutation(sorted(set(space_patients)))[:count]
    return tuple(sorted(int(patient) for patient in drawn))
