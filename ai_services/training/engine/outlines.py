"""Learning outlines from masks: loss and figure (stage 11)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ai_services.training.engine.architectures import CLASSES, build
from ai_services.training.engine.data import Samples
from ai_services.training.engine.recipe import Recipe, figure_of


def outline_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice, each sample by itself: the mean over a batch is the mean over its parts."""
    entropy = functional.cross_entropy(scores, mask, reduction="none").mean(dim=(1, 2))
    probability = scores.softmax(dim=1)[:, 1:]
    truth = functional.one_hot(mask, CLASSES).permute(0, 3, 1, 2)[:, 1:].to(probability.dtype)
    overlap = (probability * truth).sum(dim=(2, 3))
    size = (probability + truth).sum(dim=(2, 3))
    dice = ((2 * overlap + 1) / (size + 1)).mean(dim=1)
    return (entropy + 1 - dice).mean()


def outline_figures(recipe: Recipe, model: dict[str, Any], samples: Samples) -> dict[str, float]:
    """``validation_dice``: mean Dice of the three structures over all slices together."""
    network = build(recipe)
    network.load_state_dict(model)
    network.eval()
    overlap, size = torch.zeros(CLASSES), torch.zeros(CLASSES)
    with torch.inference_mode():
        for index in range(len(samples)):
            image, mask = samples.whole(index)
            called = network(image).argmax(dim=1)
            for number in range(1, CLASSES):
                overlap[number] += 2 * ((called == number) & (mask == number)).sum()
                size[number] += (called == number).sum() + (mask == number).sum()
    return {figure_of(recipe): float((overlap[1:] / size[1:].clamp(min=1)).mean())}
