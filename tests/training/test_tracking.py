"""What a run leaves for people: a page of curves, and its figures in a store that may fall behind and catch up."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ai_services.training.dataset_version import DatasetVersion, make_version
from ai_services.training.engine.recipe import Recipe, recipe_of
from ai_services.training.tracking import run_record
from ai_services.training.tracking.curves import chart_of, write_page
from ai_services.training.tracking.run_record import Session

pytestmark = pytest.mark.training


def begun(root: Path) -> tuple[Recipe, DatasetVersion]:
    """Recipe and dataset version of the run."""
    version = make_version(
        root / "data", name="t", licence="none", source="SYNTHETIC", created="now", created_by="test"
    )
    return recipe_of({"name": "<b>run</b>", "architecture": "unet", "steps": 4}), version


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of four steps that was killed once: step 2 was computed twice."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1_t2.txt").write_text("SYNTHETIC")
    for step in (0, 1):
        run_record.begin(tmp_path / "run", *begun(tmp_path), Session("2026-11-23", step, 1, "cpu", "ab" * 32, {}))
    add(tmp_path / "run", 1, 0.9)
    add(tmp_path / "run", 2, 7.0)
    add(tmp_path / "run", 2, 0.8)
    with (tmp_path / "run" / "steps.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # and the kill was in the middle of a line
    return tmp_path / "run"


def add(folder: Path, step: int, loss: float) -> None:
    with (folder / "steps.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "loss": loss, "seconds": 0.5}) + "\n")


def test_the_page_shows_each_step_once_and_nothing_it_was_told_as_markup(folder: Path) -> None:
    assert write_page(folder, "running")
    page = (folder / "curves.html").read_text()
    assert '<meta http-equiv="refresh"' in page
    assert "2 / 4" in page
    assert "0:00:01" in page  # two steps of half a second
    assert "<b>run</b>" not in page
    assert "&lt;b&gt;run" in page
    assert "7.0" not in page
    for start in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + start.split("</svg>")[0] + "</svg>")  # noqa: S314  our own page
    write_page(folder, "stopped")
    assert "refresh" not in (folder / "curves.html").read_text()
    assert not write_page(folder / "none", "running")


def test_a_long_run_gives_a_small_picture_that_ends_at_its_last_step() -> None:
    chart = chart_of([(step, 1 / step) for step in range(1, 100_001)], 100_000, "损失", "loss", min)
    assert chart is not None
    assert chart.line.count("L") < 700
    assert chart.line.rsplit("L", 1)[1].split()[0] == "708.0"
    assert chart.last == chart.best == 1 / 100_000
    assert chart_of([], 10, "损失", "loss", min) is None


def test_a_store_on_postgresql_catches_up_and_hears_nothing_twice(folder: Path, empty_database_url: str) -> None:
    from mlflow.tracking import MlflowClient

    from ai_services.training.tracking.__main__ import main
    from ai_services.training.tracking.mlflow_store import store_url, tell

    first = tell(folder, empty_database_url, folder / "artifacts", "running")
    assert first.step == 2
    run_record.begin(folder, *begun(folder.parent), Session("2026-11-23", 2, 1, "cpu", "cd" * 32, {}))
    add(folder, 3, 0.7)
    arguments = [str(folder), "--uri", empty_database_url, "--artifacts", str(folder / "artifacts")]
    assert main([*arguments, "--once", "finished"]) == 0
    client = MlflowClient(tracking_uri=store_url(empty_database_url))
    history = client.get_metric_history(first.run_id, "loss")
    assert [(item.step, item.value) for item in sorted(history, key=lambda item: item.step)] == [
        (1, 0.9),
        (2, 0.8),
        (3, 0.7),
    ]
    assert client.get_run(first.run_id).info.status == "FINISHED"
    away = ["--uri", "postgresql://nobody@127.0.0.1:1/none"]
    assert main([str(folder), *away, "--artifacts", str(folder), "--once", "finished"]) == 1
