"""How good a registration is, measured on what it was not made from, and whether it may be used (stage 4).

Target registration error on known points (Fitzpatrick, West, Maurer 1998, doi 10.1109/42.736021); overlap and surface
distance of the same vertebra in both; how far apart results lie that start from different places (capture range). The
limits are POLICY, tried on SYNTHETIC phantoms; a plan needs a person's look at the fused images in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from ai_services.imaging.volume import Volume
from ai_services.registration.rigid import RigidTransform

LARGEST_SURFACE_MM = 2.5
LEAST_OVERLAP = 0.75
LARGEST_SPREAD_MM = 2.0
LARGEST_LANDMARK_MM = 6.0
FEWEST_VERTEBRAE = 3
MOST_POINTS = 4000


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one registration; None where it could not be measured.

    Parameters
    ----------
    surface_mm : mean distance of the surfaces of vertebrae of the same name, symmetric, the worst vertebra's
    overlap : Dice of these vertebrae together
    spread_mm : how far points of the spine move between results of different starts, the largest mean
    landmark_mm : root mean square distance of the centroids of vertebrae of the same name, after registration
    vertebrae : how many have the same name in both
    mutual_information : nats
    better_elsewhere : the images agree better with the vertebrae named one level higher or lower: the spine repeats
        itself, and names that are off by one fit nearly as well as the right ones
    """

    surface_mm: float | None
    overlap: float | None
    spread_mm: float | None
    landmark_mm: float | None
    vertebrae: int
    mutual_information: float
    better_elsewhere: bool = False


def reasons_against(quality: Quality) -> tuple[str, ...]:
    """Why the registration may not be used, in words; empty where it may. What was not measured speaks against it."""
    reasons = []
    if quality.better_elsewhere:
        reasons.append("the images agree better one level higher or lower: the two are numbered differently")
    if quality.vertebrae < FEWEST_VERTEBRAE:
        reasons.append(f"{quality.vertebrae} vertebrae in common, at least {FEWEST_VERTEBRAE} are needed")
    for name, value, limit, unit in (
        ("surfaces of vertebrae", quality.surface_mm, LARGEST_SURFACE_MM, "mm"),
        ("results of different starts", quality.spread_mm, LARGEST_SPREAD_MM, "mm"),
        ("centroids of vertebrae", quality.landmark_mm, LARGEST_LANDMARK_MM, "mm"),
    ):
        if value is None:
            reasons.append(f"the distance of {name} was not measured")
        elif value > limit:
            reasons.append(f"{name} lie {value:.1f} {unit} apart, at most {limit:.1f} {unit} are accepted")
    if quality.overlap is None or quality.overlap < LEAST_OVERLAP:
        told = "was not measured" if quality.overlap is None else f"is {quality.overlap:.2f}"
        reasons.append(f"the overlap of vertebrae {told}, at least {LEAST_OVERLAP:.2f} is accepted")
    return tuple(reasons)


def target_error_mm(found: RigidTransform, true: RigidTransform, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Target registration error of each point, shape (point,); the true transform is only known for phantoms."""
    result: NDArray[np.float64] = np.linalg.norm(found.apply(points) - true.apply(points), axis=-1)
    return result


def spread_mm(results: Sequence[RigidTransform], points: NDArray[np.floating]) -> float:
    """Largest mean distance of points between the first result and each other one."""
    first = results[0].apply(points)
    return max((float(np.linalg.norm(item.apply(points) - first, axis=1).mean()) for item in results[1:]), default=0.0)


def surfaces_and_overlap(
    fixed: Mapping[str, Volume], moving: Mapping[str, Volume], transform: RigidTransform
) -> tuple[float | None, float | None]:
    """Worst mean surface distance and common Dice of vertebrae of the same name.

    Parameters
    ----------
    fixed, moving : name to a volume that is 1 inside the vertebra and 0 outside
    transform : from fixed to moving
    """
    names = sorted(set(fixed) & set(moving))
    distances, shared, total = [], 0, 0
    for name in names:
        here, there = fixed[name].array > 0.5, moving[name].array > 0.5
        if not here.any() or not there.any():
            continue
        mine = transform.apply(surface_points(here, fixed[name]))
        theirs = surface_points(there, moving[name])
        both = [cKDTree(b).query(a)[0].mean() for a, b in ((mine, theirs), (theirs, mine))]
        distances.append(float(np.mean(both)))
        # Each voxel of the fixed one asks the moving one; the moving one's size is in the fixed one's voxels.
        index = moving[name].to_index(transform.apply(fixed[name].to_lps(np.argwhere(here).astype(np.float64))))
        seen = ndimage.map_coordinates(moving[name].array, index.T, order=0, mode="constant", cval=0) > 0.5
        voxel = abs(np.linalg.det(moving[name].affine_lps[:3, :3]) / np.linalg.det(fixed[name].affine_lps[:3, :3]))
        shared += 2 * int(seen.sum())
        total += int(here.sum()) + round(float(there.sum()) * float(voxel))
    if not distances:
        return None, None
    return max(distances), shared / total


def surface_points(inside: NDArray[np.bool_], volume: Volume) -> NDArray[np.float64]:
    """LPS points of the outermost voxels, at most `MOST_POINTS`, shape (point, 3)."""
    edge = np.argwhere(inside & ~ndimage.binary_erosion(inside))
    step = max(1, len(edge) // MOST_POINTS)
    return volume.to_lps(edge[::step].astype(np.float64))


def centroids(vertebrae: Mapping[str, Volume]) -> dict[str, NDArray[np.float64]]:
    """LPS centroid of each vertebra that is not empty."""
    found = {}
    for name, volume in vertebrae.items():
        inside = np.argwhere(volume.array > 0.5)
        if len(inside):
            found[name] = volume.to_lps(inside.mean(axis=0))
    return found
