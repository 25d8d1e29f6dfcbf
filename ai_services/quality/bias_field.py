"""The smooth brightness field of a coil, estimated on a shrunken copy and evaluated on the whole grid.

Source: N4, Tustison et al., IEEE Trans Med Imaging 29:1310 (2010), doi 10.1109/TMI.2010.2046908 (SimpleITK).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

SimpleITK: Any = import_module("SimpleITK")  # its wheel has no types

_LARGEST_SIDE = 96
_ITERATIONS = (30, 20, 10)
_MOST_SLICES = 24
_THREADS = 2


def bias_field(stack: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Estimate the field.

    Parameters
    ----------
    stack : shape (slice, row, column), float32, not negative
    foreground : same shape; the field is fitted there

    Returns
    -------
    same shape, float32, positive, mean 1 in the foreground; dividing by it mends the images
    """
    in_plane = max(1, -(-max(stack.shape[1:]) // _LARGEST_SIDE))
    across = max(1, -(-stack.shape[0] // _MOST_SLICES))
    image = SimpleITK.GetImageFromArray(np.maximum(stack, 0) + np.float32(1e-3))
    mask = SimpleITK.GetImageFromArray(foreground.astype(np.uint8))
    factors = [in_plane, in_plane, across]
    corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
    corrector.SetNumberOfThreads(_THREADS)
    flat = stack.shape[0] < 4
    if flat:  # The spline needs some slices: a copy on each side.
        image, mask = (SimpleITK.MirrorPad(part, [0, 0, 4], [0, 0, 4]) for part in (image, mask))
    corrector.SetMaximumNumberOfIterations(_ITERATIONS)
    corrector.Execute(SimpleITK.Shrink(image, factors), SimpleITK.Shrink(mask, factors))
    field: NDArray[np.float32] = np.exp(SimpleITK.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)))
    if flat:
        field = field[4:-4]
    mended: NDArray[np.float32] = (field / field[foreground].mean()).astype(np.float32)
    return mended
