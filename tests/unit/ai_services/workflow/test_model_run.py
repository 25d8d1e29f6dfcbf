"""`foramen model run --dry-run` on SYNTHETIC files: the pipeline's own answers, refusals, and a kill in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from ai_services.pipelines.lumbar_mr.pipeline import run
from ai_services.prediction import PipelineError
from ai_services.workflow.journal import Journal
from ai_services.workflow.prediction_pool import Answer, Job, Pool, predict
from ai_services.workflow.spool import read_prediction
from foramen.commands.model import app as model_app
from tests.builders.installation import wait_for
from tests.builders.prediction import source_datasets
from tests.builders.small_studies import small_study

COMMAND = [sys.executable, "-m", "foramen", "model", "run", "--dry-run", "--processes", "1"]


def write(folder: Path, datasets: list[Dataset]) -> tuple[Path, ...]:
    folder.mkdir(parents=True)
    paths = tuple(folder / f"{number}.dcm" for number in range(len(datasets)))
    for path, dataset in zip(paths, datasets, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


def lines(out: Path) -> list[dict[str, Any]]:
    path = out / "predictions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two phantoms and a study of noise."""
    folder = tmp_path_factory.mktemp("studies")
    for seed in (1, 2):
        write(folder / str(seed), small_study(seed).instances)
    write(folder / "noise", source_datasets())
    return folder


def test_a_killed_dry_run_goes_on_and_says_what_the_pipeline_says(studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "--folder", str(studies), "--out", str(out)]
    environment = {**os.environ, "FORAMEN_HOME": str(tmp_path / "home")}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: lines(out), 120, "the first answer")
    children = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait(10)
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    (out / "predictions.jsonl").open("ab").write(b'{"study_instance_uid": "1.2')  # as a kill may leave it
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert second.returncode == 0, second.stderr
    assert "already-answered" in second.stdout
    answers = {line["study_instance_uid"]: line for line in lines(out)}
    assert len(lines(out)) == len(answers) == 3
    phantom = small_study(1)
    expected = run(phantom.instances)
    told = answers[phantom.study_instance_uid]
    assert told["status"] == "predicted"
    assert [model["sha256"] for model in told["models"]] == [model.sha256 for model in expected.models]
    found = read_prediction(out / f"{told['name']}.npz")
    assert float((found.mask != expected.mask).mean()) < 1e-4  # other thread counts may round another way
    assert [(f.code, f.level) for f in found.findings] == [(f.code, f.level) for f in expected.findings]
    noise = answers[str(source_datasets()[0].StudyInstanceUID)]
    with pytest.raises(PipelineError) as refused:
        run(source_datasets())
    assert (noise["status"], noise["reason"]) == ("declined", refused.value.reason_code)
    assert all(np.isfinite(line["peak_mb"]) and line["peak_mb"] < 1500 for line in answers.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give one of"),
        (["--cohort", "Group/x", "--folder", "."], "give one of"),
        (["--folder", "nowhere", "--out", "out"], "no such folder"),
        (["--studies", "list.txt", "--out", "out"], "line 2 is not"),
        (["--folder", "."], "--dry-run needs"),
    ],
)
def test_a_wrong_call_is_refused_in_words(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("1.2.3\nZHANG^SAN\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(model_app, ["run", "--dry-run", *options])
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
    assert "ZHANG" not in done.output


def test_a_study_that_kills_its_process_fails_alone(studies: Path, tmp_path: Path) -> None:
    """Whichever process reads the one study is killed, each time; the other study has its answer."""
    pipe = tmp_path / "never.dcm"
    os.mkfifo(pipe)

    def kill_the_reader() -> None:
        while True:
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # succeeds while somebody reads
            except OSError:
                time.sleep(0.05)
                continue
            for child in psutil.Process().children():
                if any("spawn_main" in word for word in child.cmdline()):
                    child.kill()
                    child.wait(10)
            os.close(writer)
            time.sleep(0.5)

    threading.Thread(target=kill_the_reader, daemon=True).start()
    jobs = [Job("1.2.3", (pipe,)), Job("1.2.4", tuple(sorted((studies / "noise").glob("*.dcm"))))]
    answers = {item.study_instance_uid: item for item in predict(jobs, tmp_path / "out", Pool(1))}
    assert (answers["1.2.3"].status, answers["1.2.3"].reason) == ("failed", "worker-died")
    assert answers["1.2.4"].status == "declined"


def test_a_journal_forgets_what_failed_and_what_another_version_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "package-1")
    journal.add(Answer("1.2.3", "predicted", "a"))
    journal.add(Answer("1.2.4", "failed", "b", "worker-died"))
    assert Journal(tmp_path, "package-1").done() == {"1.2.3"}
    assert Journal(tmp_path, "package-2").done() == set()
    assert (tmp_path / "predictions.jsonl").stat().st_mode & 0o077 == 0
