"""CT of labelled patients: a folder laid out like the MR one, with masks that name each vertebra (stage 11).

ct/images and ct/masks hold one PNG a slice, ``<patient>_ct_slice<NN>``, axial and from the feet up: rows run to the
back, columns to the patient's left. Images are 16 bit, Hounsfield units + 1024. Masks: 0 background, 1 upper sacrum,
10 k + 1 the body and 10 k + 2 the arch of the k-th vertebra above the sacrum (L5 is k = 1). overview.csv has a row
``<patient>_ct`` with PixelSpacing and SpacingBetweenSlices; ct_measures.csv what was measured by hand. No labelled CT
of a patient is at hand: `write_phantoms` makes a SYNTHETIC folder.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ai_services.evaluation.folder import EvaluationDataError
from ai_services.imaging.ct_phantom import CtPhantom
from ai_services.imaging.ct_phantom_bones import ARCH, BODY, SACRUM, foramen_height_mm
from ai_services.imaging.volume import Volume

FROM_BELOW = ("L5", "L4", "L3", "L2", "L1", "T12", "T11")
SACRUM_VALUE, OFFSET_HU = 1, 1024
_SLICE = re.compile(r"(\d+)_ct_slice(\d+)")
_MEASURES = ("Patient", "code", "level", "value")


@dataclass(frozen=True, slots=True)
class CtCase:
    """One patient.

    Parameters
    ----------
    patient : number in the folder
    volume : Hounsfield units; its place in the patient is made up, only distances are real
    labels : uint8, shape of the volume, values as in the folder; None where there are no masks
    measures : (code, level) → value, in the unit of the finding
    subgroups : vendor and sex
    synthetic : whether the folder says so
    """

    patient: int
    volume: Volume
    labels: NDArray[np.uint8] | None
    measures: Mapping[tuple[str, str], float]
    subgroups: Mapping[str, str]
    synthetic: bool


@dataclass(frozen=True, slots=True)
class CtFolder:
    """What a folder holds, without the pixels."""

    path: Path
    slices: Mapping[int, tuple[tuple[int, Path], ...]]
    rows: Mapping[int, Mapping[str, str]]
    measures: Mapping[int, Mapping[tuple[str, str], float]]

    def case(self, patient: int) -> CtCase:
        """Read one patient.

        Raises
        ------
        EvaluationDataError
            A file cannot be read, sizes or numbers do not fit, or there is no spacing.
        """
        row = self.rows.get(patient, {})
        numbers = [number for number, _ in self.slices[patient]]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise EvaluationDataError(f"ct/images: slices of patient {patient} are missing")
        spacing = _spacing(row, patient)
        images = [_pixels(path, "ct/images") for _, path in self.slices[patient]]
        masks = [self.path / "ct" / "masks" / path.name for _, path in self.slices[patient]]
        labels = [_pixels(mask, "ct/masks") for mask in masks] if all(mask.is_file() for mask in masks) else None
        if len({image.shape for image in (*images, *(labels or ()))}) != 1:
            raise EvaluationDataError("ct: images and masks of a patient differ in size")
        affine = np.array(
            [[0, 0, spacing[2], 0], [0, spacing[1], 0, 0], [spacing[0], 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
        )
        hu = np.stack(images).astype(np.float32) - OFFSET_HU
        return CtCase(
            patient,
            Volume(hu, affine),
            None if labels is None else np.stack(labels).astype(np.uint8),
            self.measures.get(patient, {}),
            {"vendor": row.get("Manufacturer", "") or "unknown", "sex": row.get("sex", "").strip() or "unknown"},
            row.get("Synthetic", "").strip().lower() == "yes",
        )


def value_of(name: str, part: str) -> int:
    """Value of a vertebra's part in a mask."""
    return 10 * (FROM_BELOW.index(name) + 1) + (1 if part == BODY else 2)


def read_ct_folder(path: Path) -> CtFolder:
    """Look at what a folder holds.

    Raises
    ------
    EvaluationDataError
        There is no such folder, no image in it, or a table that cannot be read.
    """
    if not path.is_dir():
        raise EvaluationDataError("there is no such folder")
    slices: dict[int, list[tuple[int, Path]]] = defaultdict(list)
    for file in sorted((path / "ct" / "images").glob("*.png")):
        if (match := _SLICE.fullmatch(file.stem)) is not None:
            slices[int(match[1])].append((int(match[2]), file))
    if not slices:
        raise EvaluationDataError("ct/images/ holds no image")
    rows = {}
    for row in _table(path / "overview.csv"):
        if (match := re.fullmatch(r"(\d+)_ct", row.get("new_file_name", ""))) is not None:
            rows[int(match[1])] = row
    measures: dict[int, dict[tuple[str, str], float]] = defaultdict(dict)
    for number, row in enumerate(_table(path / "ct_measures.csv"), start=2):
        try:
            measures[int(row["Patient"])][row["code"], row["level"]] = float(row["value"])
        except (KeyError, ValueError, TypeError) as exc:
            raise EvaluationDataError(f"ct_measures.csv line {number}: {type(exc).__name__} in a column") from exc
    return CtFolder(path, {patient: tuple(sorted(found)) for patient, found in slices.items()}, rows, measures)


