"""How sure the outlines are, structure by structure: entropy of the class probabilities in and along them (stage 4).

One forward pass, no ensemble: predictive entropy (https://arxiv.org/abs/1703.04977, eq. 9) divided by ln 4, so 0 is
certain and 1 is a guess between the four classes. How it goes with Dice: `foramen model robustness`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.refusal import refusal
from ai_services.pipelines.lumbar_mr.postprocess import Spine
from ai_services.pipelines.lumbar_mr.structures import CANAL, VERTEBRA

RIM_PIXELS = 2
LARGEST_ENTROPY = 0.30
LARGEST_DISC_ENTROPY = 0.40


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Mean normalised entropy, 0 certain to 1, of each structure with its rim of 2 pixels; NaN where there is none.

    Parameters
    ----------
    vertebra, canal : of all their pixels
    discs : of each disc, from the lowest up
    """

    vertebra: float
    canal: float
    discs: tuple[float, ...]

    @property
    def largest(self) -> float:
        """Of vertebrae, canal and the discs' median: one torn disc alone does not make a volume unusable.

        1 where a kind of structure is missing: nothing is less certain.
        """
        discs = float(np.median(self.discs)) if self.discs else float("nan")
        return max(1.0 if np.isnan(value) else value for value in (self.vertebra, self.canal, discs))


def uncertainty_of(spine: Spine, probability: NDArray[np.float32]) -> Uncertainty:
    """Measure each structure.

    Parameters
    ----------
    spine : structures on the working grid
    probability : shape (slice, 4, row, column), as the network gave it
    """
    # Logarithms are taken only where a structure or its rim lies: a third of the volume or less.
    slices, rows, columns = _wide_box(spine.classes > 0)
    entropy = normalised_entropy(probability[slices, :, rows, columns])
    classes, instances = spine.classes[slices, rows, columns], spine.instances[slices, rows, columns]
    return Uncertainty(
        vertebra=_mean(entropy, classes == VERTEBRA),
        canal=_mean(entropy, classes == CANAL),
        discs=tuple(_mean(entropy, instances == disc.label) for disc in spine.discs),
    )


def normalised_entropy(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy over the classes divided by its largest value, shape (slice, row, column)."""
    safe = np.maximum(probability, np.float32(1e-6))
    result: NDArray[np.float32] = -(safe * np.log(safe)).sum(axis=1) / np.float32(np.log(probability.shape[1]))
    return result


def require_certain(uncertainty: Uncertainty) -> None:
    """Refuse outlines that are no better than a guess.

    Raises
    ------
    PipelineError
        ``uncertain-segmentation``
    """
    if uncertainty.largest > LARGEST_ENTROPY:
        told = f"{uncertainty.largest:.2f} > {LARGEST_ENTROPY:.2f}"
        raise refusal("uncertain-segmentation", told, told)


def _mean(entropy: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    if not inside.any():
        return float("nan")
    wide = _wide_box(inside)
    near = ndimage.binary_dilation(inside[wide], structure=_DISK)
    return float(entropy[wide][near].mean())


def _wide_box(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Slices, rows and columns that hold a structure with its rim; everything where there is none."""
    found = ndimage.find_objects(inside.view(np.uint8))
    if not found:
        return slice(None), slice(None), slice(None)
    slices, *plane = found[0]
    rows, columns = (slice(max(0, part.start - RIM_PIXELS), part.stop + RIM_PIXELS) for part in plane)
    return slices, rows, columns


_DISK = np.ones((1, 2 * RIM_PIXELS + 1, 2 * RIM_PIXELS + 1), dtype=np.bool_)
