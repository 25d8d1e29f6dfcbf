"""What belongs to the column of discs: one disc seen in two pieces, a disc of the sacrum, a disc cut by the border.

Each rule mends a kind of miscount that was seen on the training patients (stage 4).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM
from ai_services.pipelines.lumbar_mr.structures import DISC, VERTEBRA

SPLIT_PITCH_SHARE = 0.62  # pieces of one disc lie closer than this share of the usual distance between discs
STEEP_PITCH_SHARE = 0.85  # or than this, where the lower piece is the anterior one: a steep L5-S1
STEEP_STEP_MM = 4.0
BODY_SHARE = 0.3  # least share of vertebra on the way from one disc to the next
REMNANT_AREA_SHARE = 0.6  # S1-S2 is smaller than this share of the usual disc
REMNANT_BODY_SHARE = 0.6
CUT_TOP_SHARE = 0.12  # a disc centred nearer to the upper border than this share of the usual distance is cut by it
SACRAL_REMNANT = "a disc-like structure lies in the sacrum, below the disc counted as the lowest"

Found = list[tuple[int, NDArray[np.float64], float]]
"""Label, centre (slice, row, column) and volume in cubic millimetres of each disc, from the lowest up."""


def join_split_discs(components: NDArray[np.int32], classes: NDArray[np.uint8], voxel_mm3: float) -> NDArray[np.int32]:
    """Join neighbours that lie too close together and have no vertebral body between them: one steep or torn disc."""
    labels, volume, centre = component_statistics(components, voxel_mm3)
    order = [index for index in np.argsort(-centre[:, 1]) if volume[index] >= volume.max() / 8]
    if len(order) < 4:
        return components
    pitch = _usual_pitch([centre[index] for index in order])
    lookup = np.arange(int(components.max()) + 1, dtype=np.int32)
    for lower, upper in pairwise(order):
        steep = (centre[upper, 2] - centre[lower, 2]) * WORKING_SPACING_MM > STEEP_STEP_MM
        share = STEEP_PITCH_SHARE if steep else SPLIT_PITCH_SHARE
        near = _distance_mm(centre[lower], centre[upper]) < share * pitch
        if near and _body_between(centre[lower], centre[upper], classes) < BODY_SHARE:
            lookup[labels[upper]] = lookup[labels[lower]]
    result: NDArray[np.int32] = lookup[components]
    return result


def without_remnant(found: Found, classes: NDArray[np.uint8]) -> tuple[Found, tuple[str, ...]]:
    """Leave out S1-S2: small, the lowest, and with no vertebra (the sacrum is none) between it and the next disc."""
    if len(found) < 5:
        return found, ()
    (_, lowest, volume), (_, above, _) = found[0], found[1]
    usual = float(np.median([item[2] for item in found[1:]]))
    if volume < REMNANT_AREA_SHARE * usual and _body_between(lowest, above, classes) < REMNANT_BODY_SHARE:
        return found[1:], (SACRAL_REMNANT,)
    return found, ()


def without_cut_top(found: Found, first_row: int) -> Found:
    """Leave out an uppermost disc that the image's border cuts: neither its height nor its vertebra can be seen."""
    if len(found) < 4:
        return found
    from_border_mm = (first_row + float(found[-1][1][1])) * WORKING_SPACING_MM
    cut = from_border_mm < CUT_TOP_SHARE * _usual_pitch([centre for _, centre, _ in found])
    return found[:-1] if cut else found


def _usual_pitch(centres: list[NDArray[np.float64]]) -> float:
    return float(np.median([_distance_mm(a, b) for a, b in pairwise(centres)]))


def _distance_mm(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.hypot(*(a - b)[1:])) * WORKING_SPACING_MM


def _body_between(a: NDArray[np.float64], b: NDArray[np.float64], classes: NDArray[np.uint8]) -> float:
    """Share of vertebra on the straight way between two points, discs left out."""
    way = np.rint(a + (b - a) * np.linspace(0, 1, 60)[:, None]).astype(np.intp)
    seen = classes[tuple(way.T)]
    outside = seen[seen != DISC]
    return float((outside == VERTEBRA).mean()) if len(outside) >= 5 else 0.0


def component_statistics(
    components: NDArray[np.int32], voxel_mm3: float
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Labels, volumes (mm³) and centres (slice, row, column) of all components."""
    points = np.nonzero(components)
    owner = components[points]
    count = np.bincount(owner)
    labels: NDArray[np.intp] = np.flatnonzero(count)
    volume: NDArray[np.float64] = count[labels].astype(np.float64) * voxel_mm3
    sums = [np.bincount(owner, weights=axis.astype(np.float64))[labels] for axis in points]
    centre = np.stack(sums, axis=1) / count[labels][:, None]
    return labels, volume, centre
