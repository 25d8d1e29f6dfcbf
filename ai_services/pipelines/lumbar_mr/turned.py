"""Whether the images stand as their header says: the network is least in doubt about an upright spine (stage 4).

The slice with most canal is segmented upside down, mirrored and both as well. In 75 of 76 SPIDER images each of these
leaves more entropy in the whole slice than the upright one, at least 1.01 times as much; the other is too uncertain.
A left-right exchange of the slices cannot be seen in sagittal images, and is not found.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ai_services.imaging.refusal import refusal
from ai_services.pipelines.lumbar_mr.postprocess import find_spine
from ai_services.pipelines.lumbar_mr.suitability import require_lumbar
from ai_services.pipelines.lumbar_mr.uncertainty import normalised_entropy
from ai_services.prediction import PipelineError

Segment = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From normalised slices, shape (image, row, column), to class probabilities, shape (image, 4, row, column)."""
SINGLE_SLICE_MM = 4.0

Turn = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_FLIPS: tuple[Turn, ...] = (lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a[::-1, ::-1])
_QUARTERS: tuple[Turn, ...] = (
    lambda a: a.T,
    lambda a: a.T[::-1],
    lambda a: a.T[:, ::-1],
    lambda a: a.T[::-1, ::-1],
)


def require_as_header_says(image: NDArray[np.float32], probability: NDArray[np.float32], segment: Segment) -> None:
    """Refuse a slice that the network is surer of upside down or mirrored.

    Parameters
    ----------
    image : the slice with most canal, normalised, shape (row, column)
    probability : its class probabilities, shape (4, row, column)
    segment : the network

    Raises
    ------
    PipelineError
        ``orientation-contradicts-image``
    """
    given = _doubt(probability)
    if any(_doubt(turned) < given for turned in segment(np.stack([flip(image) for flip in _FLIPS]))):
        raise refusal("orientation-contradicts-image")


def lies_turned(image: NDArray[np.float32], probability: NDArray[np.float32], segment: Segment) -> bool:
    """Whether a slice that was refused shows a lumbar spine, and more surely, when it is turned; to name the reason.

    Parameters
    ----------
    image, probability, segment : as `require_as_header_says`
    """
    given = _doubt(probability)
    for turns in (_FLIPS, _QUARTERS):
        for turned in segment(np.stack([turn(image) for turn in turns])):
            if _doubt(turned) < given and _shows_lumbar_spine(turned):
                return True
    return False


def _shows_lumbar_spine(probability: NDArray[np.float32]) -> bool:
    try:
        require_lumbar(find_spine(probability[None], SINGLE_SLICE_MM))
    except PipelineError:
        return False
    return True


def _doubt(probability: NDArray[np.float32]) -> float:
    return float(normalised_entropy(probability[None]).sum())
