"""Training samples of graders: single discs, or the discs of one spine in their order (stage 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ai_services.evaluation.grading import auroc
from ai_services.training.dataset_version import DatasetError
from ai_services.training.disc_table import SCORES, DiscFile, DiscTable, read_table
from ai_services.training.engine.architectures import build
from ai_services.training.engine.data import Cache
from ai_services.training.engine.draws import Draws
from ai_services.training.engine.recipe import Recipe, figure_of
from ai_services.training.lumbar_mr.patch_network import (
    POSITIVE_WEIGHT,
    SMOOTHING,
    TARGET_WEIGHT,
    affine,
    augmented,
    grids,
    sample,
)


class DiscSamples:
    """Discs of one split, and the samples of each step.

    Parameters
    ----------
    files : the tables
    recipe : architecture, batch, seed
    cache : ``memory`` keeps the tables; otherwise they are read when they are wanted: nothing of them is to be decoded
    """

    def __init__(self, files: Sequence[DiscFile], recipe: Recipe, cache: Cache = "memory") -> None:
        self._recipe, self.together, self._files = recipe, recipe.architecture == "disc-sequence", files
        self._kept: dict[int, DiscTable] = {}
        self.items: list[tuple[int, list[int]]] = []
        for number, file in enumerate(files):
            table = read_table(file.path)
            if cache == "memory":
                self._kept[number] = table
            known = np.isfinite(table.truth).any(axis=1)
            if self.together and known.any():
                self.items.append((number, list(range(len(table.truth)))))
            elif not self.together:
                self.items += [(number, [int(disc)]) for disc in np.flatnonzero(known)]
        if not self.items:
            raise DatasetError("the split holds no disc of which anything is known")
        self._draws = Draws([files[number].patient for number, _ in self.items], recipe.batch, recipe.seed)

    def __len__(self) -> int:
        return len(self._draws)

    def batch(self, step: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Samples of a step at the given places of its batch.

        Returns
        -------
        views float32 (disc, 4, 64, 80) and truth (disc, 7); for a sequence, (patient, disc, …), shorter spines filled
        up with NaN
        """
        drawn = self._draws.drawn(step)
        views, truths = [], []
        for position in positions:
            patches, truth = self._patches(drawn[position])
            generator = self._draws.generator(step, position)
            views.append(augmented(patches, generator) if self._recipe.augment else centred(patches))
            truths.append(truth)
        if not self.together:
            return torch.cat(views), torch.cat(truths)
        return _filled_up(views), _filled_up(truths)

    def whole(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample as it is, as a batch of one."""
        patches, truth = self._patches(index)
        return (centred(patches)[None], truth[None]) if self.together else (centred(patches), truth)

    def _patches(self, index: int) -> tuple[Tensor, Tensor]:
        number, discs = self.items[index]
        table = self._kept.get(number) or read_table(self._files[number].path)
        return torch.from_numpy(table.patches[discs]), torch.from_numpy(table.truth[discs])


def centred(patches: Tensor) -> Tensor:
    """Patches, shape (disc, 4, 96, 128), as a network sees them where nothing is varied: (disc, 4, 64, 80)."""
    return sample(patches, grids(affine(len(patches))))


def grade_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """Weighted binary cross-entropy over what is known, each sample by itself: a batch's is the mean of its parts'."""
    known = torch.isfinite(truth)
    smooth = torch.nan_to_num(truth) * (1 - SMOOTHING) + SMOOTHING / 2
    positive, weight = (torch.tensor(item[:SCORES], device=scores.device) for item in (POSITIVE_WEIGHT, TARGET_WEIGHT))
    each = functional.binary_cross_entropy_with_logits(scores, smooth, pos_weight=positive, reduction="none")
    inner = tuple(range(1, scores.dim()))
    return ((each * weight * known).sum(dim=inner) / known.sum(dim=inner).clamp(min=1)).mean()


def grade_figures(recipe: Recipe, model: dict[str, Any], samples: DiscSamples) -> dict[str, float]:
    """``validation_auroc``, the mean over what can be told apart; nothing where the split shows one side only."""
    network = build(recipe)
    network.load_state_dict(model)
    network.eval()
    with torch.inference_mode():
        pairs = [(network(views), truth) for views, truth in map(samples.whole, range(len(samples)))]
    scores, truth = (torch.cat([pair[part].reshape(-1, SCORES) for pair in pairs]).numpy() for part in (0, 1))
    found = []
    for target in range(SCORES):
        known = np.isfinite(truth[:, target])
        positive = truth[known, target] > 0.5
        if positive.any() and not positive.all():
            found.append(auroc(positive, scores[known, target].astype(np.float64)))
    return {figure_of(recipe): float(np.mean(found))} if found else {}


def _filled_up(parts: Sequence[Tensor]) -> Tensor:
    longest = max(len(part) for part in parts)
    shape = (len(parts), longest, *parts[0].shape[1:])
    result = torch.full(shape, float("nan"))
    for number, part in enumerate(parts):
        result[number, : len(part)] = part
    return result
