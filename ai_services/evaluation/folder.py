"""Reads a folder of labelled lumbar MR laid out like SPIDER's derived set (stage 11).

`gradings.csv` (one row a disc, IVD label 1 is the lowest), `overview.csv` (one row a series),
`midsagittal/<patient>_<sequence>.png`,
`t2_space/images` and `t2_space/masks` (`<patient>_t2_SPACE_slice<NN>`; 1 vertebra, 2 disc, 3 canal).
Data: https://doi.org/10.1038/s41597-024-03090-w (CC BY 4.0).
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ai_services.imaging.volume import Volume

SPACE_SPACING_MM = 0.46875
SINGLE_SLICE_MM = 4.0
_SLICE_NAME = re.compile(r"(\d+)_t2_SPACE_slice(\d+)")


class EvaluationDataError(Exception):
    """The folder cannot be evaluated; the message names file and place, never a patient's data."""


@dataclass(frozen=True, slots=True)
class DiscTruth:
    """A radiologist's grading of one disc; `label` 1 is the lowest. None where the table says nothing."""

    label: int
    pfirrmann: int
    labels: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Series:
    """One series of one patient.

    Parameters
    ----------
    patient : number in the folder
    sequence : ``t1``, ``t2`` or ``t2_SPACE``
    volume : head up, anterior left; its place in the patient is made up, only distances are real
    classes : shape of the volume, 0 background, 1 vertebra, 2 disc, 3 canal; None where there is no mask
    """

    patient: int
    sequence: str
    volume: Volume
    classes: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """What a folder holds, without the pixels."""

    path: Path
    gradings: dict[int, tuple[DiscTruth, ...]]
    properties: dict[str, dict[str, str]]
    space_slices: dict[int, tuple[tuple[int, Path], ...]]
    still_images: dict[tuple[int, str], Path]

    @property
    def patients(self) -> tuple[int, ...]:
        """Everybody of whom there is an image."""
        return tuple(sorted({patient for patient, _ in self.still_images} | set(self.space_slices)))

    def subgroups_of(self, patient: int, sequence: str) -> dict[str, str]:
        """Vendor, field strength, sex and sequence of a series, as the table has them."""
        row = self.properties.get(f"{patient}_{sequence}", {})
        words = {
            "vendor": row.get("Manufacturer", "").split(" ")[0].title(),
            "field_strength": f"{float(row['MagneticFieldStrength']):.1f} T"
            if row.get("MagneticFieldStrength")
            else "",
            "sex": row.get("sex", "").strip(),
        }
        return {name: word or "unknown" for name, word in words.items()} | {"sequence": sequence}

    def still(self, patient: int, sequence: str) -> Series | None:
        """The single midsagittal image of a sequence as a volume of one slice; None where there is none."""
        path = self.still_images.get((patient, sequence))
        spacing = self._spacing_mm(patient, sequence)
        if path is None or spacing is None:
            return None
        image = _grey(path)
        return Series(patient, sequence, still_volume(image[None], spacing), None)

    def space(self, patient: int) -> Series | None:
        """The T2 SPACE slices of a patient with their masks; None where there are none."""
        slices = self.space_slices.get(patient)
        if not slices:
            return None
        steps = np.diff([number for number, _ in slices])
        step_mm = float(np.median(steps)) if len(steps) else SINGLE_SLICE_MM
        images = np.stack([_grey(path) for _, path in slices])
        masks = [self.path / "t2_space" / "masks" / f"{path.stem}.png" for _, path in slices]
        classes = np.stack([_classes(mask) for mask in masks]) if all(mask.is_file() for mask in masks) else None
        if classes is not None and classes.shape != images.shape:
            raise EvaluationDataError("t2_space/masks: a mask has another size than its image")
        return Series(patient, "t2_SPACE", _volume(images, step_mm, (SPACE_SPACING_MM, SPACE_SPACING_MM)), classes)

    def _spacing_mm(self, patient: int, sequence: str) -> tuple[float, float] | None:
        text = self.properties.get(f"{patient}_{sequence}", {}).get("PixelSpacing", "")
        numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
        return (numbers[0], numbers[1]) if len(numbers) == 2 and min(numbers) > 0 else None


