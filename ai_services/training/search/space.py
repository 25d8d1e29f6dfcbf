"""The space of a search: elements of a recipe that are left open, as data under ``search`` of its file (stage 11).

https://optuna.readthedocs.io/en/stable/reference/generated/optuna.trial.Trial.html
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ai_services.training.engine.recipe import Recipe, RecipeError, recipe_of

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_FIXED = ("name", "seed", "search")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A number between two, both included; whole where both are whole, evenly by its logarithm where `log`."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True, slots=True)
class Search:
    """A recipe with open elements: the document without ``search``, and what is open, by its path (``options.x``)."""

    document: Mapping[str, Any]
    space: Mapping[str, Choice | Range]

    @property
    def base(self) -> Recipe:
        """The recipe as it is without a search."""
        return recipe_of(dict(self.document))

    @property
    def digest(self) -> str:
        """SHA-256 of recipe and space: a study of another one is not continued."""
        told = {name: repr(item) for name, item in self.space.items()}
        return hashlib.sha256(json.dumps([self.base.digest, told], sort_keys=True).encode()).hexdigest()

    def suggested(self, trial: BaseTrial) -> dict[str, Any]:
        """Values of a trial, by path. Choices of lists are suggested by their place, as a study keeps plain values."""
        found: dict[str, Any] = {}
        for name, item in self.space.items():
            if isinstance(item, Choice):
                found[name] = item.values[trial.suggest_categorical(name, range(len(item.values)))]
            elif item.whole:
                found[name] = trial.suggest_int(name, int(item.low), int(item.high), log=item.log)
            else:
                found[name] = trial.suggest_float(name, item.low, item.high, log=item.log)
        return found

    def recipe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe file of a trial; RecipeError where its values do not fit together."""
        document: dict[str, Any] = copy.deepcopy(dict(self.document))
        for path, value in values.items():
            place = document
            *parents, last = path.split(".")
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        recipe_of(document)
        return document


def read_search(path: Path) -> Search:
    """Read a recipe file with its ``search``.

    Raises
    ------
    RecipeError
        It cannot be read, has no ``search``, or an element of it is not one that can be searched.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise RecipeError("the recipe cannot be read") from exc
    if not isinstance(document, dict) or not isinstance(document.get("search"), dict) or not document["search"]:
        raise RecipeError("search: the recipe names nothing to search for")
    fixed = {name: value for name, value in document.items() if name != "search"}
    space = {str(name): _item(str(name), given) for name, given in document["search"].items()}
    search = Search(fixed, space)
    search.base  # noqa: B018  refuses a recipe that cannot be used, before any trial
    for name, item in space.items():
        search.recipe({name: item.values[0] if isinstance(item, Choice) else item.low})
    return search


def _item(name: str, given: Any) -> Choice | Range:
    if name.split(".")[0] in _FIXED:
        raise RecipeError(f"search.{name}: this is not searched for")
    if isinstance(given, list) and len(given) > 1:
        return Choice(tuple(given))
    if isinstance(given, dict) and {"low", "high"} <= set(given) <= {"low", "high", "log"}:
        low, high, log = given["low"], given["high"], given.get("log", False)
        numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in (low, high))
        if numbers and isinstance(log, bool) and low < high and (low > 0 or not log):
            return Range(low, high, log)
    raise RecipeError(f"search.{name} is a list of two values or more, or low, high and perhaps log")
