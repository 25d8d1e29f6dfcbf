"""Rows of `foramen bench dicomweb`, their table, and the line of docs/benchmarks/history.jsonl."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foramen.commands.bench_page import HISTORY, page, remember, show, write_page


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

    @property
    def reached(self) -> bool | None:
        """Whether every goal is met; None: it has none."""
        lower, ratio = self.unit in ("ms", "MB"), self.ratio
        met = [] if self.goal is None else [self.value <= self.goal if lower else self.value >= self.goal]
        if self.ratio_goal is not None and ratio is not None:
            met.append(round(ratio, 2) >= self.ratio_goal)
        return all(met) if met else None


_COLUMNS = ("what", "Foramen", "goal", "Orthanc", "ratio", "goal", "reached")


def report(rows: Sequence[Row], facts: dict[str, Any], command: str, history: Path = HISTORY) -> None:
    """Print the table, add a line to the history, and write the page beside it.

    Parameters
    ----------
    facts : of the run: sizes, whether the cache was warm, notes
    command : how it was called
    """
    notes = [f"{name}: {value}" for name, value in facts.items()]
    show("foramen bench dicomweb", _COLUMNS, _cells(rows), notes)
    figures = {
        row.name: {
            "unit": row.unit,
            "percentile": row.percentile,
            "foramen": round(row.value, 2),
            **({"orthanc": round(statistics.median(row.theirs), 2)} if row.theirs else {}),
            **({"ratio": round(row.ratio, 2)} if row.ratio is not None else {}),
        }
        for row in rows
    }
    remember("dicomweb", {"facts": facts, "figures": figures}, history)
    preface = [
        f"Written by `{command}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores shared by server, archive,",
        f"database and client, Python {platform.python_version()}. Tokens, access rules and audit are on in Foramen;",
        "both are asked by turns in one run. Medians, p99 where it says so; ratio: how many times better Foramen is.",
    ]
    text = page("DICOMweb beside Orthanc's own plug-in", preface, _COLUMNS, _cells(rows), notes)
    write_page("dicomweb", text, history)


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for row in rows:
        other = f"{statistics.median(row.theirs):.0f}" if row.theirs else ""
        told = f"{row.value:.1f} {row.unit}" + (f" (p{row.percentile})" if row.percentile != 50 else "")
        goal = f"{'≤' if row.unit in ('ms', 'MB') else '≥'} {row.goal:g}" if row.goal is not None else ""
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        ratio_goal = f"≥ {row.ratio_goal:g}" if row.ratio_goal is not None else ""
        reached = {True: "yes", False: "no", None: ""}[row.reached]
        cells.append((row.name, told, goal, other, ratio, ratio_goal, reached))
    return cells
