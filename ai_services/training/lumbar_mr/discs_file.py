"""Keeps the graded discs with their patches in one file, so that the slow stages after it can be stopped (stage 11)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ai_services.training.lumbar_mr.graded_discs import Count, GradedDiscs

FILE = "discs.npz"


def save_discs(discs: GradedDiscs, counts: Sequence[Count], segmentation_sha256: str, folder: Path) -> None:
    """Write the file; patches at half precision, which is finer than the 8-bit images they come from."""
    np.savez(
        folder / FILE,
        patients=discs.patients,
        sequences=discs.sequences,
        levels=discs.levels,
        patches=discs.patches.astype(np.float16),
        features=discs.features,
        names=np.array(discs.names),
        truth=discs.truth,
        counts=np.array([(c.patient, c.found, c.graded) for c in counts], dtype=np.int64).reshape(-1, 3),
        count_sequences=np.array([c.sequence for c in counts], dtype=np.str_),
        segmentation_sha256=np.array(segmentation_sha256),
    )


def load_discs(folder: Path) -> tuple[GradedDiscs, list[Count], str]:
    """Read the file: discs, counts and the SHA-256 of the segmentation that found them.

    Raises
    ------
    FileNotFoundError
        Where the stage that collects the discs has not run with this folder.
    """
    with np.load(folder / FILE, allow_pickle=False) as stored:
        discs = GradedDiscs(
            patients=stored["patients"],
            sequences=stored["sequences"],
            levels=stored["levels"],
            patches=stored["patches"].astype(np.float32),
            features=stored["features"],
            names=tuple(str(name) for name in stored["names"]),
            truth=stored["truth"],
        )
        counts = [
            Count(int(patient), str(sequence), int(found), int(graded))
            for (patient, found, graded), sequence in zip(stored["counts"], stored["count_sequences"], strict=True)
        ]
        return discs, counts, str(stored["segmentation_sha256"])
