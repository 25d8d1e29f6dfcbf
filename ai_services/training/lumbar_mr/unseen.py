"""What the graders said about discs of patients they had not seen, in one file (stage 11).

Figures and pages can be made from it again without training again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai_services.training.lumbar_mr.graded_discs import Count, GradedDiscs

FILE = "unseen.npz"


@dataclass(frozen=True)
class Unseen:
    """Cross-validated discs; the first axis is the disc, but for the counts, where it is the image.

    Parameters
    ----------
    patients, sequences, levels : shape (disc,); level 0 is the lowest
    truth, scores : shape (disc, 9), see `graded_discs.TARGETS`; scores of held-out patients are NaN
    counts : shape (image, 3): patient, discs found, discs graded
    count_sequences : shape (image,)
    segmentation_sha256 : of the segmentation that found the discs
    """

    patients: NDArray[np.int64]
    sequences: NDArray[np.str_]
    levels: NDArray[np.int64]
    truth: NDArray[np.float32]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64]
    count_sequences: NDArray[np.str_]
    segmentation_sha256: str


def unseen_of(
    discs: GradedDiscs, scores: NDArray[np.float32], counts: Sequence[Count], segmentation_sha256: str
) -> Unseen:
    """Put scores, shape (disc, 9), beside what they are about."""
    return Unseen(
        discs.patients,
        discs.sequences,
        discs.levels,
        discs.truth,
        scores,
        np.array([(count.patient, count.found, count.graded) for count in counts], dtype=np.int64).reshape(-1, 3),
        np.array([count.sequence for count in counts], dtype=np.str_),
        segmentation_sha256,
    )


def save_unseen(unseen: Unseen, folder: Path) -> None:
    """Write the file."""
    np.savez_compressed(folder / FILE, **vars(unseen))


def load_unseen(folder: Path) -> Unseen:
    """Read the file.

    Raises
    ------
    FileNotFoundError
        Where the grading stage has not run with this folder.
    """
    with np.load(folder / FILE, allow_pickle=False) as stored:
        parts = {name: stored[name] for name in stored.files}
    return Unseen(**{**parts, "segmentation_sha256": str(parts["segmentation_sha256"])})
