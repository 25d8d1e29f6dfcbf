"""A recipe: everything that decides what a training run does, in one YAML file (stage 11).

The same recipe, dataset version and seed give the same run: on one process or several, straight through or resumed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml

Precision = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp", "pipeline"]
Value = TypeVar("Value")
GRADERS = ("resnet", "disc-sequence")
"""Architectures that give scores of a disc and not of a pixel; they learn from tables of discs (`disc_table`)."""
_OPEN = ("crop", "spacing_mm")


class RecipeError(Exception):
    """The recipe cannot be used; the message names the element."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is told.

    Parameters
    ----------
    name : of the run
    architecture : name of `architectures.ARCHITECTURES`, with its options
    options : of the architecture
    crop : rows and columns of a training sample, pixels; None (``auto``): from the data (`self_configuration`). A
        grader sees whole patches (`pipelines.lumbar_mr.patch`): neither this nor the next is said then
    spacing_mm : of the pixels; None (``auto``): that of the data
    batch : samples of one step, over all processes together; divided by processes and by `accumulate` without rest
    accumulate : parts that the batch of each process is computed in, for less memory
    steps : optimiser steps
    rate, weight_decay, gradient_norm : AdamW with a cosine schedule; the norm that gradients are clipped to
    precision : of the forward pass; weights stay fp32
    parallel : how several processes share the work: data parallel (ddp), sharded (fsdp), or by layers (pipeline)
    checkpoint_every, evaluate_every : steps
    augment : whether training samples are varied
    seed : of weights, samples and augmentation
    """

    name: str
    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)
    crop: tuple[int, int] | None = (272, 208)
    spacing_mm: float | None = 0.94
    batch: int = 8
    accumulate: int = 1
    steps: int = 800
    rate: float = 2e-3
    weight_decay: float = 1e-2
    gradient_norm: float = 3.0
    precision: Precision = "bf16"
    parallel: Parallel = "ddp"
    checkpoint_every: int = 50
    evaluate_every: int = 100
    augment: bool = True
    seed: int = 1

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe; a checkpoint of another recipe is not continued."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


def figure_of(recipe: Recipe) -> str:
    """The figure by which runs of a recipe are compared: on the patients who watch the training; larger is better."""
    return "validation_auroc" if recipe.architecture in GRADERS else "validation_dice"


def decided(value: Value | None) -> Value:
    """An element that the data has decided; the loop sees to it before it makes anything of the recipe."""
    if value is None:
        raise RecipeError("crop and spacing_mm: auto has to be decided by the data first")
    return value


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML.

    Raises
    ------
    RecipeError
        It cannot be read, or an element is unknown, missing, or out of its range.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise RecipeError("the recipe cannot be read") from exc
    if isinstance(document, dict):
        document.pop("search", None)  # what `foramen train --search` may vary is no part of a run
    return recipe_of(document)


def recipe_of(document: Any) -> Recipe:
    """Check a recipe that was read.

    Raises
    ------
    RecipeError
        An element is unknown, missing, or out of its range.
    """
    if not isinstance(document, dict):
        raise RecipeError("a recipe is a mapping")
    known = {item.name: item for item in dataclasses.fields(Recipe)}
    for name in document:
        if name not in known:
            raise RecipeError(f"{name} is not an element of a recipe")
    for name in ("name", "architecture"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise RecipeError(f"{name} must be said")
    values: dict[str, Any] = {
        name: None if name in _OPEN and value == "auto" else value for name, value in document.items()
    }
    if values.get("crop") is not None:
        values["crop"] = _crop(values["crop"])
    for name in ("batch", "accumulate", "steps", "checkpoint_every", "evaluate_every"):
        if name in values and (not isinstance(values[name], int) or isinstance(values[name], bool) or values[name] < 1):
            raise RecipeError(f"{name} is a whole number from 1")
    for name in ("rate", "spacing_mm", "gradient_norm"):
        if values.get(name) is None and (name not in values or name in _OPEN):
            continue
        if isinstance(values[name], bool) or not isinstance(values[name], int | float) or not values[name] > 0:
            raise RecipeError(f"{name} is a number above 0")
    for name, allowed in (("precision", get_args(Precision)), ("parallel", get_args(Parallel))):
        if values.get(name, allowed[0]) not in allowed:
            raise RecipeError(f"{name} is one of {', '.join(allowed)}")
    if document["architecture"] in GRADERS:
        _check_grader(document)
    return Recipe(**values)


def _check_grader(document: dict[str, Any]) -> None:
    """A recipe of a run has every default written out, so the defaults are let pass."""
    for item in dataclasses.fields(Recipe):
        given = document.get(item.name, item.default)
        plain = tuple(given) if isinstance(given, list) else given
        if item.name in _OPEN and plain != item.default:
            raise RecipeError(f"{item.name}: a grader sees the whole patch of a disc; leave it out")
    if document.get("parallel") == "pipeline":
        raise RecipeError("parallel: a grader is not cut into layers; ddp and fsdp are for it")


def _crop(value: Any) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(isinstance(item, int) for item in value):
        raise RecipeError("crop is rows and columns")
    rows, columns = value
    if rows < 32 or columns < 32 or rows % 16 or columns % 16:
        raise RecipeError("crop is rows and columns, each a multiple of 16 from 32")
    return rows, columns
