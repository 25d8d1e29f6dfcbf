"""In-plane resampling of slice stacks by two small matrices, exact about voxel centres (stage 4).

Linear interpolation, widened to the output spacing when shrinking; frames follow DICOM PS3.3 C.7.6.2.1.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def output_size(size: int, factor: float) -> int:
    """Pixels needed to cover `size` pixels when one output pixel is `factor` input pixels wide."""
    return max(1, round(size / factor))


def resampling_matrix(size_in: int, size_out: int, factor: float) -> NDArray[np.float32]:
    """Weights of each input pixel (column) for each output pixel (row).

    Output pixel ``i`` is centred on input index ``(i + 0.5) * factor - 0.5``: both grids share their outer edge, not
    their first centre, so nothing shifts by half a pixel.

    Parameters
    ----------
    size_in, size_out : number of pixels
    factor : output spacing divided by input spacing

    Returns
    -------
    shape (size_out, size_in), float32, rows sum to 1
    """
    centre = (np.arange(size_out) + 0.5) * factor - 0.5
    width = max(1.0, factor)
    weight = np.maximum(0.0, 1.0 - np.abs(np.arange(size_in)[None, :] - centre[:, None]) / width)
    empty = weight.sum(axis=1) == 0  # an output pixel beyond the last input centre takes the edge pixel
    nearest = np.clip(np.rint(centre), 0, size_in - 1).astype(int)
    weight[empty, nearest[empty]] = 1.0
    result: NDArray[np.float32] = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def resample_in_plane(
    stack: NDArray[np.float32], row_factor: float, column_factor: float, shape_out: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Resample the last two axes of a stack.

    Parameters
    ----------
    stack : shape (…, row, column)
    row_factor, column_factor : output spacing divided by input spacing
    shape_out : rows and columns wanted; by default as many as cover the image

    Returns
    -------
    shape (…, row, column) on the new grid
    """
    rows, columns = stack.shape[-2:]
    shape = shape_out or (output_size(rows, row_factor), output_size(columns, column_factor))
    by_row = resampling_matrix(rows, shape[0], row_factor)
    by_column = resampling_matrix(columns, shape[1], column_factor)
    resampled: NDArray[np.float32] = np.matmul(np.matmul(by_row, stack), by_column.T)
    return resampled
