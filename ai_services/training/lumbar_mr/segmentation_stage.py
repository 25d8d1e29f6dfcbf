"""The segmentation stage: T2 SPACE masks, SYNTHETIC phantoms, then pseudo-labels of T2 TSE (stage 11).

Split by patient: the validation patients reach neither this stage nor the grading stage.
"""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
from torch import nn

from ai_services.imaging.phantom import lumbar_phantom
from ai_services.pipelines.lumbar_mr.intensity import normalise_slices
from ai_services.training.lumbar_mr.dataset import WORKING_SPACING_MM, LabelledSlice, MidsagittalImage
from ai_services.training.lumbar_mr.pseudo_label import label_images
from ai_services.training.lumbar_mr.segmentation import SegmentationTrainer, TrainingSlice, predict

log = logging.getLogger(__name__)

PHANTOM_SHARE = 0.05
PSEUDO_LABEL_SHARE = 0.4
SUPERVISED_FRACTION = 0.65
PHANTOM_SEED_OFFSET = 1000  # demos and tests use small seeds, so they never show a phantom of the training


def train_segmentation(
    slices: list[LabelledSlice],
    midsagittal: list[MidsagittalImage],
    held_out: tuple[int, ...],
    *,
    steps: int,
    seed: int,
    phantoms: int = 16,
) -> nn.Module:
    """Train both phases and return the averaged network."""
    real = training_slices(slices, held_out)
    synthetic = phantom_slices(phantoms, PHANTOM_SHARE)
    trainer = SegmentationTrainer(steps=steps, seed=seed)
    first = max(1, round(steps * SUPERVISED_FRACTION))
    trainer.train([*real, *synthetic], first)
    if steps > first:
        unseen = [item for item in midsagittal if item.patient not in held_out and item.sequence == "t2"]
        pseudo = label_images(trainer.averaged(), unseen, weight=PSEUDO_LABEL_SHARE / max(1, len(unseen)))
        log.info("pseudo-labels kept: %d of %d", len(pseudo), len(unseen))
        trainer.train([*real, *synthetic, *pseudo], steps - first)
    return trainer.averaged()


def training_slices(slices: list[LabelledSlice], held_out: tuple[int, ...]) -> list[TrainingSlice]:
    """Slices of the training patients, each patient with equal weight, together weight 1."""
    kept = [item for item in slices if item.patient not in held_out]
    count = Counter(item.patient for item in kept)
    return [TrainingSlice(item.image, item.mask, 1 / len(count) / count[item.patient]) for item in kept]


def phantom_slices(phantoms: int, share: float) -> list[TrainingSlice]:
    """SYNTHETIC slices near the midline, together with weight `share`."""
    result = []
    for number in range(phantoms):
        phantom = lumbar_phantom(
            PHANTOM_SEED_OFFSET + number,
            slices=5,
            rows=336,
            columns=288,
            spacing_mm=(7.0, WORKING_SPACING_MM, WORKING_SPACING_MM),
        )
        images = normalise_slices(phantom.pixels.astype(np.float32))
        result += [TrainingSlice(i, m, share / phantoms / 5) for i, m in zip(images, phantom.mask, strict=True)]
    return result


def dice_by_patient(network: nn.Module, slices: list[LabelledSlice]) -> dict[int, tuple[float, float, float]]:
    """Dice of vertebra, disc and canal for each patient, over all of the patient's slices at working resolution."""
    overlap: dict[int, list[list[int]]] = {}
    for item in slices:
        predicted = predict(network, item.image).argmax(axis=0)
        sums = overlap.setdefault(item.patient, [[0, 0] for _ in range(3)])
        for number in (1, 2, 3):
            both = (predicted == number) & (item.mask == number)
            sums[number - 1][0] += 2 * int(both.sum())
            sums[number - 1][1] += int((predicted == number).sum() + (item.mask == number).sum())
    return {
        patient: (s[0][0] / max(1, s[0][1]), s[1][0] / max(1, s[1][1]), s[2][0] / max(1, s[2][1]))
        for patient, s in overlap.items()
    }
