"""Runs the lumbar MR pipeline over a labelled folder and puts what it says beside the truth (stage 11).

Discs are matched by counting from the lowest: that is how the table numbers them, and how the pipeline names levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ai_services.evaluation.folder import SINGLE_SLICE_MM, DiscTruth, LabelledFolder, Series, still_volume
from ai_services.evaluation.grading import BULGE, HERNIATION, NORMAL, GradedDiscs
from ai_services.evaluation.overlap import dice, instances_of, panoptic_quality, surface_distances
from ai_services.evaluation.placing import GivenImage, place_images
from ai_services.pipelines.lumbar_mr.pipeline import (
    CANAL_SEGMENT,
    FIRST_DISC_SEGMENT,
    VERTEBRA_SEGMENT,
    Analysis,
    analyse,
)
from ai_services.prediction import DiscScores, PipelineError

STRUCTURES = {"vertebra": 1, "disc": 2, "canal": 3}
LABELS = ("bulging", "herniation", "narrowing", "modic", "spondylolisthesis")
SMALLEST_DISC_MM3 = 400.0
_FORMS = {"normal": NORMAL, "bulge": BULGE}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What is evaluated.

    Parameters
    ----------
    analyse : the pipeline on one volume
    segment : one normalised working image, shape (row, column), to probabilities, shape (4, row, column)
    """

    analyse: Callable[[Series], Analysis]
    segment: Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Outline:
    """Agreement of one structure in one series; None where a mask is empty."""

    dice: float
    hausdorff95_mm: float | None
    assd_mm: float | None


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """One series as the pipeline saw it.

    Parameters
    ----------
    patient, sequence, subgroups : which series
    declined : reason code where the pipeline would not look; then nothing else is set
    outlines : by structure, where there are masks
    disc_quality : panoptic quality of the discs as instances, where there are masks
    discs, numbering_confident : what was found
    truth : the graded discs, empty where the table does not grade the patient
    seconds : stage name to seconds
    picture : grey image and classes of the slice with most canal, for the montage
    """

    patient: int
    sequence: str
    subgroups: dict[str, str]
    truth: tuple[DiscTruth, ...]
    declined: str | None = None
    outlines: dict[str, Outline] = field(default_factory=dict)
    disc_quality: float | None = None
    discs: tuple[DiscScores, ...] = ()
    numbering_confident: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    picture: tuple[NDArray[np.float32], NDArray[np.uint8], float] | None = None


def released() -> Pipeline:
    """The pipeline with the weights that it comes with."""
    from ai_services.pipelines.lumbar_mr.infer import load_networks

    networks = load_networks()
    return Pipeline(
        analyse=lambda series: analyse(series.volume, networks),
        segment=lambda image: networks.segment(image[None], SINGLE_SLICE_MM)[0],
    )


def run_over(folder: LabelledFolder, pipeline: Pipeline, patients: set[int] | None = None) -> Iterator[SeriesResult]:
    """Every series of the folder that the pipeline reads, one by one: T2 SPACE volumes, then single T2 images.

    Parameters
    ----------
    folder : from `read_folder`
    pipeline : what is evaluated
    patients : only these; None for everybody
    """
    for patient, sequence in series_of(folder, patients):
        series = folder.space(patient) if sequence == "t2_SPACE" else placed(folder, patient, sequence, pipeline)
        if series is not None:
            yield result_of(series, folder, pipeline)


def placed(folder: LabelledFolder, patient: int, sequence: str, pipeline: Pipeline) -> Series | None:
    """A single image under a spacing that a spine can have: derived images often have another than their table says.

    See `ai_services.imaging.plausible_spacing`; DICOM tells its spacing itself and is never mended.
    """
    given = {name: folder.still(patient, name) for name in ("t1", "t2")}
    series = given.get(sequence) or folder.still(patient, sequence)
    if series is None:
        return None
    images = [
        GivenImage(patient, name, item.volume.array[0], item.volume.spacing_mm[2])
        for name, item in given.items()
        if item is not None
    ]
    found = next((item for item in place_images(images, pipeline.segment) if item.sequence == sequence), None)
    if found is None:
        return series
    return dataclasses.replace(series, volume=still_volume(series.volume.array, found.spacing_mm))


