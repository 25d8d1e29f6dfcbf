"""`foramen train RECIPE --search N`: trials of a recipe with open elements, until the study has N of them.

Contract module 2; docs/how-to/train_a_model.md. Started again, the study goes on, a killed trial from its checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ai_services.training.search.study import TrialResult


def search_recipe(recipe: Path, manifest: Path, out: Path, trials: int, command: Sequence[str]) -> None:
    """Run the search and tell what was found; `command` trains, given a recipe and a folder."""
    if importlib.util.find_spec("optuna") is None:
        raise typer.BadParameter("a search needs Optuna: make setup-train")
    from ai_services.training.dataset_version import DatasetError, load
    from ai_services.training.engine.recipe import RecipeError, figure_of
    from ai_services.training.search.space import read_search
    from ai_services.training.search.study import BEST_FILE, SearchRefusedError, run_search

    def launch(recipe_file: Path, folder: Path) -> subprocess.Popen[bytes]:
        with (folder / "log.txt").open("ab") as log:
            arguments = [*command, "--recipe", str(recipe_file), "--out", str(folder)]
            # As for a run of its own: restarted processes share no store with those that were killed.
            environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
            return subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)

    try:
        space, version = read_search(recipe), load(manifest)
        if not version.patients_of("validation"):
            raise SearchRefusedError("the dataset version keeps no patient for validation: nothing to compare by")
        study = run_search(space, version.digest, out, trials, launch, _tell)
    except (RecipeError, DatasetError, SearchRefusedError) as refused:
        raise typer.BadParameter(str(refused)) from refused
    figure = figure_of(space.base)
    table = Table("trial", "state", figure, *space.space)
    for line in (out / "trials.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        values = [json.dumps(told["values"][name]) for name in space.space]
        value = "–" if told[figure] is None else f"{told[figure]:.4f}"
        table.add_row(str(told["trial"]), told["state"], value, *values)
    Console().print(table)
    if not (out / BEST_FILE).exists():
        typer.echo("no trial was completed; what went wrong stands in log.txt of each", err=True)
        raise typer.Exit(1)
    typer.echo(f"{out / BEST_FILE}: trial {study.best_trial.number}, {figure} {study.best_value:.4f}")


def _tell(trial: TrialResult) -> None:
    value = "–" if trial.value is None else f"{trial.value:.4f}"
    typer.echo(f"trial {trial.number} {trial.state} {value} {json.dumps(trial.values)}", err=True)
