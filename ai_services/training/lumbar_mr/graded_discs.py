"""Graded discs with their patches and features: segmentation finds them, the grading table labels them (stage 11).

Discs are matched by counting from the lowest. A differing count at the top costs nothing; from a gap on, where a disc
between may have been missed, nothing is matched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_services.evaluation.placing import SINGLE_SLICE_MM, PlacedImage
from ai_services.pipelines.lumbar_mr.crop import disc_pose
from ai_services.pipelines.lumbar_mr.features import spine_features
from ai_services.pipelines.lumbar_mr.patch import disc_patch
from ai_services.pipelines.lumbar_mr.postprocess import disc_pitches_mm, find_spine
from ai_services.training.lumbar_mr.dataset import DiscGrading

log = logging.getLogger(__name__)

FEWEST_DISCS = 4
GAP = 1.5
TARGETS = ("pfirrmann>1", "pfirrmann>2", "pfirrmann>3", "pfirrmann>4", "bulging", "herniation", "narrowing", "modic",
           "spondylolisthesis")  # fmt: skip


@dataclass(frozen=True)
class GradedDiscs:
    """All matched discs; the first axis of each array is the disc.

    Parameters
    ----------
    patients, sequences, levels : shape (disc,); level 0 is the lowest
    patches : shape (disc, 5, row, column)
    features : shape (disc, feature), named by `names`
    truth : shape (disc, 9), see `TARGETS`
    """

    patients: NDArray[np.int64]
    sequences: NDArray[np.str_]
    levels: NDArray[np.int64]
    patches: NDArray[np.float32]
    features: NDArray[np.float32]
    names: tuple[str, ...]
    truth: NDArray[np.float32]


@dataclass(frozen=True)
class Count:
    """Discs found in one image, and discs graded."""

    patient: int
    sequence: str
    found: int
    graded: int


def collect(
    images: Sequence[PlacedImage], gradings: Mapping[int, list[DiscGrading]]
) -> tuple[GradedDiscs, list[Count]]:
    """Match the discs of every image with their patient's gradings."""
    patients, sequences, levels, patches, features, truth = [], [], [], [], [], []
    names: tuple[str, ...] = ()
    counts = []
    for image in images:
        graded = gradings.get(image.patient, [])
        spine = find_spine(image.probability[None], SINGLE_SLICE_MM)
        counts.append(Count(image.patient, image.sequence, len(spine.discs), len(graded)))
        if len(spine.discs) < FEWEST_DISCS or not graded:
            log.info("patient %d %s: %d discs, not used", image.patient, image.sequence, len(spine.discs))
            continue
        pitches = disc_pitches_mm(spine)
        own = np.stack(
            [
                disc_patch(image.original, image.spacing_mm, image.probability, disc_pose(spine, disc.label))
                for disc in spine.discs
            ]
        )
        table, names = spine_features(own, range(len(own)), pitches)
        for index in range(min(before_gap(pitches), len(graded))):
            patients.append(image.patient)
            sequences.append(image.sequence)
            levels.append(index)
            patches.append(own[index])
            features.append(table[index])
            truth.append(target_row(graded[index]))
    result = GradedDiscs(
        np.array(patients, dtype=np.int64),
        np.array(sequences, dtype=np.str_),
        np.array(levels, dtype=np.int64),
        np.array(patches, dtype=np.float32),
        np.array(features, dtype=np.float32),
        names,
        np.array(truth, dtype=np.float32),
    )
    return result, counts


def before_gap(pitches_mm: Sequence[float]) -> int:
    """How many discs, from the lowest up, come before a distance that leaves room for a missed one."""
    wide = np.flatnonzero(np.asarray(pitches_mm) > GAP * np.median(pitches_mm))
    return int(wide[0]) + 1 if len(wide) else len(pitches_mm) + 1


def target_row(grading: DiscGrading) -> list[float]:
    """Truth of one disc in the order of `TARGETS`."""
    cumulative = [float(grading.pfirrmann > grade) for grade in range(1, 5)]
    others = (grading.bulging, grading.herniation, grading.narrowing, grading.modic, grading.spondylolisthesis)
    return [*cumulative, *(float(value) for value in others)]
