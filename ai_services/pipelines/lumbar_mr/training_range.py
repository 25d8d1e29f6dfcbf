"""Whether a spine measures like those the grader was trained on: how many of its discs' measures lie outside (stage 4).

The grader clips each measure to the 1st and 99th percentile of its training discs, so beyond these it does not know how
one differs from another. Of a training disc 2 % of the measures lie outside; of a spine that is unlike them, many do.
The limit and what it refuses: MODEL_CARD.md. Nothing is said of a package without a range of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_services.imaging.refusal import refusal
from ai_services.models.registry import Manifest


@dataclass(frozen=True, slots=True)
class TrainingRange:
    """What a release says of its training discs.

    Parameters
    ----------
    low, high : 1st and 99th percentile of each measure, shape (feature,), in the order of `features.spine_features`
    largest_share : of a spine's measures that may lie outside, 0 to 1
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    largest_share: float

    def outside(self, features: NDArray[np.float32]) -> float:
        """Share of a spine's measures that lie outside; what could not be measured lies nowhere.

        Parameters
        ----------
        features : shape (disc, feature)
        """
        measured = np.isfinite(features)
        beyond = measured & ((features < self.low) | (features > self.high))
        return float(beyond.sum() / max(int(measured.sum()), 1))


def range_of(manifest: Manifest) -> TrainingRange | None:
    """The range that a package names for the grader that is in it; None where it names none, or another grader's."""
    found: Mapping[str, Any] | None = manifest.constants.get("training_range")
    if found is None or found["grading_sha256"] != manifest.models["grading"].identity.sha256:
        return None
    low, high = (np.array(found[side], dtype=np.float64) for side in ("low", "high"))
    return TrainingRange(low, high, float(found["largest_share"]))


def require_like_training(features: NDArray[np.float32], manifest: Manifest) -> None:
    """Refuse a spine whose discs measure unlike those of the training.

    Parameters
    ----------
    features : shape (disc, feature), see `features.spine_features`
    manifest : of the version that speaks

    Raises
    ------
    PipelineError
        ``unlike-training``
    """
    known = range_of(manifest)
    if known is None or features.shape[1] != len(known.low):
        return
    share = known.outside(features)
    if share > known.largest_share:
        raise refusal("unlike-training", f"{share:.0%} of the measures", f"{share:.0%} 的测量值")
