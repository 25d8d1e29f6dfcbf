"""What a run learns, decided by its architecture: outlines from masks, or grades of discs (stage 11)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor

from ai_services.training import disc_table
from ai_services.training.dataset_version import DatasetError, DatasetVersion
from ai_services.training.engine import data, disc_samples, outlines
from ai_services.training.engine.data import STORED_SPACING_MM, Cache, Samples
from ai_services.training.engine.disc_samples import DiscSamples
from ai_services.training.engine.recipe import GRADERS, Recipe
from ai_services.training.engine.self_configuration import configured, fingerprint_of

AnySamples = Samples | DiscSamples


class Task(ABC):
    """What differs between learning outlines and learning grades."""

    @abstractmethod
    def decided(self, recipe: Recipe, folder: Path, version: DatasetVersion) -> Recipe:
        """The recipe with what it leaves to the data; DatasetError where there is nothing to learn from."""

    @abstractmethod
    def samples(
        self, folder: Path, version: DatasetVersion, split: str, recipe: Recipe, cache: Cache, cached_in: Path
    ) -> AnySamples | None:
        """Samples of a split; None where it holds nothing that is labelled."""

    @abstractmethod
    def loss_of(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Mean over samples of the loss of each."""

    @abstractmethod
    def figures(self, recipe: Recipe, model: dict[str, Any], samples: Any) -> dict[str, float]:
        """How good a network is on the patients that watch the training."""

    @abstractmethod
    def nothing_to_learn_from(self) -> DatasetError:
        """Why a version cannot be trained on."""


class Outlines(Task):
    """Images and masks of slices: `<folder>/images`, `<folder>/masks`."""

    def decided(self, recipe: Recipe, folder: Path, version: DatasetVersion) -> Recipe:
        """From the sizes of the training images."""
        files = data.files_of(folder, version, "train")
        if not files:
            raise self.nothing_to_learn_from()
        return configured(recipe, fingerprint_of([file.image for file in files], STORED_SPACING_MM))

    def samples(
        self, folder: Path, version: DatasetVersion, split: str, recipe: Recipe, cache: Cache, cached_in: Path
    ) -> Samples | None:
        """Slices."""
        files = data.files_of(folder, version, split)
        return Samples(files, recipe, cache, cached_in) if files else None

    def loss_of(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy and soft Dice."""
        return outlines.outline_loss(scores, truth)

    def figures(self, recipe: Recipe, model: dict[str, Any], samples: Samples) -> dict[str, float]:
        """Dice."""
        return outlines.outline_figures(recipe, model, samples)

    def nothing_to_learn_from(self) -> DatasetError:
        """No masks."""
        return DatasetError("the split holds no labelled slice")


class Grades(Task):
    """Tables of discs: `patients/<id>/discs/<series>.npz`."""

    def decided(self, recipe: Recipe, folder: Path, version: DatasetVersion) -> Recipe:
        """Patches have one size: the data decides nothing."""
        return recipe

    def samples(
        self, folder: Path, version: DatasetVersion, split: str, recipe: Recipe, cache: Cache, cached_in: Path
    ) -> DiscSamples | None:
        """Discs, or spines."""
        files = disc_table.files_of(folder, version, split)
        return DiscSamples(files, recipe, cache) if files else None

    def loss_of(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy of what is known."""
        return disc_samples.grade_loss(scores, truth)

    def figures(self, recipe: Recipe, model: dict[str, Any], samples: DiscSamples) -> dict[str, float]:
        """AUROC."""
        return disc_samples.grade_figures(recipe, model, samples)

    def nothing_to_learn_from(self) -> DatasetError:
        """No tables."""
        return DatasetError("the split holds no table of discs (foramen dataset discs)")


def task_of(recipe: Recipe) -> Task:
    """The task of a recipe's architecture."""
    return Grades() if recipe.architecture in GRADERS else Outlines()
