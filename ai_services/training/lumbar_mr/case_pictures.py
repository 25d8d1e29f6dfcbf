"""Draws the chosen cases: patients with their grades, herniations, wrong counts, outlines beside masks (stage 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai_services.evaluation.contact_sheet import (
    AGREES,
    INK,
    NEAR,
    PALE,
    WRONG,
    Colour,
    Note,
    Picture,
    Plane,
    draw_plane,
    grey_tile,
    save,
    sheet,
    titled,
    with_notes,
)
from ai_services.evaluation.folder import LabelledFolder, Series
from ai_services.evaluation.overlap import dice
from ai_services.evaluation.placing import SINGLE_SLICE_MM, GivenImage, PlacedImage, place_images
from ai_services.pipelines.lumbar_mr.crop import disc_pose
from ai_services.pipelines.lumbar_mr.patch import T2_CHANNEL, disc_patch
from ai_services.pipelines.lumbar_mr.postprocess import Spine, find_spine
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM
from ai_services.training.lumbar_mr.case_selection import Spoken

ROMAN = ("I", "II", "III", "IV", "V")
FORMS = ("-", "B", "H")
WORKING_MM = (WORKING_SPACING_MM, WORKING_SPACING_MM)
SEQUENCE = "t2"
TILE_FACTOR = 2
DISC, CANAL = 2, 3

Segment = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Shown:
    """A patient's T2 image, placed, with its spine."""

    image: PlacedImage
    spine: Spine

    @property
    def plane(self) -> Plane:
        """For drawing."""
        return Plane(self.image.original, self.image.spacing_mm, self.spine.classes[0], WORKING_MM)


def shown(folder: LabelledFolder, patient: int, segment: Segment) -> Shown:
    """Read, place and segment one patient's T2 image, as the grading stage does.

    Raises
    ------
    LookupError
        Where the folder holds no such image.
    """
    stills = {name: folder.still(patient, name) for name in ("t1", SEQUENCE)}
    given = [
        GivenImage(patient, name, still.volume.array[0], still.volume.spacing_mm[2])
        for name, still in stills.items()
        if still is not None
    ]
    image = next((item for item in place_images(given, segment) if item.sequence == SEQUENCE), None)
    if image is None:
        raise LookupError(f"midsagittal/{patient}_{SEQUENCE}.png")
    return Shown(image, find_spine(image.probability[None], SINGLE_SLICE_MM))


def patient_pictures(groups: Mapping[str, Sequence[int]], spoken: Spoken, of: Callable[[int], Shown]) -> list[Picture]:
    """Each patient's image with outlines, and reader and model beside each disc."""
    return [_patient(name, patient, spoken, of(patient)) for name, own in groups.items() for patient in own]


def count_pictures(rows: Sequence[tuple[int, int, int]], of: Callable[[int], Shown]) -> list[Picture]:
    """Images whose discs were not counted as graded."""
    pictures = []
    for patient, found, graded in rows:
        case = of(patient)
        notes = [
            Note(disc.centroid[1] * WORKING_SPACING_MM, ((f"disc {disc.label}", INK),)) for disc in case.spine.discs
        ]
        title = ((f"#{patient}  ", PALE), (f"{found} found, {graded} graded", WRONG))
        pictures.append(with_notes(case.plane, title, notes, width=64))
    return pictures


def herniation_pictures(
    groups: Mapping[str, Sequence[int]], spoken: Spoken, of: Callable[[int], Shown]
) -> list[Picture]:
    """Discs, turned level, back to the right, with the probability of a herniation."""
    pictures = []
    for name, indices in groups.items():
        for index in indices:
            patient, level = int(spoken.discs.patients[index]), int(spoken.levels[index])
            case = of(patient)
            pose = disc_pose(case.spine, level + 1)
            patch = disc_patch(case.image.original, case.image.spacing_mm, case.image.probability, pose)[T2_CHANNEL]
            probability = float(spoken.discs.probabilities["herniation"][index])
            truth, said = FORMS[int(spoken.discs.form_truth[index])], FORMS[int(spoken.discs.form[index])]
            title = (
                (f"#{patient} disc {level + 1}  ", PALE),
                (f"R {truth}  M {said}  ", AGREES if truth == said else WRONG),
                (f"{probability:.2f}", INK if name != "false" else NEAR),
            )
            pictures.append(titled(grey_tile(patch, TILE_FACTOR), title))
    return pictures


