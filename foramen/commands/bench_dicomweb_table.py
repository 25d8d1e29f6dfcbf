"""Rows of `foramen bench dicomweb`, their table, and the line of docs/benchmarks/history.jsonl."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HISTORY = Path("docs/benchmarks/history.jsonl")


@dataclass
class Row:
    """One figure.

    Parameters
    ----------
    unit : of the values; "ms" and "MB": lower is better, all others: higher is
    ours, theirs : values of the repeats, of Foramen and of Orthanc's own DICOMweb plug-in in the same run
    percentile : what is told of ours instead of the median
    goal, ratio_goal : of ours, and of ours against theirs
    """

    name: str
    unit: str
    ours: list[float]
    theirs: list[float] = field(default_factory=list)
    percentile: int = 50
    goal: float | None = None
    ratio_goal: float | None = None

    @property
    def value(self) -> float:
        """Median, or the percentile; of fewer than 100 values the highest stands for a percentile."""
        if self.percentile == 50:
            return statistics.median(self.ours)
        return max(self.ours) if len(self.ours) < 100 else statistics.quantiles(self.ours, n=100)[self.percentile - 1]

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than theirs, by medians."""
        if not self.theirs:
            return None
        mine, other = statistics.median(self.ours), statistics.median(self.theirs)
        return other / mine if self.unit in ("ms", "MB") else mine / other


def report(rows: Sequence[Row], facts: dict[str, Any], history: Path = HISTORY) -> None:
    """Print the table and add a line to the history.

    Parameters
    ----------
    facts : of the run: sizes, whether the cache was warm, notes
    """
    table = Table("what", "unit", "Foramen", "goal", "Orthanc plug-in", "ratio", "goal", title="foramen bench dicomweb")
    for row in rows:
        told = f"{row.value:.1f}" + (f" (p{row.percentile})" if row.percentile != 50 else "")
        other = f"{statistics.median(row.theirs):.1f}" if row.theirs else ""
        ratio = f"{row.ratio:.1f}" if row.ratio is not None else ""
        goals = ("" if goal is None else f"{goal:g}" for goal in (row.goal, row.ratio_goal))
        table.add_row(row.name, row.unit, told, next(goals), other, ratio, next(goals))
    console = Console(width=140)
    console.print(table)
    for name, value in facts.items():
        console.print(f"{name}: {value}")
    entry = {
        "bench": "dicomweb",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "facts": facts,
        "figures": {
            row.name: {
                "unit": row.unit,
                "percentile": row.percentile,
                "foramen": round(row.value, 2),
                **({"orthanc": round(statistics.median(row.theirs), 2)} if row.theirs else {}),
                **({"ratio": round(row.ratio, 2)} if row.ratio is not None else {}),
            }
            for row in rows
        },
    }
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
