"""Corrected copies of a volume: bias field, noise, pixel spacing, grey scale. Pure; the input is never changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means

from ai_services.imaging.resample import output_size, resample_in_plane
from ai_services.imaging.volume import Volume
from ai_services.quality.bias_field import bias_field
from ai_services.quality.pixel_measures import foreground_of, noise_percent

STANDARD_PIXEL_MM = 0.5
_STANDARD_SCALE = (0.0, 400.0, 1000.0)
_LANDMARKS = (1, 50, 99)


class Step(StrEnum):
    """One correction; several are made in the order given here."""

    BIAS = "bias"
    DENOISE = "denoise"
    RESAMPLE = "resample"
    STANDARDISE = "standardise"


@dataclass(frozen=True, slots=True)
class Corrected:
    """A corrected volume and what was done, in words for the DICOM header."""

    volume: Volume
    description: str


def correct(volume: Volume, steps: tuple[Step, ...]) -> Corrected:
    """Make the corrections asked for, in their fixed order.

    Raises
    ------
    CannotLookError
        The images are constant or hold no body.
    ValueError
        No step.
    """
    if not steps:
        raise ValueError("at least one correction is needed")
    said = []
    for step in sorted(set(steps), key=list(Step).index):
        volume, words = _MAKE[step](volume)
        said.append(words)
    return Corrected(volume, "; ".join(said))


def without_bias(volume: Volume) -> tuple[Volume, str]:
    """Divide by the N4 field."""
    field = bias_field(volume.array, foreground_of(volume.array))
    return Volume(volume.array / field, volume.affine_lps), "N4 bias field correction (doi 10.1109/TMI.2010.2046908)"


def without_noise(volume: Volume) -> tuple[Volume, str]:
    """Average what looks alike, slice by slice.

    Source: non-local means, Buades et al., IPOL 1:208 (2011), doi 10.5201/ipol.2011.bcm_nlm (scikit-image).
    """
    body = foreground_of(volume.array)
    sigma = noise_percent(volume.array, body) / 100 * float(np.median(volume.array[body]))
    if sigma <= 0:
        return volume, "non-local means: no noise found"
    planes = [
        denoise_nl_means(plane, patch_size=5, patch_distance=5, h=0.8 * sigma, sigma=sigma, fast_mode=True)
        for plane in volume.array
    ]
    return Volume(np.stack(planes).astype(np.float32), volume.affine_lps), (
        f"non-local means, sigma {sigma:.3g} (doi 10.5201/ipol.2011.bcm_nlm)"
    )


def resampled(volume: Volume, pixel_mm: float = STANDARD_PIXEL_MM) -> tuple[Volume, str]:
    """Resample in plane to square pixels; slices stay where they are.

    Both grids share their outer edge, so the first voxel centre moves by half the difference of the spacings.
    """
    _, row_mm, column_mm = volume.spacing_mm
    factors = (pixel_mm / row_mm, pixel_mm / column_mm)
    shape = tuple(output_size(size, factor) for size, factor in zip(volume.array.shape[1:], factors, strict=True))
    array = resample_in_plane(volume.array, *factors, shape_out=(shape[0], shape[1]))
    affine = volume.affine_lps.copy()
    affine[:3, 1] *= factors[0]
    affine[:3, 2] *= factors[1]
    affine[:3, 3] = volume.to_lps(np.array([0.0, (factors[0] - 1) / 2, (factors[1] - 1) / 2]))
    return Volume(array.astype(np.float32), affine), f"resampled in plane to {pixel_mm} mm, linear"


def standardised(volume: Volume) -> tuple[Volume, str]:
    """Bring three landmarks of the body's grey values to one scale: percentiles 1, 50, 99 to 0, 400, 1000.

    Source: Nyúl, Udupa, Magn Reson Med 42:1072 (1999), with a fixed instead of a trained scale.
    """
    values = volume.array[foreground_of(volume.array)]
    found = np.percentile(values, _LANDMARKS).astype(np.float64)
    found = np.maximum.accumulate(found + np.array([0, 1e-6, 2e-6]) * max(1.0, abs(float(found[2]))))
    array = _piecewise(volume.array, found)
    return Volume(array, volume.affine_lps), "grey scale by percentiles 1, 50, 99 of the body to 0, 400, 1000"


def _piecewise(array: NDArray[np.float32], landmarks: NDArray[np.float64]) -> NDArray[np.float32]:
    """Map through the landmarks in straight lines, on below the first and above the last; what falls below 0 is 0."""
    low, middle, high = landmarks
    zero, half, full = _STANDARD_SCALE
    lower = zero + (array - low) * ((half - zero) / (middle - low))
    upper = half + (array - middle) * ((full - half) / (high - middle))
    mapped: NDArray[np.float32] = np.maximum(np.where(array < middle, lower, upper), 0).astype(np.float32)
    return mapped


_MAKE = {
    Step.BIAS: without_bias,
    Step.DENOISE: without_noise,
    Step.RESAMPLE: resampled,
    Step.STANDARDISE: standardised,
}
