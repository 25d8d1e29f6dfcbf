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

    @property
    def reached(self) -> bool | None:
        """Whether every goal is met; None: it has none."""
        lower, ratio = self.unit in ("ms", "MB"), self.ratio
        met = [] if self.goal is None else [self.value <= self.goal if lower else self.value >= self.goal]
        if self.ratio_goal is not None and ratio is not None:
            met.append(round(ratio, 2) >= self.ratio_goal)
        return all(met) if met else None


def report(rows: Sequence[Row], facts: dict[str, Any], command: str, history: Path = HISTORY) -> None:
    """Print the table, add a line to the history, and write the page beside it.

    Parameters
    ----------
    facts : of the run: sizes, whether the cache was warm, notes
    command : how it was called
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
    history.with_name("dicomweb.md").write_text(page(rows, facts, command), encoding="utf-8")


def page(rows: Sequence[Row], facts: dict[str, Any], command: str) -> str:
    """Return the table as Markdown, for the documentation."""
    lines = [
        "# DICOMweb beside Orthanc's own plug-in",
        "",
        f"Written by `{command}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores shared by server, archive,",
        f"database and client, Python {platform.python_version()}. Tokens, access rules and audit are on in Foramen;",
        "both are asked by turns in one run. Medians, p99 where it says so; ratio: how many times better Foramen is.",
        "",
        "| what | Foramen | goal | Orthanc | ratio | goal | reached |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        other = f"{statistics.median(row.theirs):.0f}" if row.theirs else ""
        told = f"{row.value:.1f} {row.unit}" + (f" (p{row.percentile})" if row.percentile != 50 else "")
        goal = f"{'≤' if row.unit in ('ms', 'MB') else '≥'} {row.goal:g}" if row.goal is not None else ""
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        ratio_goal = f"≥ {row.ratio_goal:g}" if row.ratio_goal is not None else ""
        reached = {True: "yes", False: "no", None: ""}[row.reached]
        lines.append(f"| {row.name} | {told} | {goal} | {other} | {ratio} | {ratio_goal} | {reached} |")
    return "\n".join([*lines, "", *(f"- {name}: {value}" for name, value in facts.items()), ""])
