"""Measures taken from grey values: noise, bias field, ghosts, moved slices, wrap, burnt-in text.

All take a stack of shape (slice, row, column), float32; grey values are relative, so every ratio is to the signal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.registration import phase_cross_correlation

from ai_services.quality.bias_field import bias_field
from ai_services.quality.measure import CannotLookError

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_MOST_SLICES = 40
_LEAST_BACKGROUND = 0.02
_BORDER = 0.02
_SQUARE = 16
_LEAST_SQUARES = 8
_QUIET_PERCENT = 25
_SMALLEST_LETTER, _LARGEST_LETTER = 4, 400
_EXTREME = 0.98


def foreground_of(stack: FloatArray) -> BoolArray:
    """Where there is body and not air, holes filled.

    Source: Otsu, IEEE Trans Syst Man Cybern 9:62 (1979), doi 10.1109/TSMC.1979.4310076; on the square root, in which
    dark tissues lie farther from air, and half of that threshold, as lumbar images are half in the coil's shade.

    Raises
    ------
    CannotLookError
        The images are constant, or what stands out has no signal (a field map, a phase image).
    """
    low, high = float(stack.min()), float(np.percentile(stack, 99))
    if high <= low:
        raise CannotLookError("the images are constant", "图像为常数")
    smooth = ndimage.gaussian_filter(np.sqrt(np.clip(stack, low, high) - low), (0, 2, 2))
    mask = ndimage.binary_opening(smooth > threshold_otsu(smooth) / np.sqrt(2), np.ones((1, 5, 5), dtype=bool))
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    _signal(stack, body)
    return body


def noise_percent(stack: FloatArray, foreground: BoolArray) -> float:
    """Standard deviation of the noise over the median signal, in percent.

    Second differences cancel what is flat or rises evenly; their median ignores edges, and the quieter squares of the
    body tell of noise where the others tell of structure.
    Source: Immerkær, Comput Vis Image Underst 64:300 (1996), doi 10.1006/cviu.1996.0060; median for mean.
    Structure as fine as the pixels counts as noise.
    """
    signal = _signal(stack, foreground)
    inner = foreground[:, 1:-1, 1:-1]
    found = []
    for plane, mask in zip(_some(stack), _some(inner), strict=True):
        second = np.abs(ndimage.convolve(plane, _LAPLACIAN)[1:-1, 1:-1])
        rows, columns = (size // _SQUARE for size in mask.shape)
        if not rows or not columns:
            continue
        inside, values = (_squares(part, rows, columns) for part in (mask, second))
        whole: BoolArray = np.asarray(inside.all(axis=1))
        if whole.sum() >= _LEAST_SQUARES:
            quiet = np.percentile(np.median(values[whole], axis=1), _QUIET_PERCENT)
            found.append(float(quiet) / (0.6745 * 6))
    if not found:
        raise CannotLookError("too little of the body is in the images", "图像中人体区域过小")
    return 100 * float(np.median(found)) / signal


def bias_percent(stack: FloatArray, foreground: BoolArray) -> float:
    """Coefficient of variation of the N4 bias field in the body, in percent (see `bias_field`)."""
    field = bias_field(stack, foreground)
    values = field[foreground]
    return 100 * float(values.std() / values.mean())


def ghosting_percent(stack: FloatArray, foreground: BoolArray, phase_axis: int | None) -> float:
    """Signal of the background before and behind the body, less that beside it, over the body's signal, in percent.

    Parameters
    ----------
    phase_axis : 1 rows, 2 columns, in which phase was encoded; None: not known

    Source: percent signal ghosting, ACR Large Phantom Guidance (2018) test 7, on the patient's own background.
    """
    if phase_axis is None:
        raise CannotLookError("the phase-encoding direction is not stated", "未注明相位编码方向")
    signal = _signal(stack, foreground)
    around = ~ndimage.binary_dilation(foreground, np.ones((1, 7, 7), dtype=bool))
    # In line with the body along the phase direction a ghost may fall; elsewhere there is noise alone.
    in_line = around & foreground.any(axis=phase_axis, keepdims=True)
    beside = around & ~foreground.any(axis=phase_axis, keepdims=True)
    least = _LEAST_BACKGROUND * foreground.size
    if in_line.sum() < least:
        raise CannotLookError("the body fills the image in the phase-encoding direction", "人体充满相位编码方向的视野")
    noise = float(stack[beside].mean()) if beside.sum() >= least else float(np.percentile(stack[in_line], 10))
    return 100 * max(0.0, float(stack[in_line].mean()) - noise) / signal


def slice_shift_mm(stack: FloatArray, spacing_mm: tuple[float, float]) -> float:
    """Largest shift of a slice against the mean of its two neighbours, in millimetres in plane.

    Source: phase correlation, Guizar-Sicairos et al., Opt Lett 33:156 (2008), doi 10.1364/OL.33.000156.
    """
    if len(stack) < 3:
        raise CannotLookError("fewer than three slices", "少于三层")
    shifts = []
    for number in range(1, len(stack) - 1):
        neighbours = (stack[number - 1] + stack[number + 1]) / 2
        if stack[number].std() == 0 or neighbours.std() == 0:
            continue
        moved, _, _ = phase_cross_correlation(neighbours, stack[number], upsample_factor=4)
        shifts.append(float(np.hypot(moved[0] * spacing_mm[0], moved[1] * spacing_mm[1])))
    if not shifts:
        raise CannotLookError("the images are constant", "图像为常数")
    # One slice may look like a shifted one because the anatomy changes there; a moved patient shows in several.
    return float(np.percentile(shifts, 75))


def wrap_percent(foreground: BoolArray, phase_axis: int | None) -> float:
    """Share of the two borders across the phase direction where the body reaches both, in percent.

    A suspicion, not a proof: with oversampling or saturation bands a body that reaches both borders does not wrap.
    """
    if phase_axis is None:
        raise CannotLookError("the phase-encoding direction is not stated", "未注明相位编码方向")
    size = foreground.shape[phase_axis]
    width = max(1, round(_BORDER * size))
    first = np.take(foreground, range(width), axis=phase_axis).any(axis=phase_axis)
    last = np.take(foreground, range(size - width, size), axis=phase_axis).any(axis=phase_axis)
    reached = foreground.any(axis=phase_axis)
    return 100 * float((first & last).sum()) / max(1, int(reached.sum()))


def burnt_in_letters(stack: FloatArray) -> int:
    """Count shapes of the size of letters that stand in the same place of every slice in an extreme grey.

    A hint for a person: text in another grey, or in one image alone, is not found.
    """
    if len(stack) < 3:
        raise CannotLookError("fewer than three slices", "少于三层")
    low, high = float(stack.min()), float(stack.max())
    if high <= low:
        raise CannotLookError("the images are constant", "图像为常数")
    extreme = low + _EXTREME * (high - low)
    still = np.asarray((stack >= extreme).all(axis=0))
    labels, count = ndimage.label(still, np.ones((3, 3)))
    if not count:
        return 0
    sizes = ndimage.sum_labels(still, labels, range(1, count + 1))
    return int(((sizes >= _SMALLEST_LETTER) & (sizes <= _LARGEST_LETTER)).sum())


def _squares(plane: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Cut a plane into squares, shape (square, pixel); what is left at the border falls off."""
    cut = plane[: rows * _SQUARE, : columns * _SQUARE].reshape(rows, _SQUARE, columns, _SQUARE)
    return cut.swapaxes(1, 2).reshape(rows * columns, -1)


def _signal(stack: FloatArray, foreground: BoolArray) -> float:
    values = stack[foreground]
    signal = float(np.median(values)) if values.size else 0.0
    if signal <= 0:
        raise CannotLookError("the images have no signal", "图像无信号")
    return signal


def _some(stack: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return evenly spread slices where there are very many."""
    return stack[:: max(1, len(stack) // _MOST_SLICES)]
