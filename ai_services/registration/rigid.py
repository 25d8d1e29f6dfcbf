"""Rigid registration of two volumes by mutual information, coarse to fine (stage 4).

SimpleITK's `ImageRegistrationMethod` with Mattes' mutual information (ITK: itk::MattesMutualInformationImageToImage
MetricV4), as densities of MR and CT have no common scale. It starts from centroids of vertebrae where both are known:
from there the nearest optimum is the right vertebra, not its neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.volume import Volume

sitk: Any = import_module("SimpleITK")  # its wheel has no types
SHRINK = (4, 2, 1)
SMOOTH_MM = (3.0, 1.5, 0.7)
BINS = 48
SAMPLED = 0.06
"""Share of voxels; a fixed seed makes a run repeatable."""
SEED = 20261123
ROUNDS = 70
WORKING_MM = 1.2
FEWEST_LANDMARKS = 3


class NoOverlapError(ValueError):
    """Under a start, what is compared of the fixed volume lies outside the moving one."""


@dataclass(frozen=True, slots=True)
class RigidTransform:
    """Maps points of the fixed volume's frame to the moving one's: ``moving = rotation @ fixed + shift``, LPS mm.

    Parameters
    ----------
    rotation : shape (3, 3), orthonormal
    shift : shape (3,)
    """

    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]

    def apply(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map points, shape (…, 3)."""
        result: NDArray[np.float64] = np.asarray(points, dtype=np.float64) @ self.rotation.T + self.shift
        return result

    def inverse(self) -> RigidTransform:
        """The way back."""
        return RigidTransform(self.rotation.T, -self.rotation.T @ self.shift)

    def matrix(self) -> NDArray[np.float64]:
        """Homogeneous matrix, shape (4, 4)."""
        result = np.eye(4)
        result[:3, :3], result[:3, 3] = self.rotation, self.shift
        return result

    def angle_deg(self) -> float:
        """Angle of the rotation."""
        return float(np.degrees(np.arccos(np.clip((np.trace(self.rotation) - 1) / 2, -1, 1))))


def from_landmarks(
    fixed: Mapping[str, NDArray[np.float64]], moving: Mapping[str, NDArray[np.float64]]
) -> RigidTransform:
    """Least-squares rigid transform of points of the same name (Kabsch; doi 10.1107/S0567739476001873).

    Raises
    ------
    ValueError
        Fewer than `FEWEST_LANDMARKS` names are in both.
    """
    names = sorted(set(fixed) & set(moving))
    if len(names) < FEWEST_LANDMARKS:
        raise ValueError(f"{len(names)} landmarks in common, at least {FEWEST_LANDMARKS} are needed")
    here, there = np.array([fixed[name] for name in names]), np.array([moving[name] for name in names])
    middle, goal = here.mean(axis=0), there.mean(axis=0)
    u, _, vt = np.linalg.svd((here - middle).T @ (there - goal))
    turn = np.diag([1.0, 1.0, float(np.sign(np.linalg.det(vt.T @ u.T)))])
    rotation = vt.T @ turn @ u.T
    return RigidTransform(rotation, goal - rotation @ middle)


def between_centres(fixed: Volume, moving: Volume) -> RigidTransform:
    """A start where nothing else is known: the middles of both volumes on one another."""
    centres = [volume.to_lps((np.array(volume.array.shape) - 1) / 2) for volume in (fixed, moving)]
    return RigidTransform(np.eye(3), centres[1] - centres[0])


def refine(
    fixed: Volume, moving: Volume, start: RigidTransform, inside: NDArray[np.bool_] | None = None
) -> tuple[RigidTransform, float]:
    """Improve a start by mutual information.

    Parameters
    ----------
    fixed, moving : any modality, any grid
    start : first guess
    inside : shape of `fixed`; where to compare, None for everywhere

    Returns
    -------
    the transform, and its mutual information (nats, more is better)

    Raises
    ------
    NoOverlapError
        See there.
    """
    here, there = sitk_image(fixed), sitk_image(moving)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SAMPLED, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    if inside is not None:
        method.SetMetricFixedMask(sitk_image(Volume(inside.astype(np.float32), fixed.affine_lps), sitk.sitkUInt8))
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, ROUNDS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK)
    method.SetSmoothingSigmasPerLevel(SMOOTH_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    euler = sitk.Euler3DTransform()
    centre = fixed.to_lps((np.array(fixed.array.shape) - 1) / 2)
    euler.SetCenter(centre.tolist())
    euler.SetMatrix(start.rotation.ravel().tolist(), 1e-6)
    euler.SetTranslation((start.apply(centre) - centre).tolist())
    method.SetInitialTransform(euler, inPlace=True)
    try:
        method.Execute(here, there)
    except RuntimeError as exc:  # ITK: too many samples map outside the moving image buffer
        raise NoOverlapError("too little of one volume lies in the other") from exc
    rotation = np.array(euler.GetMatrix()).reshape(3, 3)
    shift = np.array(euler.TransformPoint((0.0, 0.0, 0.0)))
    return RigidTransform(rotation, shift), -float(method.GetMetricValue())


def sitk_image(volume: Volume, kind: int = sitk.sitkFloat32) -> Any:
    """A volume as SimpleITK has it; a sheared stack (tilted gantry) is resampled first, as ITK knows no shear."""
    straight = _straight(volume)
    image = sitk.GetImageFromArray(straight.array)
    axes = straight.affine_lps[:3, [2, 1, 0]]  # ITK counts column, row, slice
    spacing = np.linalg.norm(axes, axis=0)
    direction = axes / spacing
    if np.linalg.det(direction) < 0:
        raise ValueError("the volume's axes must be right-handed")
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(straight.affine_lps[:3, 3].tolist())
    return sitk.Cast(image, kind)


def _straight(volume: Volume) -> Volume:
    """The volume on right-handed axes at right angles."""
    array, affine = volume.array, volume.affine_lps.copy()
    if np.linalg.det(affine[:3, [2, 1, 0]]) < 0:  # slices run against the right-handed order
        affine[:3, 3] += affine[:3, 0] * (len(array) - 1)
        affine[:3, 0] *= -1
        array = array[::-1]
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(unit.T @ unit - np.eye(3)).max() < 1e-4:
        return Volume(np.ascontiguousarray(array), affine)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(array.shape) - 1)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high = world.min(axis=0), world.max(axis=0)
    shape = tuple(int(n) for n in np.floor((high - low)[::-1] / WORKING_MM) + 1)
    inverse = np.linalg.inv(affine[:3, :3])
    matrix, offset = inverse[:, ::-1] * WORKING_MM, inverse @ (low - affine[:3, 3])
    straight = ndimage.affine_transform(array, matrix, offset, shape, order=1, mode="nearest")
    grid = np.eye(4)
    grid[:3, :3] = np.eye(3)[:, ::-1] * WORKING_MM
    grid[:3, 3] = low
    return Volume(straight.astype(np.float32), grid)
