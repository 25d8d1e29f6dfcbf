"""Searches: the space as data, trials that go on after a kill, worse ones ended early, a real one by the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ai_services.training.dataset_version import make_version, save
from ai_services.training.engine.recipe import RecipeError, read_recipe
from foramen.cli import app
from tests.builders.training_data import labelled_phantoms

pytestmark = pytest.mark.training
RECIPE: dict[str, Any] = {
    "name": "searched",
    "architecture": "unet",
    "options": {"channels": [4, 8], "strides": [2], "num_res_units": 0},
    "crop": [64, 64],
    "batch": 2,
    "steps": 4,
    "precision": "fp32",
    "evaluate_every": 2,
    "search": {
        "rate": {"low": 0.0001, "high": 0.01, "log": True},
        "batch": {"low": 1, "high": 4},
        "options.channels": [[4, 8], [8, 16]],
    },
}
# Stands for a training where what is tried is the study: its Dice follows from the rate, and it goes on until ended.
TRAINING = """
import json, sys, time, yaml
recipe, out, wait = yaml.safe_load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
for step in (2, 4):
    with open(out + "/steps.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "loss": 1, "validation_dice": recipe["rate"] * 50, "seconds": 0}) + "\\n")
    if step == 2:
        time.sleep(float(wait))
"""


def recipe_file(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


def launch(recipe: Path, out: Path, wait: float = 0.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TRAINING, str(recipe), str(out), str(wait)])


def test_trials_stay_in_the_space_and_the_best_is_a_recipe(tmp_path: Path) -> None:
    from ai_services.training.search.space import read_search
    from ai_services.training.search.study import SearchRefusedError, run_search

    search, told = read_search(recipe_file(tmp_path)), []
    study = run_search(search, "v1", tmp_path / "study", 3, launch, told.append)
    assert [trial.state for trial in told] == ["complete"] * 3
    for trial in told:
        assert 0.0001 <= float(str(trial.values["rate"])) <= 0.01
        assert trial.values["batch"] in (1, 2, 3, 4)
        assert trial.values["options.channels"] in ([4, 8], [8, 16])
    best = read_recipe(tmp_path / "study" / "best.yaml")
    assert best.rate * 50 == pytest.approx(study.best_value) == pytest.approx(max(trial.value or 0 for trial in told))
    # The same number again is done already; another space is another study.
    run_search(search, "v1", tmp_path / "study", 3, launch, told.append)
    assert len(told) == 3
    with pytest.raises(SearchRefusedError, match="another recipe"):
        run_search(search, "v2", tmp_path / "study", 4, launch, told.append)


def test_a_killed_trial_goes_on_with_its_values_and_a_worse_one_is_ended_early(tmp_path: Path) -> None:
    from ai_services.training.search.space import read_search
    from ai_services.training.search.study import run_search

    def killed(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
        launch(recipe, out).wait()
        raise KeyboardInterrupt

    study_folder, told = tmp_path / "study", []
    search = read_search(recipe_file(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run_search(search, "v1", study_folder, 3, killed, told.append)
    begun = read_recipe(study_folder / "trial-0000" / "recipe.yaml")
    run_search(search, "v1", study_folder, 3, launch, told.append)
    assert [trial.number for trial in told] == [0, 1, 2]
    assert told[0].values["rate"] == begun.rate
    # Three trials are measured: one below their median is ended, and does not sit out its hour.
    worse = min(trial.value or 0 for trial in told)

    def bad(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
        document = yaml.safe_load(recipe.read_text())
        recipe.write_text(yaml.safe_dump({**document, "rate": worse / 100}))
        return launch(recipe, out, wait=3600)

    run_search(search, "v1", study_folder, 4, bad, told.append)
    assert told[-1].state == "pruned"


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (None, "nothing to search"),
        ({"rate": [0.1]}, r"search\.rate is a list"),
        ({"rate": {"low": 0, "high": 1, "log": True}}, r"search\.rate is a list"),
        ({"seed": [1, 2]}, r"search\.seed: this is not"),
        ({"speed": [1, 2]}, "speed is not an element"),
        ({"crop": [[30, 30], [64, 64]]}, "multiple of 16"),
    ],
)
def test_a_space_that_cannot_be_meant_is_refused_before_any_trial(tmp_path: Path, space: Any, words: str) -> None:
    from ai_services.training.search.space import read_search

    with pytest.raises(RecipeError, match=words):
        read_search(recipe_file(tmp_path, search=space))


def test_the_command_trains_its_trials(tmp_path: Path) -> None:
    folder = labelled_phantoms(tmp_path / "data", patients=12, slices=1)
    version = make_version(folder, name="t", licence="none", source="SYNTHETIC", created="now", created_by="test")
    arguments = ["train", recipe_file(tmp_path), "--data", folder, "--manifest", save(folder, version)]
    arguments += ["--out", tmp_path / "study", "--search", "1", "--threads", "1"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, (done.output, done.exception)
    (line,) = (tmp_path / "study" / "trials.jsonl").read_text().splitlines()
    assert json.loads(line)["state"] == "complete"
    assert "best.yaml: trial 0" in done.stdout.replace("\n", "")
