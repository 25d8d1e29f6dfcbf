"""Trains the patch networks, one a fold and seed; each goes on where it was stopped (stage 11)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ai_services.training.lumbar_mr.cross_validation import folds_of
from ai_services.training.lumbar_mr.feature_grader import SPACE_WEIGHT
from ai_services.training.lumbar_mr.graded_discs import GradedDiscs
from ai_services.training.lumbar_mr.patch_network import (
    PatchEnsemble,
    PatchNetwork,
    augmented,
    level_input,
    loss_of,
    without_t1,
)

log = logging.getLogger(__name__)

RATE, DECAY, AVERAGE = 3e-3, 5e-2, 0.98
BATCH, EPOCHS = 64, 30.0
CHECKPOINT_STEPS = 25


@dataclass(frozen=True)
class PatchTable:
    """Discs as tensors, in the order of `GradedDiscs`: channels, levels, truth and how often each is drawn."""

    channels: Tensor
    levels: Tensor
    truth: Tensor
    weight: Tensor

    @staticmethod
    def of(discs: GradedDiscs) -> PatchTable:
        """T2 SPACE slices are drawn less often: they are few, and of one vendor."""
        return PatchTable(
            without_t1(torch.from_numpy(discs.patches.astype(np.float32))),
            level_input(torch.from_numpy(discs.levels.astype(np.float32))[:, None]),
            torch.from_numpy(discs.truth),
            torch.from_numpy(np.where(discs.sequences == "t2", 1.0, SPACE_WEIGHT)),
        )


def train_networks(
    discs: GradedDiscs, folder: Path, *, seeds: Sequence[int], epochs: float = EPOCHS
) -> tuple[PatchEnsemble, NDArray[np.float32]]:
    """Train what is missing of every fold and seed.

    Parameters
    ----------
    discs : all, the held-out patients' too; these are never trained on
    folder : keeps weights and checkpoints; what is there is not trained again
    seeds : networks of a fold

    Returns
    -------
    all networks as one, and for each cross-validated disc the mean scores of those that have not seen its patient,
    shape (disc, 9); NaN for the held-out
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, fold = PatchTable.of(discs), folds_of(discs)
    level_column = discs.names.index("level")
    unseen = np.full(discs.truth.shape, np.nan, dtype=np.float32)
    everyone = []
    for number in range(fold.max() + 1):
        training, rest = np.flatnonzero((fold >= 0) & (fold != number)), np.flatnonzero(fold == number)
        own = [
            _trained(table, training, folder / f"fold{number}_seed{seed}.pt", seed, number, epochs) for seed in seeds
        ]
        unseen[rest] = patch_scores(PatchEnsemble(own, level_column), discs, rest)
        everyone += own
    return PatchEnsemble(everyone, level_column).eval(), unseen


def patch_scores(ensemble: PatchEnsemble, discs: GradedDiscs, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Scores of some discs, shape (row, 9)."""
    ensemble.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            own = rows[start : start + BATCH]
            patches = torch.from_numpy(discs.patches[own].astype(np.float32))
            parts.append(ensemble(patches, torch.from_numpy(discs.features[own])).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, discs.truth.shape[1]), dtype=np.float32)


def _trained(
    table: PatchTable, rows: NDArray[np.intp], path: Path, seed: int, fold: int, epochs: float
) -> PatchNetwork:
    if not path.exists():
        run = PatchRun(table, rows, seed=10 * seed + fold, epochs=epochs, checkpoint=path.with_suffix(".checkpoint"))
        _replace(run.finish(), path)
        log.info("%s: %d steps on %d discs", path.stem, run.steps, len(rows))
    network = PatchNetwork()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    return network


class PatchRun:
    """One network's training; `finish` goes on from its checkpoint, with the same numbers as without a stop."""

    def __init__(
        self, table: PatchTable, rows: NDArray[np.intp], *, seed: int, epochs: float, checkpoint: Path
    ) -> None:
        torch.manual_seed(seed)
        self.table, self.rows, self.checkpoint = table, torch.from_numpy(rows), checkpoint
        self.generator = torch.Generator().manual_seed(seed)
        self.network = PatchNetwork().to(memory_format=torch.channels_last)
        self.steps = max(1, round(epochs * len(rows) / BATCH))
        self.done = 0
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=RATE, weight_decay=DECAY)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, RATE, total_steps=self.steps + 1, pct_start=_warm_up(self.steps)
        )
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        if checkpoint.exists():
            self._restore(torch.load(checkpoint, weights_only=True))

    def finish(self) -> dict[str, Tensor]:
        """Train to the end; the averaged weights."""
        weight = self.table.weight[self.rows]
        self.network.train()
        while self.done < self.steps:
            torch.manual_seed(self.done)  # dropout draws from the global generator, which no checkpoint keeps
            picked = self.rows[torch.multinomial(weight, min(BATCH, len(weight)), generator=self.generator)]
            self._step(picked)
            if self.done % CHECKPOINT_STEPS == 0:
                _replace(self._state(), self.checkpoint)
        self.checkpoint.unlink(missing_ok=True)
        return self.average

    def _step(self, picked: Tensor) -> None:
        view = augmented(self.table.channels[picked], self.generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = self.network(view, self.table.levels[picked])
        self.optimiser.zero_grad(set_to_none=True)
        loss_of(scores.float(), self.table.truth[picked]).backward()
        self.optimiser.step()
        self.schedule.step()
        self.done += 1
        keep = min(AVERAGE, self.done / (self.done + 9))
        for name, value in self.network.state_dict().items():
            floating = value.is_floating_point()
            self.average[name] = self.average[name].lerp(value, 1 - keep) if floating else value.clone()

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "done": self.done,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self.done = state["done"]


def _warm_up(steps: int) -> float:
    """Share of the steps on which the rate rises: 30 of them, but a fifth at most and two at least."""
    return max(min(0.2, 30 / steps), 2 / (steps + 1))


def _replace(state: dict[str, Any], path: Path) -> None:
    """Write beside and rename: a stop in the middle leaves the old file."""
    new = path.with_suffix(path.suffix + ".new")
    torch.save(state, new)
    os.replace(new, path)
