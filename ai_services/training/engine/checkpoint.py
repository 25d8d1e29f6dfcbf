"""Checkpoints: written whole or not at all, found again after a kill, whatever number of processes goes on (stage 11).

A checkpoint holds the whole state (not a process's shard), so that a run may go on with another number of processes.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)
KEPT = 3


class CheckpointError(Exception):
    """The checkpoint is of another run; nothing is continued."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State after `step` optimiser steps."""

    step: int
    recipe: str
    dataset: str
    model: dict[str, Any]
    optimiser: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint (fsync, then rename) and forget all but the newest three."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.step:08d}.pt"
    staged = folder / f".{path.name}.part"
    with staged.open("wb") as file:
        torch.save({name: getattr(checkpoint, name) for name in Checkpoint.__slots__}, file)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)
    for old in sorted(folder.glob("[0-9]*.pt"))[:-KEPT]:
        old.unlink()
    return path


def newest(folder: Path, recipe: str, dataset: str) -> Checkpoint | None:
    """The newest checkpoint that can be read, or None. What a kill left half written is passed over.

    Raises
    ------
    CheckpointError
        It is of another recipe or dataset version.
    """
    for path in sorted(folder.glob("[0-9]*.pt"), reverse=True):
        try:
            # Tensors and plain values only: a checkpoint can run no code.
            checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception:  # noqa: BLE001  what a damaged file makes the reader raise is anything
            log.warning("checkpoint %s cannot be read and is passed over", path.name)
            continue
        if checkpoint.recipe != recipe:
            raise CheckpointError("the checkpoint is of another recipe; choose another folder or the same recipe")
        if checkpoint.dataset != dataset:
            raise CheckpointError("the checkpoint is of another dataset version")
        return checkpoint
    return None
