"""Tables of discs that graders are trained on: one file a series, `patients/<id>/discs/<series>.npz` (stage 11).

A file holds the patches of one spine from the lowest disc up, and what is known of each; NaN where nothing is. It is
read without pickle, so it can run no code. Patches: `pipelines.lumbar_mr.patch`, without T1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai_services.pipelines.lumbar_mr.patch import CHANNELS as PATCH_CHANNELS
from ai_services.pipelines.lumbar_mr.patch import PATCH_SHAPE, T1_CHANNEL
from ai_services.training.dataset_version import DatasetError, DatasetVersion

FOLDER = "discs"
TARGETS = ("pfirrmann>1", "pfirrmann>2", "pfirrmann>3", "pfirrmann>4", "bulging", "herniation", "narrowing")
CHANNELS, SCORES = len(PATCH_CHANNELS) - 1, len(TARGETS)
LOOKED_AT = tuple(number for number in range(len(PATCH_CHANNELS)) if number != T1_CHANNEL)
"""Channels of a patch that a table holds: T2, then the probabilities of disc, canal and vertebra."""


@dataclass(frozen=True)
class DiscTable:
    """One spine.

    Parameters
    ----------
    patches : shape (disc, 4, 96, 128), from the lowest disc up
    truth : shape (disc, 7), see `TARGETS`: 0, 1, or NaN where nothing is known
    """

    patches: NDArray[np.float32]
    truth: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DiscFile:
    """One table in a dataset version, and the patient it is of."""

    path: Path
    patient: str


def path_of(patient: str, series: str) -> Path:
    """Where a series' table lies in the folder of a dataset."""
    return Path("patients") / patient / FOLDER / f"{series}.npz"


def write_table(path: Path, table: DiscTable) -> None:
    """Write a table; patches at half precision, which is finer than most images they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, patches=table.patches.astype(np.float16), truth=table.truth.astype(np.float32))


def read_table(path: Path) -> DiscTable:
    """Read a table.

    Raises
    ------
    DatasetError
        It cannot be read, or is none.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            patches, truth = stored["patches"].astype(np.float32), stored["truth"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError) as exc:
        raise DatasetError("a table of discs cannot be read") from exc
    if patches.shape != (len(truth), CHANNELS, *PATCH_SHAPE) or truth.shape != (len(truth), SCORES) or not len(truth):
        raise DatasetError("a table of discs has other shapes than patches and what is known of them")
    if not np.isfinite(patches).all():
        raise DatasetError("a table of discs holds pixels that are no numbers")
    return DiscTable(patches, truth)


def files_of(folder: Path, version: DatasetVersion, split: str) -> list[DiscFile]:
    """Tables of a split; only what the version names is used, and never a patient of another split."""
    patients = version.patients_of(split)
    return [
        DiscFile(folder / file.path, str(file.patient))
        for file in version.files
        if file.patient in patients and Path(file.path).parent.name == FOLDER and file.path.endswith(".npz")
    ]


def truth_of(pfirrmann: int | None, form: str | None) -> list[float]:
    """What is known of a disc, in the order of `TARGETS`.

    Parameters
    ----------
    pfirrmann : 1 to 5; None where nobody said
    form : ``normal``, ``bulge``, or any kind of herniation; None where nobody said. Whether a herniated disc also
        bulges is not known of it, and of narrowing the record says nothing
    """
    grades = [float("nan")] * 4 if pfirrmann is None else [float(pfirrmann > grade) for grade in range(1, 5)]
    herniated = form not in (None, "normal", "bulge")
    bulging = float("nan") if form is None or herniated else float(form == "bulge")
    return [*grades, bulging, float("nan") if form is None else float(herniated), float("nan")]


def without_t1(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Patches of `pipelines.lumbar_mr.patch.disc_patch` as a table holds them."""
    channels: Sequence[int] = LOOKED_AT
    return np.ascontiguousarray(patches[:, list(channels)])
