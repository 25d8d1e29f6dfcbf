"""Register MR to CT of one patient: start from vertebrae, refine from several places, measure, and use it or not.

"Could not register" is an answer of its own (`RegistrationError`), never an identity transform (stage 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.volume import Volume
from ai_services.registration.quality import (
    Quality,
    centroids,
    reasons_against,
    spread_mm,
    surfaces_and_overlap,
)
from ai_services.registration.rigid import (
    FEWEST_LANDMARKS,
    NoOverlapError,
    RigidTransform,
    between_centres,
    from_landmarks,
    refine,
)

STARTS_MM = (0.0, 4.0, -4.0)
"""Offsets of the starts, sideways and along the spine at once: within half a disc distance."""
FROM_BELOW = ("L5", "L4", "L3", "L2", "L1", "T12", "T11")
AROUND_MM = 14.0
"""Compared is what lies this near to a vertebra: bowel and skin move against the spine."""


class RegistrationError(Exception):
    """Could not register; the message says why, for people. `quality` holds what was measured, where it was."""

    def __init__(self, message: str, quality: Quality | None = None) -> None:
        super().__init__(message)
        self.quality = quality


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration that may be shown, with its quality.

    Parameters
    ----------
    transform : points of the fixed volume's frame to the moving one's
    quality : how good it is
    """

    transform: RigidTransform
    quality: Quality


def register(
    fixed: Volume,
    moving: Volume,
    fixed_vertebrae: Mapping[str, Volume],
    moving_vertebrae: Mapping[str, Volume],
) -> Registration:
    """Register two volumes of one patient.

    Parameters
    ----------
    fixed, moving : grey values, for example CT and MR
    fixed_vertebrae, moving_vertebrae : name (``L4``) to a volume that is 1 inside that vertebra; the same parts of it
        in both, so bodies with bodies

    Raises
    ------
    RegistrationError
        Too few vertebrae of the same name, or a quality below the limits of `quality`.
    """
    here, there = centroids(fixed_vertebrae), centroids(moving_vertebrae)
    names = sorted(set(here) & set(there))
    try:
        start = from_landmarks(here, there)
    except ValueError as exc:
        raise RegistrationError(f"could not register: {exc}") from exc
    targets = np.array([here[name] for name in names])
    inside = _around(fixed, fixed_vertebrae)
    results = []
    try:
        for offset in STARTS_MM:
            moved = RigidTransform(start.rotation, start.shift + offset * np.array([0.6, 0.0, 0.8]))
            results.append(refine(fixed, moving, moved, inside))
    except NoOverlapError as exc:
        raise RegistrationError(f"could not register: {exc}") from exc
    elsewhere = []
    for other in _one_level_off(here, there):
        with suppress(NoOverlapError):  # then the images do not agree better there
            elsewhere.append(refine(fixed, moving, other, inside)[1])
    results.sort(key=lambda item: -item[1])
    information = results[0][1]  # of one pass, as those one level off have had
    better = refine(fixed, moving, results[0][0], inside)
    if better[1] > information:
        results.insert(0, better)
    transform = results[0][0]
    surface, overlap = surfaces_and_overlap(fixed_vertebrae, moving_vertebrae, transform)
    landmark = np.sqrt(np.mean([np.sum((transform.apply(here[n]) - there[n]) ** 2) for n in names]))
    quality = Quality(
        surface_mm=surface,
        overlap=overlap,
        spread_mm=spread_mm([item[0] for item in results], targets),
        landmark_mm=float(landmark),
        vertebrae=len(names),
        mutual_information=results[0][1],
        better_elsewhere=max(elsewhere, default=-np.inf) > information,
    )
    reasons = reasons_against(quality)
    if reasons:
        raise RegistrationError(f"could not register: {'; '.join(reasons)}", quality)
    return Registration(transform, quality)


def register_without_landmarks(fixed: Volume, moving: Volume) -> RigidTransform:
    """Refine from the middles of both volumes; for tests of the capture range, as its quality cannot be told."""
    return refine(fixed, moving, between_centres(fixed, moving))[0]


def _one_level_off(
    here: Mapping[str, NDArray[np.float64]], there: Mapping[str, NDArray[np.float64]]
) -> list[RigidTransform]:
    """Starts that lay each vertebra on the next one above or below it."""
    order = [name for name in FROM_BELOW if name in here or name in there]
    starts = []
    for step in (-1, 1):
        moved = {
            name: there[order[place + step]]
            for place, name in enumerate(order)
            if 0 <= place + step < len(order) and order[place + step] in there
        }
        if len(set(moved) & set(here)) >= FEWEST_LANDMARKS:
            starts.append(from_landmarks(here, moved))
    return starts


def _around(fixed: Volume, vertebrae: Mapping[str, Volume]) -> NDArray[np.bool_]:
    """Where the fixed volume is near to one of its vertebrae (which lie on its grid)."""
    inside = np.zeros(fixed.array.shape, dtype=np.bool_)
    for vertebra in vertebrae.values():
        if vertebra.array.shape != fixed.array.shape:
            raise ValueError("vertebrae of the fixed volume must lie on its grid")
        inside |= vertebra.array > 0.5
    reach = [max(1, round(AROUND_MM / step)) for step in fixed.spacing_mm]
    near: NDArray[np.bool_] = ndimage.maximum_filter(inside, size=[2 * n + 1 for n in reach])
    return near
