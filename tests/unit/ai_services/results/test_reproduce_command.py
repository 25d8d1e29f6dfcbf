"""What a shell learns from `foramen model reproduce`: 0 the same, 1 different, 2 cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ai_services.results.comparison import Difference
from ai_services.results.reproduce import DIFFERENT, SAME, CannotError, Outcome
from foramen.commands import model, model_reproduce

GRADE = Difference("F06 L4-L5 valueCodeableConcept.coding[0].code", "4", "5")


def outcome(verdict: str, *differences: Difference) -> Outcome:
    return Outcome(verdict, "0.2.0", 15, verdict == SAME, (), 40, differences, ("numpy was 2.4.6, is 2.5.0",))


@pytest.mark.parametrize(
    ("found", "code", "told"),
    [
        (outcome(SAME), 0, "same: version 0.2.0, 15 images"),
        (outcome(DIFFERENT, GRADE), 1, "F06 L4-L5 valueCodeableConcept.coding[0].code: was 4, is 5"),
        (CannotError("the images are not in the archive, or are rejected"), 2, "cannot: the images are not"),
    ],
)
def test_exit_codes(
    found: Outcome | Exception, code: int, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def reproduced(provenance_id: str, _: float) -> Outcome:
        asked.append(provenance_id)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(model_reproduce, "_reproduced", reproduced)
    path = tmp_path / "told.json"
    result = CliRunner().invoke(model.app, ["reproduce", "Provenance/7", "--json", str(path)])
    assert (result.exit_code, asked) == (code, ["7"])
    assert told in result.output
    assert json.loads(path.read_text(encoding="utf-8"))["verdict"] == ("same", "different", "cannot")[code]
