"""Graded discs as training samples: segmentation finds them, the grading table labels them (stage 11).

Only patients whose number of discs found equals the number graded are used: counting is the only link between both.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ai_services.imaging.resample import resample_in_plane
from ai_services.pipelines.lumbar_mr.crop import disc_crop, disc_pose, disc_scalars, pose_in_slice
from ai_services.pipelines.lumbar_mr.intensity import normalise_slices
from ai_services.pipelines.lumbar_mr.postprocess import PITCH_RANGE_MM, Spine, disc_pitches_mm, find_spine
from ai_services.training.lumbar_mr.dataset import WORKING_SPACING_MM, DiscGrading, LabelledSlice, MidsagittalImage
from ai_services.training.lumbar_mr.segmentation import predict

log = logging.getLogger(__name__)

SINGLE_SLICE_MM = 4.0
NEIGHBOUR_OFFSETS_MM = (-4, -2, 2, 4)


@dataclass(frozen=True)
class DiscSample:
    """One crop of one graded disc; `primary` is the crop that counts when measuring."""

    patient: int
    source: str
    primary: bool
    crop: NDArray[np.float32]
    scalars: NDArray[np.float32]
    grading: DiscGrading


def collect_samples(
    network: nn.Module,
    midsagittal: list[MidsagittalImage],
    space: list[LabelledSlice],
    gradings: dict[int, list[DiscGrading]],
) -> list[DiscSample]:
    """Samples of every patient whose discs can be matched: T2 TSE midsagittal images and T2 SPACE volumes."""
    samples: list[DiscSample] = []
    outcome: Counter[str] = Counter()
    for image in midsagittal:
        if image.sequence == "t2" and image.patient in gradings:
            found = _from_stack(
                network,
                image.original[None],
                image.spacing_mm,
                SINGLE_SLICE_MM,
                gradings[image.patient],
                (image.patient, "t2"),
            )
            outcome["t2 " + ("used" if found else "not matched")] += 1
            samples += found
    for patient in sorted({item.patient for item in space} & set(gradings)):
        own = [item for item in space if item.patient == patient]
        steps = np.diff([item.slice_index for item in own])
        stack = np.stack([item.image for item in own])
        found = _from_stack(
            network, stack, WORKING_SPACING_MM, float(np.median(steps)), gradings[patient], (patient, "space")
        )
        outcome["space " + ("used" if found else "not matched")] += 1
        samples += found
    log.info("patients by source: %s; crops: %d", dict(outcome), len(samples))
    return samples


def _from_stack(
    network: nn.Module,
    stack: NDArray[np.float32],
    spacing_mm: float,
    slice_mm: float,
    grading: list[DiscGrading],
    origin: tuple[int, str],
) -> list[DiscSample]:
    factor = WORKING_SPACING_MM / spacing_mm
    working = normalise_slices(resample_in_plane(stack, factor, factor))
    probability = np.stack([predict(network, image) for image in working])
    spine = find_spine(probability, slice_mm)
    pitches = disc_pitches_mm(spine)
    plausible = pitches and PITCH_RANGE_MM[0] <= float(np.median(pitches)) <= PITCH_RANGE_MM[1]
    if len(spine.discs) != len(grading) or not plausible:
        return []
    poses = [disc_pose(spine, disc.label) for disc in spine.discs]
    scalars = disc_scalars(working, probability, spine, poses)
    samples = []
    for pose, numbers, truth in zip(poses, scalars, grading, strict=True):
        spacing = (spacing_mm, spacing_mm)
        for index in _slices(pose.slice_index, slice_mm, spine, pose.label):
            here = pose
            if index != pose.slice_index:
                here = pose_in_slice(spine.instances[index] == pose.label, pose.label, index)
            crop = disc_crop(stack[index], spacing, probability[index], here)
            samples.append(DiscSample(*origin, index == pose.slice_index, crop, numbers, truth))
    return samples


def _slices(best: int, slice_mm: float, spine: Spine, label: int) -> list[int]:
    """The best slice and, in thin-slice volumes, neighbours that still show the disc well."""
    area = (spine.instances == label).sum(axis=(1, 2))
    others = {best + round(offset / slice_mm) for offset in NEIGHBOUR_OFFSETS_MM} if slice_mm <= 2 else set()
    kept = [index for index in others if 0 <= index < len(area) and area[index] >= 0.7 * area[best] and index != best]
    return [best, *sorted(kept)]