def outline_pictures(
    folder: LabelledFolder,
    patients: Sequence[int],
    classes: Callable[[Series], NDArray[np.uint8]],
) -> list[Picture]:
    """Held-out T2 SPACE patients: the slice with most canal, and the slice whose discs agree least with the masks."""
    pictures = []
    for patient in patients:
        series = folder.space(patient)
        if series is None or series.classes is None:
            continue
        spacing = series.volume.spacing_mm
        mine = classes(series)
        for name, index in (("middle", _middle(series.classes)), ("least", _least(mine, series.classes))):
            plane = Plane(series.volume.array[index], spacing[1:], mine[index], spacing[1:], series.classes[index])
            values = [dice(mine[index] == number, series.classes[index] == number) for number in (1, 2, 3)]
            told = " ".join("–" if np.isnan(value) else f"{value:.2f}" for value in values)
            title = ((f"#{patient} {name}  ", PALE), (told, INK))
            pictures.append(titled(np.concatenate(draw_plane(plane), axis=1), title))
    return pictures


def write_sheet(pictures: Sequence[Picture], columns: int, path: Path) -> None:
    """Save pictures as one sheet."""
    save(sheet(pictures, columns), path)


def _patient(group: str, patient: int, spoken: Spoken, case: Shown) -> Picture:
    notes = [Note(0.0, (("reader  model", PALE),))]
    for index in spoken.of(patient):
        level = int(spoken.levels[index])
        if level >= len(case.spine.discs):
            continue
        height = case.spine.discs[level].centroid[1] * WORKING_SPACING_MM
        notes.append(Note(height, _words(level, index, spoken)))
    discs = spoken.discs
    own = spoken.of(patient)
    exact = int((discs.pfirrmann[own] == discs.pfirrmann_truth[own]).sum())
    form = int((discs.form[own] == discs.form_truth[own]).sum())
    told = ((f"#{patient} {group}  ", PALE), (f"Pfirrmann {exact}/{len(own)}  severity {form}/{len(own)}", INK))
    return with_notes(case.plane, told, notes)


def _words(level: int, index: int, spoken: Spoken) -> tuple[tuple[str, Colour], ...]:
    discs = spoken.discs
    truth, said = int(discs.pfirrmann_truth[index]), int(discs.pfirrmann[index])
    form_truth, form = int(discs.form_truth[index]), int(discs.form[index])
    grade_colour = (AGREES, NEAR)[abs(truth - said)] if abs(truth - said) < 2 else WRONG
    form_colour = AGREES if form == form_truth else WRONG
    return (
        (f"{level + 1}  ", PALE),
        (f"{ROMAN[truth - 1]} {FORMS[form_truth]}   ", INK),
        (f"{ROMAN[said - 1]} ", grade_colour),
        (FORMS[form], form_colour),
    )


def _middle(truth: NDArray[np.uint8]) -> int:
    return int((truth == CANAL).sum(axis=(1, 2)).argmax())


def _least(mine: NDArray[np.uint8], truth: NDArray[np.uint8]) -> int:
    """Of the slices that show at least half as much disc as the fullest, the one with the lowest Dice of the discs."""
    area = (truth == DISC).sum(axis=(1, 2))
    full = np.flatnonzero(area >= 0.5 * area.max())
    return int(min(full, key=lambda index: dice(mine[index] == DISC, truth[index] == DISC)))
