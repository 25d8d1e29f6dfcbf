"""SYNTHETIC faults of MR images, of known size: what quality measures and robustness tables are tested with.

Pure functions on grey values of shape (slice, row, column), float32, not negative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.resample import output_size, resample_in_plane

FloatArray = NDArray[np.float32]


def with_noise(volume: FloatArray, sigma: float, seed: int = 0) -> FloatArray:
    """Add Rician noise, as magnitude images have it.

    Parameters
    ----------
    sigma : standard deviation in each channel, in grey values

    Source: Gudbjartsson, Patz, Magn Reson Med 34:910 (1995), doi 10.1002/mrm.1910340618.
    """
    rng = np.random.default_rng(seed)
    real, imaginary = (rng.normal(0, sigma, volume.shape).astype(np.float32) for _ in range(2))
    noisy: FloatArray = np.hypot(volume + real, imaginary)
    return noisy


def with_bias_field(volume: FloatArray, strength: float) -> FloatArray:
    """Multiply by a smooth field that falls from the back (surface coil) to the front.

    Parameters
    ----------
    strength : the field runs over the columns from ``1 - strength`` to ``1 + strength``
    """
    columns = np.linspace(1 - strength, 1 + strength, volume.shape[2], dtype=np.float32)
    biased: FloatArray = volume * columns[None, None, :]
    return biased


def with_ghost(volume: FloatArray, strength: float, axis: int = 2) -> FloatArray:
    """Add the half-field ghost of periodic motion along the phase-encoding axis.

    Parameters
    ----------
    strength : share of the signal that lies in the ghost
    axis : 1 rows, 2 columns
    """
    half = np.roll(volume, volume.shape[axis] // 2, axis=axis)
    ghosted: FloatArray = volume * np.float32(1 - strength) + half * np.float32(strength)
    return ghosted


def with_wrap(volume: FloatArray, pixels: int, axis: int = 2) -> FloatArray:
    """Narrow the field of view: what lies outside of it comes back on the other side.

    Parameters
    ----------
    pixels : how many are lost on each side
    axis : 1 rows, 2 columns
    """
    size = volume.shape[axis]
    kept: FloatArray = np.take(volume, range(pixels, size - pixels), axis=axis).copy()
    before, after = (np.take(volume, part, axis=axis) for part in (range(pixels), range(size - pixels, size)))
    place: list[slice] = [slice(None)] * 3
    place[axis] = slice(-pixels, None)
    kept[tuple(place)] += before
    place[axis] = slice(None, pixels)
    kept[tuple(place)] += after
    return kept


def with_moved_slices(volume: FloatArray, pixels: int) -> FloatArray:
    """Move every second slice along its rows, as a patient does between two interleaved passes."""
    moved = volume.copy()
    moved[1::2] = np.roll(volume[1::2], pixels, axis=1)
    return moved


def with_blur(volume: FloatArray, sigma: float) -> FloatArray:
    """Blur each slice.

    Parameters
    ----------
    sigma : standard deviation in pixels
    """
    blurred: FloatArray = ndimage.gaussian_filter(volume, (0, sigma, sigma))
    return blurred


def with_text(volume: FloatArray, text: str = "SYNTHETIC") -> FloatArray:
    """Burn a line of text into the same place of every slice, in the brightest grey."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (volume.shape[2], volume.shape[1]))
    ImageDraw.Draw(canvas).text((8, 8), text, fill=255)
    burnt: FloatArray = np.where(np.asarray(canvas) > 127, volume.max(), volume).astype(np.float32)
    return burnt


def with_lower_resolution(volume: FloatArray, factor: float) -> FloatArray:
    """Measure each slice with pixels `factor` times as wide, shown on the old grid as scanners interpolate."""
    rows, columns = volume.shape[1:]
    coarse = resample_in_plane(volume, factor, factor)
    shape = (output_size(rows, factor), output_size(columns, factor))
    back: FloatArray = resample_in_plane(coarse, shape[0] / rows, shape[1] / columns, (rows, columns))
    return back


def with_inversion(volume: FloatArray) -> FloatArray:
    """Turn dark into bright, as a wrong photometric interpretation does (DICOM PS3.3 C.7.6.3.1.2)."""
    inverted: FloatArray = volume.max() + volume.min() - volume
    return inverted


def with_gamma(volume: FloatArray, exponent: float) -> FloatArray:
    """Bend the grey scale: below 1 dark becomes brighter, above 1 contrast moves to the bright end."""
    top = max(float(volume.max()), 1e-6)
    bent: FloatArray = (top * (np.maximum(volume, 0) / top) ** exponent).astype(np.float32)
    return bent


def with_metal(
    volume: FloatArray,
    places: list[tuple[float, float, float]],
    radius_mm: float,
    spacing_mm: tuple[float, float, float],
) -> FloatArray:
    """Leave what titanium screws leave: a void, a bright rim on one side of it, and pixels drawn towards the rim.

    Parameters
    ----------
    places : centres (slice, row, column) in voxels
    radius_mm : of each void in plane; it reaches half as far through the slices
    spacing_mm : slice, row, column

    Source: Hargreaves et al., AJR 197:547 (2011), doi 10.2214/AJR.11.7364 (signal loss, pile-up, displacement).
    """
    axes = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in volume.shape), indexing="ij", sparse=True)
    result = volume.copy()
    for place in places:
        slices, rows, columns = ((axis - at) * mm for axis, at, mm in zip(axes, place, spacing_mm, strict=True))
        through = np.clip(1 - np.abs(slices) / max(radius_mm / 2, spacing_mm[0] / 2), 0, 1) > 0
        distance = np.hypot(rows, columns) / radius_mm
        near = through & (distance < 2)
        pull = np.where(near, np.float32(radius_mm / spacing_mm[2] / 2) * np.clip(2 - distance, 0, 1), 0)
        moved = ndimage.map_coordinates(result, _pulled(axes, pull), order=1, mode="nearest")
        result = np.where(near, moved, result)
        rim = through & (distance >= 1) & (distance < 1.25) & (columns > 0)
        result = np.where(rim, np.float32(volume.max()), result)
        result = np.where(through & (distance < 1), np.float32(0), result).astype(np.float32)
    return result


def _pulled(axes: tuple[FloatArray, ...], pull: FloatArray) -> list[FloatArray]:
    slices, rows, columns = np.broadcast_arrays(*axes)
    return [slices, rows, columns + pull]
