"""The page of `foramen bench ai` shows each part as it was measured last, with the run that it is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foramen.commands.bench_ai_figures import Figure, highest_percentile, report

RUN = {"model": "lumbar_mr 9.9.9", "device": "a processor, 2 cores"}


def test_a_percentile_of_few_studies_is_called_the_highest() -> None:
    assert highest_percentile([1.0, 3.0, 2.0]) == ("highest of 3", 3.0)
    name, value = highest_percentile([float(number) for number in range(1, 201)])
    assert name == "P99 of 200"
    assert value == pytest.approx(198.99)


@pytest.mark.parametrize(
    ("unit", "value", "reached"),
    [("s", 2.9, True), ("s", 3.1, False), ("images/min", 3.1, True), ("images/min", 2.9, False), ("Dice", 2.9, False)],
)
def test_whether_a_goal_is_a_floor_or_a_ceiling_goes_by_the_unit(unit: str, value: float, reached: bool) -> None:
    assert Figure("", unit, value, 3.0).reached is reached
    assert Figure("", unit, value).reached is None


def test_the_page_shows_the_newest_run_of_each_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = tmp_path / "history.jsonl"
    older = {"bench": "ai", "at": "2026-01-01T00:00:00+00:00", "figures": {"of another form": 1}}
    other = {"bench": "spine", "at": "2026-01-01T00:00:00+00:00", "figures": {}}
    history.write_text(f"{json.dumps(older)}\n{json.dumps(other)}\n", encoding="utf-8")
    slow, fast = Figure("recognition", "s", 4.12345, 3.0), Figure("recognition", "s", 2.0, 3.0)
    rate = Figure("batch", "images/min", 599.94, 600.0)
    report(
        {"models": [slow], "throughput": [rate]}, {"throughput": {"studies": "24"}}, {**RUN, "command": "one"}, history
    )
    report({"models": [fast]}, {}, {**RUN, "command": "two"}, history)
    page = (tmp_path / "ai.md").read_text("utf-8")
    assert "| models | recognition | 2 s | ≤ 3 | yes | 1 |" in page
    assert "| throughput | batch | 599.9 images/min | ≥ 600 | no | 2 |" in page
    assert "4.12" not in page
    assert "- run 1: `two`" in page
    assert "- run 2: `one`" in page
    assert "lumbar_mr 9.9.9, a processor, 2 cores" in page
    assert "- throughput, studies: 24" in page
    lines = [json.loads(line) for line in history.read_text("utf-8").splitlines()]
    assert len(lines) == 4
    assert lines[2]["parts"]["models"]["figures"]["recognition"] == {"unit": "s", "value": 4.12345, "goal": 3.0}
    assert "recognition" in capsys.readouterr().out
