"""The steps of a training run, alone or as one of several processes (stage 11).

A kill loses what came after the last checkpoint and nothing else: samples, augmentation and schedule depend on the step
alone, so the resumed run computes the same numbers.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from ai_services.training.dataset_version import DatasetVersion
from ai_services.training.engine import checkpoint as checkpoints
from ai_services.training.engine.architectures import build
from ai_services.training.engine.checkpoint import Checkpoint
from ai_services.training.engine.data import Cache
from ai_services.training.engine.parallel import (
    Place,
    autocast_type,
    clip,
    device_name,
    mean_over_processes,
    positions_of,
    restore,
    shared,
    whole_state,
    without_exchange,
)
from ai_services.training.engine.pipeline_stages import PipelineNetwork
from ai_services.training.engine.recipe import Recipe, RecipeError
from ai_services.training.engine.tasks import AnySamples, Task, task_of
from ai_services.training.tracking import run_record


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what it is told, what it works on, where it writes."""

    recipe: Recipe
    version: DatasetVersion
    data: Path
    folder: Path
    cache: Cache = "memory"


def train(run: Run, place: Place) -> dict[str, float]:
    """Train until the last step, from the newest checkpoint where there is one.

    Returns
    -------
    the last figures: ``loss`` and, where there are patients to watch it by, that of the task (`tasks`)

    Raises
    ------
    RecipeError, DatasetError, CheckpointError
        Before anything is written.
    """
    task = task_of(run.recipe)
    recipe = task.decided(run.recipe, run.data, run.version)
    positions = positions_of(recipe, place)
    if len(positions) % recipe.accumulate:
        raise RecipeError("accumulate has to divide the batch of each process")
    samples, validation = (_samples(run, recipe, task, split) for split in ("train", "validation"))
    if samples is None:
        raise task.nothing_to_learn_from()
    network = shared(build(recipe), recipe, place, task.loss_of)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=recipe.steps)
    # fp16 has too few exponents for small gradients: the loss is scaled. bf16 has those of fp32.
    scaler = torch.amp.GradScaler(place.device.type, enabled=recipe.precision == "fp16")
    found = checkpoints.newest(run.folder / "checkpoints", recipe.digest, run.version.digest)
    step = 0
    if found is not None:
        restore(network, optimiser, found.model, found.optimiser)
        schedule.load_state_dict(found.schedule)
        if found.scaler:
            scaler.load_state_dict(found.scaler)
        step = found.step
    if place.first:
        _begin(run, recipe, step, place)
    figures: dict[str, float] = {}
    while step < recipe.steps:
        began, figures = time.monotonic(), {}
        figures["rate"] = schedule.get_last_lr()[0]
        loss = _step(network, optimiser, scaler, task, samples, recipe, step, positions, place)
        schedule.step()
        step += 1
        figures["loss"] = mean_over_processes(loss, place)
        saving = step % recipe.checkpoint_every == 0 or step == recipe.steps
        evaluating = validation is not None and (step % recipe.evaluate_every == 0 or step == recipe.steps)
        if saving or evaluating:
            model, state = whole_state(network, optimiser)
            if place.first and evaluating and validation is not None:
                figures |= task.figures(recipe, model, validation)
        if place.first:
            # Before the checkpoint: a resumed run computes no step anew that its checkpoint holds, nor tells it.
            _tell(run.folder, step, figures, time.monotonic() - began)
        if place.first and saving:
            whole = (model, state, schedule.state_dict(), scaler.state_dict())
            checkpoints.save(run.folder / "checkpoints", Checkpoint(step, recipe.digest, run.version.digest, *whole))
    return figures


def _step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    task: Task,
    samples: AnySamples,
    recipe: Recipe,
    step: int,
    positions: list[int],
    place: Place,
) -> Tensor:
    network.train()
    optimiser.zero_grad(set_to_none=True)
    if isinstance(network, PipelineNetwork):
        total = network.step(*samples.batch(step, positions))
        clip(network, recipe.gradient_norm, place)
        optimiser.step()
        return total
    kind = autocast_type(recipe)
    size = len(positions) // recipe.accumulate
    total = torch.zeros((), device=place.device)
    for part in range(recipe.accumulate):
        images, masks = samples.batch(step, positions[part * size : (part + 1) * size])
        with without_exchange(network, part == recipe.accumulate - 1):
            with torch.autocast(place.device.type, kind, enabled=kind is not None):
                scores = network(images.to(place.device))
            loss = task.loss_of(scores.float(), masks.to(place.device)) / recipe.accumulate
            scaler.scale(loss).backward()
        total += loss.detach()
    scaler.unscale_(optimiser)
    clip(network, recipe.gradient_norm, place)
    scaler.step(optimiser)
    scaler.update()
    return total


def _samples(run: Run, recipe: Recipe, task: Task, split: str) -> AnySamples | None:
    return task.samples(run.data, run.version, split, recipe, run.cache, run.folder / "cache")


def _begin(run: Run, recipe: Recipe, step: int, place: Place) -> None:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    session = run_record.session_now(started, step, place.processes, device_name(place))
    run_record.begin(run.folder, recipe, run.version, session)


def _tell(folder: Path, step: int, figures: dict[str, float], seconds: float) -> None:
    """One line a step, for progress bars, curves and tests."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / run_record.STEPS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **figures, "seconds": round(seconds, 4)}) + "\n")
