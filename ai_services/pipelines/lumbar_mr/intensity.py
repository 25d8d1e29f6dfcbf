"""Grey values to the scale the networks were trained on; the same function in training and serving (stage 4).

MR grey values have no unit (DICOM PS3.3 C.8.3.1), so each slice is scaled by its own percentiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOW_PERCENTILE = 1.0
HIGH_PERCENTILE = 99.5


def normalise_slices(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each slice so that its 1st and 99.5th percentile become 0 and 1, clipped to -0.1 … 1.5.

    Parameters
    ----------
    stack : shape (…, row, column), any grey scale, finite

    Returns
    -------
    same shape, float32; a constant slice becomes 0
    """
    flat = stack.reshape(*stack.shape[:-2], -1)
    # Every third pixel estimates a percentile well enough and costs a third.
    low, high = np.percentile(flat[..., ::3], (LOW_PERCENTILE, HIGH_PERCENTILE), axis=-1)
    span = np.maximum(high - low, 1e-6)
    scaled = (stack - low[..., None, None]) / span[..., None, None]
    constant = (high - low) <= 1e-6
    scaled[constant] = 0.0
    result: NDArray[np.float32] = np.clip(scaled, -0.1, 1.5).astype(np.float32)
    return result