def series_of(folder: LabelledFolder, patients: set[int] | None = None) -> list[tuple[int, str]]:
    """Patient and sequence of every series that `run_over` reads."""
    kept = [patient for patient in folder.patients if patients is None or patient in patients]
    space = [(patient, "t2_SPACE") for patient in kept if patient in folder.space_slices]
    return space + [(patient, "t2") for patient in kept if (patient, "t2") in folder.still_images]


def result_of(series: Series, folder: LabelledFolder, pipeline: Pipeline) -> SeriesResult:
    """Run the pipeline on one series."""
    known = {
        "patient": series.patient,
        "sequence": series.sequence,
        "subgroups": folder.subgroups_of(series.patient, series.sequence),
        "truth": folder.gradings.get(series.patient, ()),
    }
    try:
        analysis = pipeline.analyse(series)
    except PipelineError as declined:
        return SeriesResult(**known, declined=declined.reason_code)  # type: ignore[arg-type]
    classes = classes_of(analysis.mask)
    outlines, quality = ({}, None) if series.classes is None else _agreement(series, analysis.mask, classes)
    return SeriesResult(
        **known,  # type: ignore[arg-type]
        outlines=outlines,
        disc_quality=quality,
        discs=analysis.discs,
        numbering_confident=analysis.numbering.confident,
        seconds=analysis.seconds,
        picture=_picture(series, classes),
    )


def matched_discs(results: list[SeriesResult]) -> GradedDiscs:
    """Graded discs that the pipeline also graded, matched by their number from the lowest."""
    rows = [
        (result.patient, truth, found)
        for result in results
        for truth in result.truth
        for found in result.discs
        if found.label == truth.label
    ]
    return GradedDiscs(
        patients=np.array([patient for patient, _, _ in rows], dtype=np.int64),
        pfirrmann=np.array([1 + int(np.argmax(found.pfirrmann)) for _, _, found in rows], dtype=np.int64),
        pfirrmann_truth=np.array([truth.pfirrmann for _, truth, _ in rows], dtype=np.int64),
        pfirrmann_probability=np.array([found.pfirrmann for _, _, found in rows], dtype=np.float64).reshape(-1, 5),
        form=np.array([_FORMS.get(found.morphology, HERNIATION) for _, _, found in rows], dtype=np.int64),
        form_truth=np.array([form_of(truth) for _, truth, _ in rows], dtype=np.int64),
        labels={name: np.array([truth.labels[name] for _, truth, _ in rows], dtype=np.bool_) for name in LABELS},
        probabilities={
            name: np.array([found.probabilities.get(name, np.nan) for _, _, found in rows], dtype=np.float64)
            for name in LABELS
        },
    )


def form_of(truth: DiscTruth) -> int:
    """Severity of a graded disc: herniation over bulge over normal."""
    if truth.labels["herniation"]:
        return HERNIATION
    return BULGE if truth.labels["bulging"] else NORMAL


def classes_of(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A pipeline's mask as classes: 0 background, 1 vertebra, 2 disc, 3 canal; same shape."""
    classes = np.zeros(mask.shape, dtype=np.uint8)
    classes[mask == VERTEBRA_SEGMENT] = STRUCTURES["vertebra"]
    classes[mask == CANAL_SEGMENT] = STRUCTURES["canal"]
    classes[mask >= FIRST_DISC_SEGMENT] = STRUCTURES["disc"]
    return classes


def _agreement(
    series: Series, mask: NDArray[np.uint8], classes: NDArray[np.uint8]
) -> tuple[dict[str, Outline], float | None]:
    if series.classes is None:
        raise ValueError("the series has no mask")
    spacing = series.volume.spacing_mm
    outlines = {}
    for name, number in STRUCTURES.items():
        mine, theirs = classes == number, series.classes == number
        distances = surface_distances(mine, theirs, spacing)
        outlines[name] = Outline(dice(mine, theirs), distances.hausdorff95_mm, distances.assd_mm)
    mine_by_disc = np.where(mask >= FIRST_DISC_SEGMENT, mask, 0).astype(np.int32)
    theirs_by_disc = instances_of(series.classes == STRUCTURES["disc"], SMALLEST_DISC_MM3, spacing)
    quality = panoptic_quality(mine_by_disc, theirs_by_disc).quality
    return outlines, None if np.isnan(quality) else quality


def _picture(series: Series, classes: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8], float]:
    best = int((classes == STRUCTURES["canal"]).sum(axis=(1, 2)).argmax())
    return series.volume.array[best], classes[best], series.volume.spacing_mm[1]
