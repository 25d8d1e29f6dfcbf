"""`foramen bench dicomweb` runs from end to end, tiny: a private system, both servers asked, one line of history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foramen.commands.bench_dicomweb import run

pytestmark = pytest.mark.system


def test_it_measures_both_and_remembers(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    rows = {row.name: row for row in run(4, 2, 32, [20], 2, 2, 1, history)}
    assert rows["metadata of 4 instances"].ratio is not None
    assert rows["QIDO, 2 instances"].theirs
    assert all(value > 0 for row in rows.values() for value in row.ours)
    assert sum(name.startswith("QIDO over 20 studies") for name in rows) == 9
    (line,) = history.read_text("utf-8").splitlines()
    entry = json.loads(line)
    assert entry["bench"] == "dicomweb"
    assert set(entry["figures"]) == set(rows)
    page = (tmp_path / "dicomweb.md").read_text("utf-8")
    assert page.count("\n| ") == 2 + len(rows)
    assert "foramen bench dicomweb --instances 4 " in page
