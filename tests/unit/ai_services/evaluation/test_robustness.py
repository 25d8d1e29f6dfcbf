"""`foramen model robustness`: faults of known size on a real volume, what is refused, and coverage against risk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ai_services.evaluation.abstention import curve
from foramen.cli import app

RUNNER = CliRunner()


@pytest.mark.test_data
def test_a_kept_out_patient_is_read_clean_and_refused_inverted(test_data: Path, tmp_path: Path) -> None:
    arguments = ["model", "robustness", "--data", str(test_data / "spider"), "--patients", "52"]
    arguments += ["--faults", "intensity inverted,grey scale bent"]
    outputs = ["--json", str(tmp_path / "figures.json"), "--page", str(tmp_path / "page.md")]
    result = RUNNER.invoke(app, [*arguments, *outputs])
    assert result.exit_code == 0, result.output
    rows = {
        (row["fault"], row["amount"]): row for row in json.loads((tmp_path / "figures.json").read_text())["conditions"]
    }
    assert rows["none", ""]["refused"] == 0
    assert rows["none", ""]["disc_dice"]["value"] > 0.85
    assert rows["none", ""]["pfirrmann_same"]["value"] == 1
    inverted = rows["intensity inverted", ""]
    assert (inverted["refused"], inverted["reasons"], inverted["disc_dice"]) == (1, ["inverted-image"], None)
    assert len(rows) == 4
    page = (tmp_path / "page.md").read_text()
    assert "| intensity inverted |  | 1 of 1 (inverted-image) | – |" in page

    # What an earlier run saw counts again without being computed; of other slices it does not.
    again = RUNNER.invoke(app, [*arguments, "--add", outputs[1], "--json", str(tmp_path / "again.json")])
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads((tmp_path / "figures.json").read_text())
    other = RUNNER.invoke(app, [*arguments, "--add", outputs[1], "--every", "5"])
    assert other.exit_code == 2
    assert "other weights or slices" in other.output


def test_a_folder_without_volumes_is_said(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["model", "robustness", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "Cannot look" in result.output


def test_withholding_the_least_sure_grades_makes_the_rest_righter() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.2, 1, 4000)
    error = (generator.random(4000) > confidence).astype(np.int64)  # calibrated by construction
    rows = curve(confidence, error, np.arange(4000) // 5, (1.0, 0.75, 0.5))
    told = [row["accuracy"]["value"] for row in rows]
    assert told == sorted(told)
    assert [round(row["coverage"], 2) for row in rows] == [1.0, 0.75, 0.5]
    assert rows[0]["withheld_accuracy"] is None
    assert abs(rows[2]["threshold"] - 0.6) < 0.02
    assert abs(rows[2]["accuracy"]["value"] - 0.8) < 0.03
    assert abs(rows[2]["withheld_accuracy"]["value"] - 0.4) < 0.03
