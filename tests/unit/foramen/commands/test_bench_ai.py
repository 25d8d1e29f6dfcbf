"""`foramen bench ai` runs from end to end, tiny: real weights, real processes, progress, a page, a line of history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foramen.commands import bench_ai_phantoms
from foramen.commands.bench_ai import run
from foramen.commands.bench_ai_figures import Sizes
from tests.builders.small_studies import draw_small


@pytest.fixture
def small_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is measured, whatever a study costs."""
    draw_small(monkeypatch)
    monkeypatch.setattr(bench_ai_phantoms, "_drawn", {})


@pytest.mark.usefixtures("small_studies")
def test_it_measures_says_what_it_does_and_remembers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = tmp_path / "history.jsonl"
    measured = run(["throughput", "models"], Sizes(repeats=1, studies=1, processes=1), history)
    assert list(measured) == ["models", "throughput"]
    figures = {figure.name: figure for found in measured.values() for figure in found}
    assert figures["recognition of a study, cpu"].value > figures["preprocessing of a study"].value > 0
    assert figures["batch"].unit == "images/min"
    assert figures["batch"].value > 0
    assert figures["most memory of a batch process"].value > 50
    said = capsys.readouterr()
    assert "round 1 of 1" in said.err
    assert "recognition of a study, cpu" in said.out
    (line,) = history.read_text("utf-8").splitlines()
    entry = json.loads(line)
    assert entry["model"].startswith("lumbar_mr ")
    assert entry["device"].endswith(" cores") or ";" in entry["device"]
    assert "--parts models,throughput --repeats 1 --studies 1 " in entry["command"]
    page = (tmp_path / "ai.md").read_text("utf-8")
    assert page.count("\n| ") == 2 + len(figures)


@pytest.mark.system
@pytest.mark.usefixtures("small_studies")
def test_the_queue_is_that_of_a_whole_installation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = tmp_path / "history.jsonl"
    figures = {figure.name: figure for figure in run(["queue"], Sizes(queued=2, rate=300), history)["queue"]}
    assert figures["300 images/min, requested to answered: highest of 2"].goal == 8.0
    assert figures["300 images/min, requested to answered: median"].value > 0
    assert figures["most memory of the worker"].value > 100
    assert "needs 100 studies" in (tmp_path / "ai.md").read_text("utf-8")
    assert "one every 1.6 s" in capsys.readouterr().err


@pytest.mark.training
def test_onnx_says_what_torch_says(tmp_path: Path) -> None:
    (figure,) = run(["parity"], Sizes(repeats=1), tmp_path / "history.jsonl")["parity"]
    assert figure.reached, "the goal is 1e-3 of a score"