def read_folder(path: Path) -> LabelledFolder:
    """Look at what a folder holds.

    Raises
    ------
    EvaluationDataError
        Where there is no such folder, no image in it, or a table that cannot be read.
    """
    if not path.is_dir():
        raise EvaluationDataError("there is no such folder")
    space: dict[int, list[tuple[int, Path]]] = defaultdict(list)
    for file in sorted((path / "t2_space" / "images").glob("*.*")):
        if (match := _SLICE_NAME.fullmatch(file.stem)) is not None:
            space[int(match[1])].append((int(match[2]), file))
    stills = {}
    for file in sorted((path / "midsagittal").glob("*.png")):
        patient, _, sequence = file.stem.partition("_")
        if patient.isdigit():
            stills[int(patient), sequence] = file
    if not space and not stills:
        raise EvaluationDataError("neither midsagittal/ nor t2_space/images/ holds an image")
    return LabelledFolder(
        path=path,
        gradings=_gradings(path / "gradings.csv"),
        properties=_properties(path / "overview.csv"),
        space_slices={patient: tuple(sorted(slices)) for patient, slices in space.items()},
        still_images=stills,
    )


def still_volume(array: NDArray[np.float32], spacing_mm: tuple[float, float]) -> Volume:
    """One slice, shape (1, row, column), as a volume; the slice distance is made up."""
    return _volume(array, SINGLE_SLICE_MM, spacing_mm)


def _gradings(path: Path) -> dict[int, tuple[DiscTruth, ...]]:
    if not path.is_file():
        return {}
    found: dict[int, list[DiscTruth]] = defaultdict(list)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                truth = DiscTruth(
                    label=int(row["IVD label"]),
                    pfirrmann=int(row["Pfirrman grade"]),
                    labels={
                        "bulging": int(row["Disc bulging"]) > 0,
                        "herniation": int(row["Disc herniation"]) > 0,
                        "narrowing": int(row["Disc narrowing"]) > 0,
                        "modic": int(row["Modic"]) > 0,
                        "spondylolisthesis": int(row["Spondylolisthesis"]) > 0,
                    },
                )
                patient = int(row["Patient"])
            except (KeyError, ValueError, TypeError) as exc:
                raise EvaluationDataError(f"gradings.csv line {number}: {type(exc).__name__} in a column") from exc
            if not 1 <= truth.pfirrmann <= 5:
                raise EvaluationDataError(f"gradings.csv line {number}: Pfirrmann grade is not 1 to 5")
            found[patient].append(truth)
    return {patient: tuple(sorted(discs, key=lambda disc: disc.label)) for patient, discs in found.items()}


def _properties(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["new_file_name"]: row for row in csv.DictReader(file) if row.get("new_file_name")}


def _grey(path: Path) -> NDArray[np.float32]:
    try:
        return np.asarray(Image.open(path).convert("L"), dtype=np.float32)
    except OSError as exc:
        raise EvaluationDataError(f"{path.parent.name}: an image cannot be read") from exc


def _classes(path: Path) -> NDArray[np.uint8]:
    try:
        classes = np.asarray(Image.open(path), dtype=np.uint8)
    except OSError as exc:
        raise EvaluationDataError("t2_space/masks: a mask cannot be read") from exc
    if classes.ndim != 2 or classes.max(initial=0) > 3:
        raise EvaluationDataError("t2_space/masks: a mask holds other values than 0 to 3")
    return classes


def _volume(array: NDArray[np.float32], slice_mm: float, spacing_mm: tuple[float, float]) -> Volume:
    """Sagittal, head up, anterior left: rows run to the feet, columns to the back, slices to the left."""
    affine = np.eye(4)
    affine[:3, 0] = (slice_mm, 0, 0)
    affine[:3, 1] = (0, 0, -spacing_mm[0])
    affine[:3, 2] = (0, spacing_mm[1], 0)
    return Volume(np.ascontiguousarray(array), affine)