def write_phantoms(path: Path, phantoms: Iterable[CtPhantom]) -> None:
    """Write SYNTHETIC patients in this layout; phantoms stand upright, as the layout knows no tilt."""
    for name in ("images", "masks"):
        (path / "ct" / name).mkdir(parents=True, exist_ok=True)
    overview: list[list[object]] = []
    measures: list[list[object]] = []
    for patient, phantom in enumerate(phantoms, start=1):
        if phantom.gantry_tilt_deg:
            raise ValueError("the layout knows no gantry tilt")
        labels = _as_in_masks(phantom)
        for number, (image, mask) in enumerate(zip(phantom.pixels, labels, strict=True)):
            name = f"{patient}_ct_slice{number:03d}.png"
            Image.fromarray((image.astype(np.int32) + OFFSET_HU).astype(np.uint16)).save(path / "ct" / "images" / name)
            Image.fromarray(mask).save(path / "ct" / "masks" / name)
        step = np.linalg.norm(phantom.affine_lps[:3, :3], axis=0)
        overview.append([f"{patient}_ct", f"[{step[1]:.4f}, {step[2]:.4f}]", f"{step[0]:.4f}", "SYNTHETIC", "", "yes"])
        measures += [[patient, code, level, f"{value:.3f}"] for (code, level), value in _drawn(phantom).items()]
    header: list[object] = ["new_file_name", "PixelSpacing", "SpacingBetweenSlices", "Manufacturer", "sex", "Synthetic"]
    _write(path / "overview.csv", [header, *overview])
    _write(path / "ct_measures.csv", [list(_MEASURES), *measures])


def _as_in_masks(phantom: CtPhantom) -> NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    for (name, part), number in phantom.label_of.items():
        if part == SACRUM:
            table[number] = SACRUM_VALUE
        elif part in (BODY, ARCH) and name in FROM_BELOW:
            table[number] = value_of(name, part)
    return table[phantom.labels]


def _drawn(phantom: CtPhantom) -> dict[tuple[str, str], float]:
    """What was drawn, as findings name it: of L1 to L5 and the discs between them and the sacrum."""
    bones = {bone.shape.name: bone for bone in phantom.bones}
    found: dict[tuple[str, str], float] = {}
    for below, name in zip(("S1", *FROM_BELOW), FROM_BELOW[:5], strict=False):
        shape, level = phantom.shapes[name], f"{name}-{below}"
        found["canal-width-bone", name], found["canal-ap-bone", name] = shape.canal_width_mm, shape.canal_depth_mm
        for side, right_or_left in enumerate(("right", "left")):
            found[f"pedicle-width-{right_or_left}", name] = shape.pedicle_width_mm[side]
            found[f"facet-angle-{right_or_left}", level] = phantom.shapes[below].facet_deg[side]
            if below != "S1":
                height = foramen_height_mm(bones[name], bones[below], side)
                found[f"foramen-height-{right_or_left}", level] = height
    return found


def _write(path: Path, rows: Iterable[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as exc:
        raise EvaluationDataError(f"{path.name} cannot be read as a table") from exc


def _spacing(row: Mapping[str, str], patient: int) -> tuple[float, float, float]:
    text = f"{row.get('SpacingBetweenSlices', '')} {row.get('PixelSpacing', '')}"
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
    if len(numbers) != 3 or min(numbers) <= 0:
        raise EvaluationDataError(f"overview.csv: no spacing of {patient}_ct")
    return numbers[0], numbers[1], numbers[2]


def _pixels(path: Path, where: str) -> NDArray[np.int32]:
    try:
        pixels = np.asarray(Image.open(path), dtype=np.int32)
    except OSError as exc:
        raise EvaluationDataError(f"{where}: a file cannot be read") from exc
    if pixels.ndim != 2:
        raise EvaluationDataError(f"{where}: a file is not greyscale")
    return pixels
