"""How sure the names of the levels are, and signs of a transitional vertebra (stage 4, clinical model §1.1).

Counting from the lowest disc is all that lumbar images allow: whole-spine localisers or ribs are not read. About one
person in eight has a transitional vertebra (doi 10.1007/s00586-010-1544-x), in whom L5-S1 has no agreed name.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ai_services.pipelines.lumbar_mr.column import SACRAL_REMNANT
from ai_services.pipelines.lumbar_mr.postprocess import Spine, number_levels
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM
from ai_services.pipelines.lumbar_mr.uncertainty import LARGEST_DISC_ENTROPY, Uncertainty
from ai_services.prediction import Numbering

RIGHT_WHERE_CLEAR = 0.90
"""Share of 108 T2 series without a doubt in which as many discs were found as readers graded: 97."""
RIGHT_WHERE_IN_DOUBT = 0.76
"""The same of the 21 series with a doubt: 16."""
SHORT_LOWEST_DEPTH = 0.70
SMALL_LOWEST_VOLUME = 0.55
"""The lowest disc against the median of the others; the lowest twentieth of SPIDER's T2 images lies below each."""


def assess_numbering(spine: Spine, uncertainty: Uncertainty) -> Numbering:
    """Name the doubts of `number_levels`, those of the lowest disc's outline and anatomy, and the chance to be right.

    Parameters
    ----------
    spine : structures on the working grid, at least one disc
    uncertainty : of the same spine
    """
    numbering = number_levels(spine)
    reasons = [numbering.reason] if numbering.reason else []
    signs = transitional_signs(spine)
    if signs:
        reasons.append("possible transitional vertebra: " + ", ".join(signs))
    if uncertainty.discs and uncertainty.discs[0] > LARGEST_DISC_ENTROPY:
        reasons.append("the outline of the lowest disc is uncertain")
    return dataclasses.replace(
        numbering,
        confident=not reasons,
        reason="; ".join(reasons) or None,
        probability=RIGHT_WHERE_IN_DOUBT if reasons else RIGHT_WHERE_CLEAR,
        transitional=bool(signs),
    )


def transitional_signs(spine: Spine) -> tuple[str, ...]:
    """Signs that the lowest disc, or one below it, belongs to a transitional vertebra; in words.

    No label of the training data tells transitional vertebrae, so this is a flag for the reader, not a diagnosis.
    """
    signs = []
    if SACRAL_REMNANT in spine.doubts:
        signs.append("a disc-like structure in the sacrum")
    if len(spine.discs) >= 3:
        depths = [_depth_mm(spine, disc.label) for disc in spine.discs]
        volumes = [disc.volume_mm3 for disc in spine.discs]
        if depths[0] < SHORT_LOWEST_DEPTH * float(np.median(depths[1:])):
            signs.append("a short lowest disc")
        elif volumes[0] < SMALL_LOWEST_VOLUME * float(np.median(volumes[1:])):
            signs.append("a small lowest disc")
    return tuple(signs)


def _depth_mm(spine: Spine, label: int) -> float:
    """Anteroposterior extent of a disc."""
    columns = np.flatnonzero((spine.instances == label).any(axis=(0, 1)))
    return float(columns[-1] - columns[0] + 1) * WORKING_SPACING_MM
