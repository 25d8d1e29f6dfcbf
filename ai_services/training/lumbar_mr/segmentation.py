"""Trains the segmentation network: vertebra, disc and canal on sagittal MR slices (stage 11).

MONAI BasicUNet, 2D: https://docs.monai.io/en/stable/networks.html#basicunet; loss is cross-entropy plus soft Dice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets import BasicUNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ai_services.training.lumbar_mr.augment import augment_batch

log = logging.getLogger(__name__)

FEATURES = (16, 32, 64, 128, 128, 16)
CANVAS = (352, 320)
CROP = (272, 208)
LONG_AVERAGED = 100
"""Steps after which an average needs no correction for its start."""


@dataclass(frozen=True)
class TrainingSlice:
    """One slice for training: image (row, column), class mask (row, column), sampling weight."""

    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    weight: float = 1.0


def build_network() -> nn.Module:
    """The untrained network: one grey channel in, four class scores out."""
    network: nn.Module = BasicUNet(spatial_dims=2, in_channels=1, out_channels=4, features=FEATURES, dropout=0.0)
    return network


def place(array: NDArray[np.generic], canvas: tuple[int, int] = CANVAS) -> NDArray[np.generic]:
    """Centre an array on a canvas of zeros, cropping what does not fit."""
    out = np.zeros(canvas, dtype=array.dtype)
    take = [min(have, want) for have, want in zip(array.shape, canvas, strict=True)]
    source = tuple(slice((have - n) // 2, (have - n) // 2 + n) for have, n in zip(array.shape, take, strict=True))
    target = tuple(slice((want - n) // 2, (want - n) // 2 + n) for want, n in zip(canvas, take, strict=True))
    out[target] = array[source]
    return out


def segmentation_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the three structures, over the whole batch."""
    cross_entropy = functional.cross_entropy(scores, mask)
    probability = scores.softmax(dim=1)[:, 1:]
    truth = functional.one_hot(mask, 4).permute(0, 3, 1, 2)[:, 1:].to(probability.dtype)
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    size = (probability + truth).sum(dim=(0, 2, 3))
    return cross_entropy + 1 - ((2 * overlap + 1) / (size + 1)).mean()


class Ema:
    """Exponential moving average of the weights, corrected for the start."""

    def __init__(self, network: nn.Module, decay: float = 0.99) -> None:
        self.decay, self.count = decay, 0
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, network: nn.Module) -> None:
        """Take one step of the average."""
        self.count += 1
        decay = min(self.decay, self.count / (self.count + 9))
        for name, value in network.state_dict().items():
            self.state[name].lerp_(value.detach().to(self.state[name].dtype), 1 - decay)


class SegmentationTrainer:
    """Keeps network, optimiser and average between the supervised and the pseudo-label phase."""

    def __init__(self, *, steps: int, seed: int, batch: int = 8, rate: float = 2e-3) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.network = build_network().to(memory_format=torch.channels_last)
        self.ema = Ema(self.network)
        self.batch, self.steps, self.done = batch, steps, 0
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=1e-2)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, max_lr=rate, total_steps=steps + 1, pct_start=min(0.3, 30 / steps), anneal_strategy="cos"
        )

    def begin_with(self, state: Mapping[str, Tensor]) -> None:
        """Go on from trained weights; the average begins with them too."""
        self.network.load_state_dict(state)
        self.ema.state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.ema.count = LONG_AVERAGED

    def train(self, slices: list[TrainingSlice], steps: int) -> None:
        """Take `steps` optimiser steps on slices drawn by their weight."""
        images = torch.from_numpy(np.stack([place(item.image) for item in slices]))[:, None]
        masks = torch.from_numpy(np.stack([place(item.mask) for item in slices]))
        weights = torch.tensor([item.weight for item in slices])
        self.network.train()
        start = time.monotonic()
        for _ in range(steps):
            picked = torch.multinomial(weights, self.batch, replacement=True, generator=self.generator)
            image, mask = augment_batch(images[picked], masks[picked].long(), self.generator, CROP)
            loss = self._step(image, mask)
            if self.done % 25 == 0:
                log.info("step %d loss %.3f %.0f s", self.done, loss, time.monotonic() - start)

    def _step(self, image: Tensor, mask: Tensor) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = self.network(image.contiguous(memory_format=torch.channels_last))
        loss = segmentation_loss(scores.float(), mask)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimiser.step()
        self.schedule.step()
        self.ema.update(self.network)
        self.done += 1
        return float(loss.detach())

    def averaged(self) -> nn.Module:
        """The network with the averaged weights, ready for inference."""
        network = build_network()
        network.load_state_dict(self.ema.state)
        return network.eval()


def predict(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities, shape (4, row, column), of one normalised slice at the working resolution."""
    rows, columns = image.shape
    padded = np.pad(image, ((0, -rows % 16), (0, -columns % 16)))
    with torch.inference_mode():
        scores = network(torch.from_numpy(padded)[None, None])
    result: NDArray[np.float32] = scores.softmax(dim=1)[0, :, :rows, :columns].numpy()
    return result
