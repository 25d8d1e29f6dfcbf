"""Trains the grading network: Pfirrmann I–V (cumulative ordinal), bulging, herniation, narrowing (stage 11).

Cumulative logits as in https://en.wikipedia.org/wiki/Ordinal_regression: score k says that the grade exceeds k.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ai_services.pipelines.lumbar_mr.crop import CROP_SHAPE, SCALARS
from ai_services.training.lumbar_mr.disc_samples import DiscSample
from ai_services.training.lumbar_mr.residual_block import ResidualBlock

log = logging.getLogger(__name__)

FOLDS = 3
OUTPUTS = 7
HERNIATION_WEIGHT = 4.0


class GradingNetwork(nn.Module):  # type: ignore[misc]
    """Small residual network over a disc crop, joined by six numbers about the disc."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]))
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in zip((widths[0], *widths[:-1]), widths, strict=True))
        self.head = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(2 * widths[-1] + len(SCALARS), 64), nn.ReLU(), nn.Linear(64, OUTPUTS)
        )

    def forward(self, crop: Tensor, scalars: Tensor) -> Tensor:
        """Scores, shape (disc, 7)."""
        value = functional.relu(self.stem(crop))
        for block in self.blocks:
            value = block(value)
        pooled = torch.cat([value.mean(dim=(2, 3)), value.amax(dim=(2, 3)), scalars], dim=1)
        result: Tensor = self.head(pooled)
        return result


class GradingEnsemble(nn.Module):  # type: ignore[misc]
    """Mean of the folds' scores; this is what is exported."""

    def __init__(self, networks: list[GradingNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, crop: Tensor, scalars: Tensor) -> Tensor:
        """Scores, shape (disc, 7)."""
        return torch.stack([network(crop, scalars) for network in self.networks]).mean(dim=0)


def targets(samples: list[DiscSample]) -> NDArray[np.float32]:
    """Shape (disc, 7): grade > I, > II, > III, > IV, bulging, herniation, narrowing."""
    rows = []
    for sample in samples:
        truth = sample.grading
        cumulative = [float(truth.pfirrmann > grade) for grade in range(1, 5)]
        rows.append([*cumulative, float(truth.bulging), float(truth.herniation), float(truth.narrowing)])
    return np.array(rows, dtype=np.float32).reshape(-1, OUTPUTS)


def folds_by_patient(samples: list[DiscSample], seed: int) -> NDArray[np.int64]:
    """Fold of each sample; a patient's samples share one fold."""
    patients = sorted({sample.patient for sample in samples})
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    fold_of = {patient: int(rank) % FOLDS for patient, rank in zip(patients, shuffled, strict=True)}
    return np.array([fold_of[sample.patient] for sample in samples], dtype=np.int64)


def train_grading(samples: list[DiscSample], *, epochs: int, seed: int) -> tuple[GradingEnsemble, NDArray[np.float32]]:
    """Train one network per fold.

    Returns
    -------
    the ensemble, and for each sample the scores of the one network that has not seen its patient, shape (sample, 7)
    """
    fold = folds_by_patient(samples, seed)
    networks, unseen = [], np.zeros((len(samples), OUTPUTS), dtype=np.float32)
    for number in range(FOLDS):
        training = [sample for sample, own in zip(samples, fold, strict=True) if own != number]
        network = _train_one(training, epochs=epochs, seed=seed + number)
        networks.append(network)
        rest = np.flatnonzero(fold == number)
        unseen[rest] = scores(network, [samples[index] for index in rest])
        log.info("fold %d: trained on %d crops", number, len(training))
    return GradingEnsemble(networks).eval(), unseen


def scores(network: nn.Module, samples: list[DiscSample]) -> NDArray[np.float32]:
    """Raw scores, shape (sample, 7)."""
    if not samples:
        return np.zeros((0, OUTPUTS), dtype=np.float32)
    with torch.inference_mode():
        result: NDArray[np.float32] = network(*_tensors(samples)).numpy()
    return result


def _tensors(samples: list[DiscSample]) -> tuple[Tensor, Tensor]:
    return (
        torch.from_numpy(np.stack([sample.crop for sample in samples])),
        torch.from_numpy(np.stack([sample.scalars for sample in samples])),
    )


def _train_one(samples: list[DiscSample], *, epochs: int, seed: int, batch: int = 48) -> GradingNetwork:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = GradingNetwork()
    crops, scalars = _tensors(samples)
    truth = torch.from_numpy(targets(samples))
    count = {sample.patient: 0 for sample in samples}
    for sample in samples:
        count[sample.patient] += 1
    # A patient with several slices per disc weighs as much as three patients with one, not as much as five.
    weight = torch.tensor([min(1.0, 24 / count[sample.patient]) for sample in samples])
    steps = max(1, epochs * max(1, len(samples) // batch))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps + 1, pct_start=0.15)
    network.train()
    for _ in range(steps):
        picked = torch.multinomial(weight, min(batch, len(samples)), generator=generator)
        crop, numbers = _augment(crops[picked], scalars[picked], generator)
        loss = _loss(network(crop, numbers), truth[picked])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    return network


def _loss(score: Tensor, truth: Tensor) -> Tensor:
    smooth = truth * 0.94 + 0.03  # the grades themselves disagree between readers
    weight = torch.ones(OUTPUTS)
    weight[5] = HERNIATION_WEIGHT
    return functional.binary_cross_entropy_with_logits(score, smooth, pos_weight=weight)


def _augment(crop: Tensor, scalars: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    size = len(crop)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    angle, zoom = uniform(-8, 8) * math.pi / 180, uniform(0.9, 1.1)
    ratio = CROP_SHAPE[0] / CROP_SHAPE[1]
    theta = torch.stack(
        [
            torch.stack([angle.cos() * zoom, -angle.sin() * zoom * ratio, uniform(-0.1, 0.1)], dim=1),
            torch.stack([angle.sin() * zoom / ratio, angle.cos() * zoom, uniform(-0.1, 0.1)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(crop.shape), align_corners=False)
    moved = functional.grid_sample(crop, grid, padding_mode="border", align_corners=False)
    grey = moved[:, :1].clamp(min=0).pow(uniform(-0.35, 0.35).exp()[:, None, None, None])
    grey = grey * uniform(0.85, 1.15)[:, None, None, None] + 0.03 * torch.randn(grey.shape, generator=generator)
    noise = 1 + 0.04 * torch.randn(scalars.shape, generator=generator)
    return torch.cat([grey, moved[:, 1:]], dim=1), scalars * noise
