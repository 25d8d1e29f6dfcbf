"""A small residual network over a disc's patch: what the named measures cannot say (stage 11).

Patches come from `pipelines.lumbar_mr.patch`; T1 is not looked at. Scores are log-odds, see `graded_discs.TARGETS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ai_services.pipelines.lumbar_mr.patch import PATCH_SHAPE, T1_CHANNEL
from ai_services.training.lumbar_mr.residual_block import ResidualBlock

INPUT_SHAPE = (64, 80)
WIDTHS = (24, 40, 72, 112)
OUTPUTS = 9
HIGHEST_LEVEL, LEVEL_SCALE = 8.0, 6.0
VIEWS = ((0.0, 0.0, 1.0, 0.0), (0.05, 0.0, 1.05, 0.06), (-0.05, 0.0, 0.96, -0.06), (0.0, 0.05, 1.0, 0.0))
"""Shifts (share of half the patch), zoom and angle (radians) of the views whose scores are averaged."""
POSITIVE_WEIGHT = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 2.0)
TARGET_WEIGHT = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.7, 0.4)
SMOOTHING = 0.05  # the grades themselves disagree between readers
GREY = slice(0, 1)
_CHANNELS = 4
_RATIO = PATCH_SHAPE[0] / PATCH_SHAPE[1]


class PatchNetwork(nn.Module):  # type: ignore[misc]
    """Scores of discs from their patches and their number counted from the lowest."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(_CHANNELS, widths[0], 5, padding=2, stride=2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.head = nn.Sequential(
            nn.Dropout(0.4), nn.Linear(2 * widths[-1] + 1, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, OUTPUTS)
        )

    def forward(self, view: Tensor, level: Tensor) -> Tensor:
        """Scores, shape (disc, 9), of views, shape (disc, 4, 64, 80), and levels, shape (disc, 1)."""
        value = self.blocks(self.stem(view))
        result: Tensor = self.head(torch.cat([value.mean(dim=(2, 3)), value.amax(dim=(2, 3)), level], dim=1))
        return result


class PatchEnsemble(nn.Module):  # type: ignore[misc]
    """Mean over networks and views; this is what is exported.

    Parameters
    ----------
    networks : trained
    level_column : which feature is the disc's number counted from the lowest
    """

    def __init__(self, networks: Sequence[PatchNetwork], level_column: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.level_column = level_column
        self.register_buffer("grids", grids(torch.cat([affine(1, *view) for view in VIEWS])))

    def forward(self, patches: Tensor, features: Tensor) -> Tensor:
        """Scores, shape (disc, 9), of patches, shape (disc, 5, 96, 128), and features, shape (disc, feature)."""
        level = level_input(features[:, self.level_column : self.level_column + 1])
        channels, scores = without_t1(patches), []
        for index in range(len(VIEWS)):
            seen = sample(channels, self.grids[index : index + 1].expand(patches.shape[0], -1, -1, -1))
            scores += [network(seen, level) for network in self.networks]
        return torch.stack(scores).mean(dim=0)


def without_t1(patches: Tensor) -> Tensor:
    """The channels that are looked at, shape (disc, 4, row, column)."""
    return torch.cat([patches[:, :T1_CHANNEL], patches[:, T1_CHANNEL + 1 :]], dim=1)


def level_input(level: Tensor) -> Tensor:
    """A disc's number counted from the lowest, from 0, as the network takes it."""
    return level.clamp(max=HIGHEST_LEVEL) / LEVEL_SCALE


def affine(count: int, dx: float = 0.0, dy: float = 0.0, zoom: float = 1.0, angle: float = 0.0) -> Tensor:
    """The same view of `count` patches, shape (count, 2, 3), for `torch.nn.functional.affine_grid`."""
    cosine, sine = math.cos(angle) * zoom, math.sin(angle) * zoom
    row = torch.tensor([[cosine, -sine * _RATIO, dx], [sine / _RATIO, cosine, dy]])
    return row.repeat(count, 1, 1)


def grids(views: Tensor) -> Tensor:
    """Where views, shape (view, 2, 3), look; shape (view, 64, 80, 2)."""
    return functional.affine_grid(views, [len(views), 1, *INPUT_SHAPE], align_corners=False)


def sample(channels: Tensor, where: Tensor) -> Tensor:
    """Look at patches where grids, shape (disc, 64, 80, 2), say; shape (disc, 4, 64, 80)."""
    return functional.grid_sample(channels, where, padding_mode="border", align_corners=False)


def augmented(channels: Tensor, generator: torch.Generator) -> Tensor:
    """Turned, shifted, stretched, with another contrast and noise; shape (disc, 4, 64, 80)."""
    size = len(channels)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    angle, zoom = uniform(-9, 9) * math.pi / 180, uniform(0.9, 1.12)
    high = zoom * uniform(0.95, 1.05)
    across = torch.stack([angle.cos() * zoom, -angle.sin() * zoom * _RATIO, uniform(-0.08, 0.08)], dim=1)
    down = torch.stack([angle.sin() * high / _RATIO, angle.cos() * high, uniform(-0.08, 0.08)], dim=1)
    seen = sample(channels, grids(torch.stack([across, down], dim=1)))
    grey = (seen[:, GREY].clamp(min=0) + 1e-4).pow(uniform(-0.35, 0.35).exp()[:, None, None, None])
    grey = grey * uniform(0.85, 1.15)[:, None, None, None] + 0.03 * torch.randn(grey.shape, generator=generator)
    return torch.cat([grey, seen[:, GREY.stop :]], dim=1)


def loss_of(scores: Tensor, truth: Tensor) -> Tensor:
    """Weighted binary cross-entropy with smoothed labels."""
    smooth = truth * (1 - SMOOTHING) + SMOOTHING / 2
    weight = torch.tensor(POSITIVE_WEIGHT, dtype=scores.dtype)
    each = functional.binary_cross_entropy_with_logits(scores, smooth, pos_weight=weight, reduction="none")
    return (each * torch.tensor(TARGET_WEIGHT, dtype=scores.dtype)).mean()
