"""Goes on training the segmentation on images with mended spacing: masks, and cleaned labels of T2 and T1 (stage 11).

A T1 image's label is the mean of its own outline and that of the same patient's T2, moved onto it. Gradings tell which
labels are wrong: where more than one disc is missing or too many, the image is left out. Nobody held out takes part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ai_services.evaluation.placing import SINGLE_SLICE_MM, PlacedImage
from ai_services.pipelines.lumbar_mr.postprocess import CANAL, DISC, find_spine
from ai_services.training.lumbar_mr.dataset import DiscGrading, LabelledSlice
from ai_services.training.lumbar_mr.pseudo_label import keep_one_spine
from ai_services.training.lumbar_mr.segmentation import SegmentationTrainer, TrainingSlice
from ai_services.training.lumbar_mr.segmentation_stage import phantom_slices, training_slices

log = logging.getLogger(__name__)

RATE, STEPS, SEED = 1e-3, 500, 7
PSEUDO_WEIGHT = 0.6 / 330
"""Of one image, where the masks of all patients together weigh 1."""
PHANTOMS, PHANTOM_SHARE = 8, 0.05
LEAST_AGREEMENT = 0.6
LARGEST_SHIFT = 15
MOST_MISCOUNTED = 1


def tuned(
    state: Mapping[str, Any],
    slices: Sequence[LabelledSlice],
    placed: Sequence[PlacedImage],
    gradings: Mapping[int, list[DiscGrading]],
    held_out: tuple[int, ...],
    *,
    steps: int = STEPS,
    seed: int = SEED,
) -> nn.Module:
    """Train on from the weights of `segmentation_stage`; returns the averaged network.

    Parameters
    ----------
    state : weights to begin with; they also outlined `placed`
    slices : with masks, everybody's
    placed : midsagittal T1 and T2 images with their outlines
    gradings : by patient
    held_out : patients that take no part
    """
    labelled = pseudo_slices([image for image in placed if image.patient not in held_out], gradings)
    log.info("images with labels of their own: %d", len(labelled))
    trainer = SegmentationTrainer(steps=steps, seed=seed, rate=RATE)
    trainer.begin_with(state)
    trainer.train(
        [*training_slices(list(slices), held_out), *phantom_slices(PHANTOMS, PHANTOM_SHARE), *labelled], steps
    )
    return trainer.averaged()


def pseudo_slices(images: Sequence[PlacedImage], gradings: Mapping[int, list[DiscGrading]]) -> list[TrainingSlice]:
    """T1 and T2 images whose outlines can be believed, with these as labels."""
    t2 = {image.patient: image for image in images if image.sequence == "t2"}
    result = []
    for image in images:
        if image.sequence not in ("t1", "t2") or image.patient not in gradings:
            continue
        probability = image.probability
        if image.sequence == "t1" and image.patient in t2:
            together = with_other(probability, t2[image.patient].probability)
            if together is None:
                continue
            probability = together
        found = len(find_spine(probability[None], SINGLE_SLICE_MM).discs)
        if abs(found - len(gradings[image.patient])) <= MOST_MISCOUNTED:
            mask = keep_one_spine(probability.argmax(axis=0).astype(np.uint8))
            result.append(TrainingSlice(image.working, mask, PSEUDO_WEIGHT))
    return result


def with_other(probability: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Mean of an image's class probabilities and those of another sequence, moved to where discs and canal agree best.

    None where they lie more than 15 pixels apart or hardly overlap: the patient moved, or one outline is wrong.

    Parameters
    ----------
    probability, other : shape (4, row, column), on working grids with one corner
    """
    rows = max(probability.shape[1], other.shape[1])
    columns = max(probability.shape[2], other.shape[2])
    own, moved = (np.zeros((4, rows, columns), dtype=np.float32) for _ in range(2))
    own[:, : probability.shape[1], : probability.shape[2]] = probability
    moved[:, : other.shape[1], : other.shape[2]] = other
    here, there = (part[DISC] + part[CANAL] for part in (own, moved))
    agreement = np.fft.irfft2(np.conj(np.fft.rfft2(there)) * np.fft.rfft2(here), s=(rows, columns))
    at = np.unravel_index(int(agreement.argmax()), agreement.shape)
    shift = [
        int(place) if place < size / 2 else int(place) - size for place, size in zip(at, (rows, columns), strict=True)
    ]
    moved = np.roll(moved, shift, axis=(1, 2))[:, : probability.shape[1], : probability.shape[2]]
    here, there = (part[DISC] + part[CANAL] for part in (probability, moved))
    overlap = 2 * np.minimum(here, there).sum() / max(float(here.sum() + there.sum()), 1e-6)
    if overlap < LEAST_AGREEMENT or max(abs(step) for step in shift) > LARGEST_SHIFT:
        return None
    result: NDArray[np.float32] = (0.5 * probability + 0.5 * moved).astype(np.float32)
    return result
