"""Trials of a search: proposed by Optuna, trained as runs, stopped early where others were better, resumed (stage 11).

The study lies beside its trials (SQLite). A trial that a kill left in the middle goes on from its checkpoint. Proposals
by TPE, pruning by the median of earlier trials at the same step: https://optuna.readthedocs.io/en/stable/reference/
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import yaml
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState

from ai_services.training.engine.recipe import RecipeError, figure_of
from ai_services.training.search.space import Search
from ai_services.training.tracking.run_record import read_steps

BEST_FILE = "best.yaml"
_STUDY_FILE = "study.db"
_OWNER = "foramen.search"
_LOOK_S = 0.3
_BEFORE_PRUNING = 3
Launch = Callable[[Path, Path], "subprocess.Popen[bytes]"]
"""Starts a training of the recipe in a file, in a folder."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial: its number, state (complete, pruned, fail), the figure it is compared by, and values by path."""

    number: int
    state: str
    value: float | None
    values: dict[str, object]


class SearchRefusedError(Exception):
    """The folder holds another search, or there is nothing to measure by."""


def run_search(
    search: Search, dataset: str, folder: Path, trials: int, launch: Launch, told: Callable[[TrialResult], None]
) -> Study:
    """Run trials until the study has so many; those that it has are kept.

    Parameters
    ----------
    search : recipe and space
    dataset : digest of the dataset version
    folder : of the study; trial N is the run in ``trial-NNNN``
    trials : of the study altogether, however they ended
    launch : starts a training
    told : hears of each trial that ended

    Raises
    ------
    SearchRefusedError
        The folder holds a study of another recipe, space or dataset version.
    """
    study = _study(search, dataset, folder)
    for unfinished in study.get_trials(states=(TrialState.RUNNING,)):
        told(_run(study, Trial(study, unfinished._trial_id), search, folder, launch))
    while len(study.trials) < trials:
        told(_run(study, study.ask(), search, folder, launch))
    completed = study.get_trials(states=(TrialState.COMPLETE,))
    if completed:
        best = folder / f"trial-{study.best_trial.number:04d}" / "recipe.yaml"
        (folder / BEST_FILE).write_bytes(best.read_bytes())
    return study


def _study(search: Search, dataset: str, folder: Path) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    owner = f"{search.digest} {dataset}"
    # A sampler of its own seed a session: a resumed search must not propose again what it began with.
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / _STUDY_FILE).resolve()}")
    study = optuna.create_study(
        study_name="search", storage=storage, direction="maximize", load_if_exists=True, pruner=_pruner()
    )
    if study.user_attrs.setdefault(_OWNER, owner) != owner:
        raise SearchRefusedError("the folder holds a search of another recipe, space or dataset version")
    study.set_user_attr(_OWNER, owner)
    study.sampler = TPESampler(seed=search.base.seed + len(study.trials))
    return study


def _pruner() -> MedianPruner:
    return MedianPruner(n_startup_trials=_BEFORE_PRUNING, n_warmup_steps=0)


def _run(study: Study, trial: Trial, search: Search, folder: Path, launch: Launch) -> TrialResult:
    values = search.suggested(trial)
    out = folder / f"trial-{trial.number:04d}"
    out.mkdir(exist_ok=True)
    try:
        recipe = out / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(search.recipe(values), sort_keys=False), encoding="utf-8")
        state, value = _watched(trial, launch(recipe, out), out, figure_of(search.base))
    except RecipeError:
        state, value = TrialState.FAIL, None
    study.tell(trial.number, value if state is TrialState.COMPLETE else None, state=state)
    result = TrialResult(trial.number, state.name.lower(), value, values)
    line = {"trial": result.number, "state": result.state, figure_of(search.base): value, "values": values}
    with (folder / "trials.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return result


def _watched(trial: Trial, process: subprocess.Popen[bytes], out: Path, figure: str) -> tuple[TrialState, float | None]:
    """Report what the run measures; end it where others were better at the same step."""
    value: float | None = None
    reported: set[int] = set()
    try:
        while True:
            ended = process.poll() is not None
            for figures in read_steps(out):
                step = int(figures["step"])
                if figure in figures and step not in reported:
                    reported.add(step)
                    value = figures[figure]
                    trial.report(value, step)
                    if not ended and trial.should_prune():
                        return TrialState.PRUNED, value
            if ended:
                done = process.returncode == 0 and value is not None
                return (TrialState.COMPLETE, value) if done else (TrialState.FAIL, value)
            time.sleep(_LOOK_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
